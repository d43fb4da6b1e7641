// Alarms by ISA-18.2: what waits for somebody, what is put away, and what has happened.

import { request } from "./api.js";
import { h, setText } from "./dom.js";
import { duration, moment, now, number } from "./format.js";
import { on, plant } from "./live.js";
import { remember, setting } from "./settings.js";
import { known, t } from "./text.js";

const VIEWS = {
  open: ["unacknowledged", "acknowledged", "returned"],
  shelved: ["shelved"],
  suppressed: ["suppressed"],
  journal: null,
};
const MINUTES = [15, 60, 480, 1440, 10_080]; // a shelved alarm comes back within a week
const SIGNS = { urgent: "▲▲", high: "▲", medium: "■", low: "●" }; // shapes, since colour alone tells nothing to many
const SHOWN = 500;

const ruleText = (rule, text) => known(`rule.${rule}`, text);

const since = (isoTime) => (isoTime ? duration(Math.max(1, (now() - Date.parse(isoTime)) / 1000)) : "–");

async function act(alarm, what, body, done, problem) {
  try {
    await request(`/api/alarms/${encodeURIComponent(alarm.id)}/${what}`, {
      method: "POST",
      body: { by: setting("operator"), ...body },
    });
    problem.hidden = true;
  } catch (error) {
    setText(problem, error.message);
    problem.hidden = false;
  }
  done();
}

