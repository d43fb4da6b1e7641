// The frame around the pages: navigation, what has to be seen everywhere, the reader's choices.

import { request } from "./api.js";
import { h, setText } from "./dom.js";
import { connect, disconnect, on, plant, watchConnection } from "./live.js";
import { remember, setting } from "./settings.js";
import { openSignIn, signOut, whoAmI } from "./sign_in.js";
import { followAlarms, playsSound, switchSound } from "./sound.js";
import { LANGUAGES, language, loadTexts, t } from "./text.js";

const PAGES = [
  { pattern: /^\/$/, name: "plant", load: () => import("./plant.js") },
  { pattern: /^\/machines\/([^/]+)$/, name: "machine", load: () => import("./machine.js") },
  { pattern: /^\/alarms$/, name: "alarms", load: () => import("./alarms.js") },
  { pattern: /^\/platform$/, name: "platform", load: () => import("./platform.js") },
];

let leave = () => {};
let shown = 0; // pages, ever: one that comes late must not push out a later one
let main, banner, flood, state, alarmCount;

async function show() {
  const turn = ++shown;
  const path = location.pathname;
  const page = PAGES.find((each) => each.pattern.test(path)) ?? PAGES[0];
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === page.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const module = await page.load();
  if (turn !== shown) return;
  leave();
  const [, argument] = page.pattern.exec(path) ?? [];
  main.replaceChildren();
  leave = module.open(main, { id: argument && decodeURIComponent(argument), console: platformSettings });
  document.title = `${main.querySelector("h1")?.textContent ?? t(`nav.${page.name}`)} · AurumAI`;
}

/** Goes to another page of the console. */
function go(path) {
  history.pushState(null, "", path);
  show().then(() => {
    scrollTo(0, 0);
    main.focus({ preventScroll: true }); // so that a screen reader begins at the new page
  });
}

function followLinks(event) {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  if (link.origin !== location.origin || !PAGES.some((page) => page.pattern.test(link.pathname))) return;
  event.preventDefault();
  go(link.pathname);
}

function applyTheme() {
  const theme = setting("theme");
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", theme);
  document.dispatchEvent(new Event("theme"));
}

function showConnection() {
  if (!banner) return; // there is no page yet
  const lost = plant.connection === "lost";
  banner.hidden = !lost && plant.unreachable.length === 0;
  banner.className = `banner ${lost ? "bad" : "warn"}`;
  setText(
    banner,
    lost ? t("banner.lost") : banner.hidden ? "" : t("banner.unreachable", { services: plant.unreachable.join(", ") }),
  );
  state.dataset.state = plant.connection;
  setText(state, t(`connection.${plant.connection}`));
}

function showAlarms() {
  if (!banner) return;
  const waiting = (plant.alarms.counts.unacknowledged ?? 0) + (plant.alarms.counts.returned ?? 0);
  setText(alarmCount, waiting ? String(waiting) : "");
  alarmCount.hidden = !waiting;
  alarmCount.setAttribute("aria-label", t("alarms.waiting", { n: waiting }));
  flood.hidden = !plant.alarms.flood;
}

function choice(label, name, options, chosen, take) {
  const select = h(
    "select",
    { "aria-label": label, title: label, on: { change: () => take(select.value) } },
    Object.entries(options).map(([value, text]) => h("option", { value, selected: value === chosen }, text)),
  );
  select.dataset.choice = name;
  return select;
}

function soundButton() {
  const button = h("button", { type: "button", class: "quiet", "data-choice": "sound" });
  const label = () => {
    setText(button, playsSound() ? t("sound.on") : t("sound.off"));
    button.setAttribute("aria-pressed", String(playsSound()));
  };
  button.addEventListener("click", () => {
    switchSound();
    label();
  });
  label();
  return button;
}

function frame() {
  alarmCount = h("span", { class: "count", role: "img", hidden: true });
  state = h("span", { class: "connection", role: "status" });
  const link = (path, page, ...more) => h("a", { href: path, "data-page": page }, t(`nav.${page}`), ...more);
  const themes = { auto: t("theme.auto"), light: t("theme.light"), dark: t("theme.dark") };
  banner = h("p", { class: "banner", role: "alert", hidden: true });
  flood = h(
    "p",
    { class: "banner warn", role: "alert", hidden: true },
    t("alarms.flood"),
    " ",
    h("a", { href: "/alarms" }, t("alarms.see")),
  );
  main = h("main", { id: "main", tabindex: "-1" });
  document.body.replaceChildren(
    h("a", { class: "skip", href: "#main" }, t("skip")),
    h(
      "header",
      {},
      h("a", { class: "brand", href: "/", "aria-label": t("brand") }, "AurumAI"),
      h(
        "nav",
        { "aria-label": t("nav.label") },
        link("/", "plant"),
        link("/alarms", "alarms", " ", alarmCount),
        link("/platform", "platform"),
      ),
      h(
        "div",
        { class: "choices" },
        state,
        user.asked
          ? h(
              "button",
              {
                type: "button",
                class: "quiet",
                "data-choice": "sign-out",
                title: user.roles.join(", "),
                on: { click: leaveIt },
              },
              t("sign_in.out", { user: user.user_id }),
            )
          : null,
        soundButton(),
        choice(t("theme.label"), "theme", themes, setting("theme"), (theme) => {
          remember("theme", theme);
          applyTheme();
        }),
        choice(t("language.label"), "language", LANGUAGES, language, (chosen) => {
          remember("language", chosen);
          loadTexts().then(start);
        }),
      ),
    ),
    banner,
    flood,
    main,
    h(
      "footer",
      {},
      h("span", {}, `AurumAI ${platformSettings.version} · ${platformSettings.environment}`),
      h("a", { href: "/docs" }, t("footer.api")),
      platformSettings.grafana_url ? h("a", { href: platformSettings.grafana_url }, "Grafana") : null,
      platformSettings.jaeger_url ? h("a", { href: platformSettings.jaeger_url }, "Jaeger") : null,
    ),
  );
}

const UNKNOWN = { version: "", environment: "", features: {}, faults_enabled: false, traces_kept: false };
let platformSettings = UNKNOWN;
let user = { asked: false, user_id: null, roles: [], sites: [] };
const words = loadTexts();

async function leaveIt() {
  await signOut();
  await enter();
}

let entering = null;

/** Finds out who is there, and shows the pages or the form to sign in. */
function enter() {
  entering ??= letIn().finally(() => {
    entering = null;
  });
  return entering;
}

async function letIn() {
  const asking = request("/api/console").catch((error) => {
    console.info(`the platform's settings are not known: ${error.message}`);
    return UNKNOWN;
  });
  try {
    user = await whoAmI();
    if (!user.user_id) {
      disconnect();
      leave();
      leave = () => {};
      await words;
      frame();
      applyTheme();
      openSignIn(main, enter);
      document.documentElement.dataset.ready = "true";
      return;
    }
  } catch (error) {
    console.info(`it is not known who is there: ${error.message}`); // the stream says that the platform is away
  }
  disconnect();
  connect();
  platformSettings = await asking;
  await words;
  await start();
}

async function start() {
  frame();
  applyTheme();
  showConnection();
  showAlarms();
  await show();
  document.documentElement.dataset.ready = "true";
}

addEventListener("popstate", show);
document.addEventListener("click", followLinks);
on("connection", showConnection);
on("alarms", showAlarms);
followAlarms();
watchConnection();
document.addEventListener("signed-out", enter);
await enter();
