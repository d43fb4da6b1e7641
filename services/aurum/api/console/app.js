// @ts-check
// The frame around the pages: navigation, connection, alarms, and the user's choices.

import { messageOf, request } from "./api.js";
import { h, problemLine, setText, showProblem } from "./dom.js";
import { timeOrDate } from "./format.js";
import { alarmsWaiting, connect, disconnect, plant, subscribe, watchConnection } from "./live.js";
import { findPage, NOT_FOUND } from "./pages.js";
import { currentSession, loadSession, signOut } from "./session.js";
import { remember, setting } from "./settings.js";
import { openSignIn } from "./sign_in.js";
import { isSoundOn, playNewAlarms, switchSound } from "./sound.js";
import { language, LANGUAGES, loadTexts, t } from "./text.js";
import { applyScreen, leaveWallButton, wallButton } from "./wall_screen.js";

/** @import { Child, ConsoleSettings } from "./types.d.ts" */

/** @type {ConsoleSettings} */
const NO_SETTINGS = {
  version: "",
  environment: "",
  features: {},
  faults_enabled: false,
  traces_kept: false,
  jaeger_url: null,
  grafana_url: null,
  logs_url: null,
  simulation_speed: null,
};

let settings = NO_SETTINGS;
let leavePage = () => {};
let leaveSimulation = () => {};
let turn = 0; // of showing a page: one that is loaded late does not replace a later one
/** @type {ReturnType<typeof makeFrame> | null} */
let frame = null;

/**
 * Shows the page at the present path.
 * @param {ReturnType<typeof makeFrame>} target
 */
async function showPage({ main }) {
  const mine = ++turn;
  const { page, id } = findPage(location.pathname) ?? { page: NOT_FOUND, id: "" };
  markCurrent(page.name);
  try {
    const { open } = await page.load();
    if (mine !== turn) return;
    closePage();
    main.replaceChildren();
    leavePage = open(main, { id, console: settings });
  } catch (error) {
    if (mine !== turn) return;
    console.info("the page cannot be loaded:", error);
    closePage();
    const problem = h("p", { class: "problem", role: "alert" }, t("page.failed"));
    main.replaceChildren(h("h1", {}, t(`nav.${page.name}`)), problem);
  }
  document.title = `${main.querySelector("h1")?.textContent} · AurumAI`;
}

/**
 * Marks a page in the navigation.
 * @param {string} name
 */