function shelveDialog(alarm, done, problem) {
  const minutes = h(
    "select",
    {},
    MINUTES.map((each) => h("option", { value: each, selected: each === 60 }, duration(each * 60))),
  );
  const reason = h("input", { maxlength: 200 });
  const close = () => dialog.close();
  const dialog = h(
    "dialog",
    { "aria-labelledby": "shelve-title", on: { close: () => dialog.remove() } },
    h(
      "form",
      {
        method: "dialog",
        on: {
          submit: (event) => {
            event.preventDefault();
            act(alarm, "shelve", { minutes: Number(minutes.value), reason: reason.value }, done, problem);
            close();
          },
        },
      },
      h("h2", { id: "shelve-title" }, t("shelve.title", { machine: alarm.machine_id })),
      h("p", {}, ruleText(alarm.rule, alarm.text)),
      h("label", {}, t("shelve.for"), " ", minutes),
      h("label", {}, t("shelve.reason"), " ", reason),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", on: { click: close } }, t("cancel")),
        h("button", { type: "submit", class: "main" }, t("alarm.shelve")),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}

/** A row of a table of alarms with what can be done about it. done(): after something was. */
export function alarmRow(alarm, { withMachine, done }) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const about = `${alarm.machine_id}, ${ruleText(alarm.rule, alarm.text)}`;
  const button = (key, click, main) =>
    h(
      "button",
      { type: "button", class: main ? "main" : "", "aria-label": `${t(key)}: ${about}`, on: { click } },
      t(key),
    );
  const buttons = [];
  if (alarm.state === "unacknowledged" || alarm.state === "returned")
    buttons.push(button("alarm.ack", () => act(alarm, "ack", {}, done, problem), true));
  if (alarm.state === "shelved")
    buttons.push(button("alarm.unshelve", () => act(alarm, "unshelve", {}, done, problem)));
  else if (alarm.state !== "suppressed") buttons.push(button("alarm.shelve", () => shelveDialog(alarm, done, problem)));
  return h(
    "tr",
    { class: "alarm", "data-alarm": alarm.id, "data-state": alarm.state, "data-priority": alarm.priority },
    h(
      "td",
      { class: "priority" },
      h("span", { "aria-hidden": "true" }, SIGNS[alarm.priority]),
      " ",
      t(`priority.${alarm.priority}`),
    ),
    withMachine
      ? h(
          "th",
          { scope: "row" },
          h("a", { href: `/machines/${encodeURIComponent(alarm.machine_id)}` }, alarm.machine_id),
        )
      : null,
    h(
      "td",
      { class: "what" },
      ruleText(alarm.rule, alarm.text),
      alarm.value === null ? null : h("small", {}, ` ${number(alarm.value)}`),
      alarm.count > 1 ? h("small", {}, ` ×${alarm.count}`) : null,
    ),
    h(
      "td",
      {},
      h("span", { class: "badge", "data-state": alarm.state }, t(`alarm.state.${alarm.state}`)),
      alarm.shelved_until
        ? h("small", {}, ` ${t("alarm.until", { time: moment(alarm.shelved_until) })} ${alarm.reason ?? ""}`)
        : null,
      alarm.acknowledged_by && alarm.state === "acknowledged" ? h("small", {}, ` ${alarm.acknowledged_by}`) : null,
    ),
    h("td", { class: "since" }, since(alarm.raised_at)),
    h("td", { class: "actions" }, buttons, problem),
  );
}

function journalTable(items) {
  const head = ["time", "machine", "what", "transition", "by"].map((key) =>
    h("th", { scope: "col" }, t(`journal.${key}`)),
  );
  return h(
    "table",
    { "aria-label": t("alarms.journal") },
    h("thead", {}, h("tr", {}, head)),
    h(
      "tbody",
      {},
      items.map((each) =>
        h(
          "tr",
          {},
          h("td", {}, moment(each.at)),
          h(
            "th",
            { scope: "row" },
            h("a", { href: `/machines/${encodeURIComponent(each.machine_id)}` }, each.machine_id),
          ),
          h(
            "td",
            {},
            ruleText(each.rule, each.rule),
            each.value === null ? null : h("small", {}, ` ${number(each.value)}`),
          ),
          h(
            "td",
            {},
            t(`transition.${each.transition}`),
            each.until ? h("small", {}, ` ${t("alarm.until", { time: moment(each.until) })}`) : null,
            each.reason ? h("small", {}, ` ${each.reason}`) : null,
          ),
          h("td", {}, each.by ?? t("journal.platform")),
        ),
      ),
    ),
  );
}

export function open(main) {
  const leaving = new AbortController();
  let view = "open";
  let turn = 0;
  const buttons = Object.keys(VIEWS).map((name) =>
    h("button", {
      type: "button",
      "data-view": name,
      on: {
        click: () => {
          view = name;
          refresh();
        },
      },
    }),
  );
  const list = h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": t("nav.alarms") });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const name = h("input", {
    value: setting("operator"),
    autocomplete: "name",
    maxlength: 100,
    on: { change: () => remember("operator", name.value.trim()) },
  });
  main.append(
    h("h1", {}, t("nav.alarms")),
    h(
      "div",
      { class: "bar-line" },
      h("div", { class: "tabs", role: "group", "aria-label": t("alarms.views") }, buttons),
      h("label", {}, t("alarms.operator"), " ", name),
    ),
    problem,
    list,
  );

  function showViews() {
    for (const button of buttons) {
      const states = VIEWS[button.dataset.view];
      const count = states?.reduce((sum, state) => sum + (plant.alarms.counts[state] ?? 0), 0);
      setText(button, `${t(`alarms.${button.dataset.view}`)}${count === undefined ? "" : ` (${count})`}`);
      button.setAttribute("aria-pressed", String(button.dataset.view === view));
    }
  }

  async function refresh() {
    const mine = ++turn;
    showViews();
    try {
      const content =
        view === "journal"
          ? journalTable((await request(`/api/alarms/journal?limit=${SHOWN}`, { signal: leaving.signal })).items)
          : await alarmTable();
      if (mine !== turn) return;
      problem.hidden = true;
      const focused = document.activeElement?.getAttribute("aria-label");
      list.replaceChildren(content);
      if (focused && document.activeElement === document.body) {
        // The table was made anew under the keyboard's focus: it goes back to where it was
        [...list.querySelectorAll("button")].find((each) => each.getAttribute("aria-label") === focused)?.focus();
      }
    } catch (error) {
      if (leaving.signal.aborted) return;
      setText(problem, error.message);
      problem.hidden = false;
    }
  }

  async function alarmTable() {
    const query = VIEWS[view].map((state) => `state=${state}`).join("&");
    const { items } = await request(`/api/alarms?limit=${SHOWN}&${query}`, { signal: leaving.signal });
    if (!items.length) return h("p", { class: "nothing" }, t(`alarms.none.${view}`));
    const head = ["priority", "machine", "what", "state", "since", "actions"].map((key) =>
      h("th", { scope: "col" }, t(`alarm.${key}`)),
    );
    return h(
      "table",
      { "aria-label": t("nav.alarms") },
      h("thead", {}, h("tr", {}, head)),
      h(
        "tbody",
        {},
        items.map((alarm) => alarmRow(alarm, { withMachine: true, done: refresh })),
      ),
    );
  }

  const stops = [
    on("alarms", refresh),
    on("connection", () => {
      if (plant.connection === "live") refresh();
    }),
  ];
  refresh();
  return () => {
    stops.forEach((stop) => stop());
    leaving.abort();
  };
}
