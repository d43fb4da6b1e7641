// @ts-check
// The controls above the alarms: search, filters, grouping, range of time, and saved views.

import { RANGES, savedViews, saveView, writeChoice } from "./alarm_choice.js";
import { h } from "./dom.js";
import { field, openFormDialog } from "./form_dialog.js";
import { duration } from "./format.js";
import { t } from "./text.js";

/** @import { Choice } from "./alarm_choice.js" */

/** @typedef {[value: string, text: string][]} Options */
/** @typedef {(change: Partial<Choice>) => unknown} OnChoose */

const MOST_NAME = 40; // characters of the name of a view

/**
 * Returns the text for a time of a field, in the user's zone; empty without one.
 * @param {string} isoTime
 */
function localTime(isoTime) {
  const at = Date.parse(isoTime);
  if (Number.isNaN(at)) return "";
  return new Date(at - new Date(at).getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/**
 * Makes a choice of values.
 * @param {keyof Choice} key
 * @param {Choice} choice
 * @param {OnChoose} onChoose
 */
function chooser(key, choice, onChoose) {
  const select = h("select", { "data-filter": key });
  select.addEventListener("change", () => onChoose({ [key]: select.value }));
  return {
    element: field(t(`desk.${key}`), select),
    /**
     * Offers these values. The chosen one is kept, also if it is none of them.
     * @param {Options} options
     * @param {string} none Text for no value.
     */
    offer(options, none) {
      const chosen = choice[key];
      const known = options.some(([value]) => value === chosen) || !chosen;
      /** @type {Options} */
      const all = [["", none], ...options, ...(known ? [] : [/** @type {[string, string]} */ ([chosen, chosen])])];
      const wanted = all.map(([value, text]) => `${value} ${text}`).join("\n");
      if (select.dataset.offered !== wanted) {
        select.replaceChildren(...all.map(([value, text]) => h("option", { value }, text)));
        select.dataset.offered = wanted;
      }
      select.value = chosen;
    },
  };
}

/**
 * Makes the controls of the saved views.
 * @param {Choice} choice
 * @param {(query: string) => unknown} onOpen
 */
function viewChooser(choice, onOpen) {
  const select = h("select", { "data-filter": "saved" });
  const save = h("button", { type: "button" }, t("views.save"));
  const forget = h("button", { type: "button", hidden: true }, t("views.forget"));
  const present = () => writeChoice(choice);
  function show() {
    const views = Object.entries(savedViews());
    select.replaceChildren(
      h("option", { value: "" }, t("views.none")),
      ...views.map(([name]) => h("option", { value: name }, name)),
    );
    select.value = views.find(([, query]) => query === present())?.[0] ?? "";
    forget.hidden = !select.value;
  }
  select.addEventListener("change", () => {
    if (select.value) onOpen(savedViews()[select.value] ?? "");
  });
  forget.addEventListener("click", () => {
    saveView(select.value, null);
    show();
    select.focus();
  });
  save.addEventListener("click", () => {
    const name = h("input", { maxlength: MOST_NAME, required: true, value: select.value });
    openFormDialog({
      title: t("views.save"),
      fields: [field(t("views.name"), name)],
      confirm: t("views.save"),
      onConfirm: () => {
        saveView(name.value.trim(), present());
        show();
      },
      onClose: () => save.focus(),
    });
  });
  return { element: h("div", { class: "inline views" }, field(t("views.saved"), select), save, forget), show };
}

/**
 * Makes the controls.
 * @param {object} options
 * @param {Choice} options.choice It is read, never changed.
 * @param {OnChoose} options.onChoose Called with what the user has chosen.
 * @param {(query: string) => unknown} options.onOpen Called with the query of a saved view.
 */
export function alarmFilters({ choice, onChoose, onOpen }) {
  const search = h("input", { type: "search", placeholder: t("desk.search.hint"), "data-filter": "search" });
  search.addEventListener("input", () => onChoose({ search: search.value }));
  const machine = h("input", { "data-filter": "machine", autocomplete: "off", spellcheck: "false" });
  machine.addEventListener("change", () => onChoose({ machine: machine.value.trim() }));
  const choosers = {
    priority: chooser("priority", choice, onChoose),
    state: chooser("state", choice, onChoose),
    site: chooser("site", choice, onChoose),
    line: chooser("line", choice, onChoose),
    rule: chooser("rule", choice, onChoose),
    transition: chooser("transition", choice, onChoose),
    group: chooser("group", choice, onChoose),
    range: chooser("range", choice, onChoose),
  };
  /** @param {"start" | "end"} key */
  const time = (key) => {
    const input = h("input", { type: "datetime-local", "data-filter": key });
    input.addEventListener("change", () => onChoose({ [key]: input.value ? new Date(input.value).toISOString() : "" }));
    return { input, element: field(t(`desk.${key}`), input) };
  };
  const times = { start: time("start"), end: time("end") };
  const positions = h("input", { type: "number", min: 1, max: 1000, required: true, "data-filter": "positions" });
  positions.addEventListener("change", () => {
    if (positions.reportValidity()) onChoose({ positions: positions.value });
  });
  const views = viewChooser(choice, onOpen);
  const parts = {
    search: field(t("desk.search"), search),
    machine: field(t("desk.machine"), machine),
    ...Object.fromEntries(Object.entries(choosers).map(([key, { element }]) => [key, element])),
    start: times.start.element,
    end: times.end.element,
    positions: field(t("desk.positions"), positions),
  };
  const element = h(
    "form",
    { class: "filters", on: { submit: (event) => event.preventDefault() } },
    Object.values(parts),
    views.element,
  );
  return {
    element,
    /**
     * Shows the present choice.
     * @param {{ sites: string[], lines: string[], rules: Options, shown: (keyof Choice)[], hours: string }} offered
     *   shown: The controls of the present view. hours: Its usual period; empty for all.
     */
    show({ sites, lines, rules, shown, hours }) {
      /** @type {(values: string[]) => Options} */
      const plain = (values) => values.map((value) => [value, value]);
      /** @type {(values: string[], prefix: string) => Options} */
      const texts = (values, prefix) => values.map((value) => [value, t(`${prefix}.${value}`)]);
      const all = t("filter.all");
      choosers.priority.offer(texts(["urgent", "high", "medium", "low"], "priority"), all);
      choosers.state.offer(texts(["unacknowledged", "acknowledged", "returned"], "alarm.state"), all);
      choosers.site.offer(plain(sites), all);
      choosers.line.offer(plain(lines), all);
      choosers.rule.offer(rules, all);
      const kinds = ["raised", "cleared", "acknowledged", "shelved", "unshelved", "commented"];
      choosers.transition.offer(texts(kinds, "transition"), all);
      const groups = ["site", "line", "machine", "rule"];
      choosers.group.offer(
        /** @type {Options} */ (groups.map((key) => [key, t(`group_by.${key}`)])),
        t("group_by.none"),
      );
      /** @type {(hours: string) => string} */
      const last = (each) => t("desk.last", { time: duration(Number(each) * 3600) });
      /** @type {Options} */
      const ranges = RANGES.filter((each) => each !== hours).map((each) => [each, last(each)]);
      choosers.range.offer([...ranges, ["custom", t("desk.custom")]], hours ? last(hours) : t("filter.all"));
      positions.value = choice.positions;
      if (search.value !== choice.search) search.value = choice.search;
      if (machine.value !== choice.machine) machine.value = choice.machine;
      times.start.input.value = localTime(choice.start);
      times.end.input.value = localTime(choice.end);
      for (const [key, part] of Object.entries(parts)) {
        const isTime = key === "start" || key === "end";
        part.hidden = !shown.includes(/** @type {keyof Choice} */ (key)) || (isTime && choice.range !== "custom");
      }
      views.show();
    },
  };
}