function markCurrent(name) {
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("data-page") === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function closePage() {
  leavePage();
  leavePage = () => {};
}

/**
 * Goes to another page of the console.
 * @param {string} path
 */
async function go(path) {
  history.pushState(null, "", path);
  if (!frame) return;
  await showPage(frame);
  scrollTo(0, 0);
  frame.main.focus({ preventScroll: true }); // so that a screen reader starts at the new page
}

/**
 * Returns whether a click means to follow a link here, rather than in another tab or not at all.
 * @param {MouseEvent} event
 */
const isPlainClick = (event) =>
  !event.defaultPrevented && event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey;

/**
 * Follows links to pages of the console without loading the document again.
 * @param {MouseEvent} event
 */
function followLink(event) {
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  if (!link?.hasAttribute("href") || !isPlainClick(event)) return;
  if (link.origin !== location.origin || !findPage(link.pathname)) return;
  event.preventDefault();
  go(link.pathname + link.search);
}

function applyTheme() {
  const theme = setting("theme");
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", theme);
  document.dispatchEvent(new Event("theme"));
}

function bannerText() {
  if (plant.connection === "lost") return t("banner.lost");
  const services = plant.unreachable;
  const gateways = plant.hangingGateways.map(({ name, since }) =>
    t("banner.gateway", { name, time: timeOrDate(since) }),
  );
  return [services.length ? t("banner.unreachable", { services: services.join(", ") }) : "", ...gateways]
    .filter(Boolean)
    .join(" ");
}

function showConnection() {
  if (!frame) return;
  showProblem(frame.banner, bannerText());
  frame.banner.className = `banner ${plant.connection === "lost" ? "bad" : "warn"}`;
  frame.connection.dataset.state = plant.connection;
  setText(frame.connection, t(`connection.${plant.connection}`));
}

function showAlarms() {
  if (!frame) return;
  const waiting = alarmsWaiting();
  setText(frame.alarmCount, waiting ? String(waiting) : "");
  frame.alarmCount.hidden = !waiting;
  frame.alarmCount.setAttribute("aria-label", t("alarms.waiting", { n: waiting }));
  frame.flood.hidden = !plant.alarms.flood;
}

/**
 * Shows that the plant is simulated, if it is.
 * @param {ReturnType<typeof makeFrame>} target
 */
async function showSimulation({ simulation }) {
  leaveSimulation();
  leaveSimulation = () => {};
  const speed = settings.simulation_speed;
  if (speed === null) return;
  try {
    const { openSimulation } = await import("./simulation.js");
    if (frame?.simulation === simulation) leaveSimulation = openSimulation(simulation, speed, settings);
  } catch (error) {
    console.info("the banner of the simulation cannot be loaded:", error);
  }
}

/**
 * Makes a choice of the user's.
 * @param {"theme" | "language"} name
 * @param {string} label
 * @param {Record<string, string>} options Texts by value.
 * @param {string} chosen
 * @param {() => void} onChange Called after the choice is kept.
 */
function choice(name, label, options, chosen, onChange) {
  const select = h(
    "select",
    { "aria-label": label, title: label, "data-choice": name },
    Object.entries(options).map(([value, text]) => h("option", { value, selected: value === chosen }, text)),
  );
  select.addEventListener("change", () => {
    remember(name, select.value);
    onChange();
  });
  return select;
}

function soundButton() {
  const button = h("button", { type: "button", class: "quiet", "data-choice": "sound" });
  const show = () => {
    setText(button, isSoundOn() ? t("sound.on") : t("sound.off"));
    button.setAttribute("aria-pressed", String(isSoundOn()));
  };
  button.addEventListener("click", () => {
    switchSound();
    show();
  });
  show();
  return button;
}

function signOutButton() {
  const session = currentSession();
  if (!session.asked || session.user_id === null) return null;
  const button = h(
    "button",
    { type: "button", class: "quiet", "data-choice": "sign-out", title: session.roles.join(", ") },
    t("sign_in.out", { user: session.user_id }),
  );
  button.addEventListener("click", async () => {
    try {
      await signOut();
    } catch (error) {
      showNotice(messageOf(error));
      return;
    }
    await enter();
  });
  return button;
}

/**
 * Makes the user's choices, and the button that shows them where there is no room for them in the header.
 * @param {...Child} choices
 */
function menu(...choices) {
  const list = h("div", { class: "choices", id: "choices" }, choices);
  const button = h(
    "button",
    { type: "button", class: "menu", "aria-controls": "choices", "aria-expanded": "false", "aria-label": t("menu") },
    "☰",
  );
  button.addEventListener("click", () => {
    button.setAttribute("aria-expanded", String(list.classList.toggle("open")));
  });
  return [button, list];
}

/**
 * Makes a link of the navigation.
 * @param {string} href
 * @param {string} page
 * @param {...Child} more
 */
const navLink = (href, page, ...more) => h("a", { href, "data-page": page }, t(`nav.${page}`), more);

/**
 * Makes a link to another tool.
 * @param {string | null} href
 * @param {string} name
 */
const toolLink = (href, name) => (href ? h("a", { href }, name) : null);

/** Replaces everything in the document by the frame with an empty page. */
function makeFrame() {
  const alarmCount = h("span", { class: "count", role: "img", hidden: true });
  const connection = h("span", { class: "connection", role: "status" });
  const banner = h("p", { class: "banner", role: "alert", hidden: true });
  const notice = problemLine();
  const floodLink = h("a", { href: "/alarms" }, t("alarms.see"));
  const flood = h("p", { class: "banner warn", role: "alert", hidden: true }, t("alarms.flood"), " ", floodLink);
  const simulation = h("aside", { "aria-label": t("simulation.label"), hidden: true });
  const main = h("main", { id: "main", tabindex: "-1" });
  const themes = { auto: t("theme.auto"), light: t("theme.light"), dark: t("theme.dark") };
  document.body.replaceChildren(
    h("a", { class: "skip", href: "#main" }, t("skip")),
    h(
      "header",
      {},
      h("a", { class: "brand", href: "/", "aria-label": t("brand") }, "AurumAI"),
      h(
        "nav",
        { "aria-label": t("nav.label") },
        navLink("/", "plant"),
        navLink("/alarms", "alarms", " ", alarmCount),
        navLink("/platform", "platform"),
      ),
      connection,
      ...menu(
        signOutButton(),
        soundButton(),
        wallButton(),
        choice("theme", t("theme.label"), themes, setting("theme"), applyTheme),
        choice("language", t("language.label"), LANGUAGES, language, changeLanguage),
      ),
    ),
    notice,
    banner,
    flood,
    simulation,
    main,
    leaveWallButton(),
    h(
      "footer",
      {},
      h("span", {}, `AurumAI ${settings.version} · ${settings.environment}`),
      h("a", { href: "/connect" }, t("nav.connect")),
      h("a", { href: "/docs" }, t("footer.api")),
      toolLink(settings.grafana_url, "Grafana"),
      toolLink(settings.jaeger_url, "Jaeger"),
    ),
  );
  return { main, banner, notice, flood, simulation, connection, alarmCount };
}

/**
 * Shows why an action in the frame failed, until the frame is made again.
 * @param {string} message
 */
function showNotice(message) {
  if (frame) showProblem(frame.notice, message);
}

async function changeLanguage() {
  try {
    await loadTexts();
  } catch (error) {
    console.info("the texts cannot be loaded:", error);
    showNotice(t("error.unreachable"));
    return;
  }
  await start();
}

const texts = loadTexts();

/** @type {Promise<void> | null} */
let entering = null;

/** Asks who the user is, and shows the page or the form to sign in. Calls at the same time are one. */
function enter() {
  entering ??= openConsole().finally(() => {
    entering = null;
  });
  return entering;
}

async function openConsole() {
  const loadingSettings = request("/api/console").catch((error) => {
    console.info(`the settings of the console cannot be loaded: ${messageOf(error)}`);
    return NO_SETTINGS;
  });
  try {
    if (!(await loadSession()).user_id) {
      await askForSignIn();
      return;
    }
  } catch (error) {
    console.info(`the session cannot be loaded: ${messageOf(error)}`); // the stream shows that the platform is away
  }
  disconnect();
  connect();
  settings = await loadingSettings;
  await texts;
  await start();
}

async function askForSignIn() {
  turn += 1;
  disconnect();
  closePage();
  leaveSimulation();
  await texts;
  frame = makeFrame();
  applyTheme();
  openSignIn(frame.main, enter);
  document.documentElement.dataset.ready = "true";
}

async function start() {
  frame = makeFrame();
  applyTheme();
  applyScreen();
  showConnection();
  showAlarms();
  await showPage(frame);
  await showSimulation(frame);
  document.documentElement.dataset.ready = "true";
}

addEventListener("popstate", () => {
  if (frame) showPage(frame);
});
document.addEventListener("click", followLink);
subscribe("connection", showConnection);
subscribe("alarms", showAlarms);
playNewAlarms();
watchConnection();
document.addEventListener("signed-out", enter);
await enter();
