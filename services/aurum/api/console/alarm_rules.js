// @ts-check
// The alarm rules: those in force, and for engineers their editing, the history, and the return to earlier revisions.

import { editRule } from "./alarm_rule_form.js";
import { changeText, conditionText, typesText } from "./alarm_rule_words.js";
import { remark } from "./alarms.js";
import { ApiError, messageOf, request } from "./api.js";
import { h, headings, problemLine, setText, showProblem, tableOf, wideRegion } from "./dom.js";
import { field, openFormDialog } from "./form_dialog.js";
import { duration, moment } from "./format.js";
import { mayMake } from "./session.js";
import { setting } from "./settings.js";
import { ruleText, t } from "./text.js";

/** @import { AlarmRule, AlarmRules, RulesRevision, RulesRevisions } from "./types.d.ts" */

const FILE = 0; // as the revision that is restored
const MOST_REASON = 500; // characters

/**
 * Asks why the rules change.
 * @param {string} title
 * @param {string} confirm
 * @param {(reason: string) => unknown} onConfirm
 */
function askReason(title, confirm, onConfirm) {
  const reason = h("input", { maxlength: MOST_REASON, required: true, name: "reason" });
  openFormDialog({
    title,
    fields: [field(t("rules.reason"), reason)],
    confirm,
    onConfirm: () => onConfirm(reason.value.trim()),
  });
}

/** @param {AlarmRule} rule */
const delaysText = ({ on_delay_seconds: on, off_delay_seconds: off }) =>
  [on ? t("rules.after", { time: duration(on) }) : "", off ? t("rules.cleared_after", { time: duration(off) }) : ""]
    .filter(Boolean)
    .join(", ");

/**
 * Makes the view.
 * @param {AbortSignal} signal Ends the requests.
 */
export function alarmRules(signal) {
  const mayEdit = mayMake("PUT /api/alarms/rules");
  const source = h("p", { class: "hint" });
  const changed = h("p", { class: "problem", hidden: true });
  const toFile = h("button", { type: "button", hidden: true, "data-rules": "file" }, t("rules.to_file"));
  const add = h("button", { type: "button", class: "main", "data-rules": "add" }, t("rules.add"));
  const happened = h("p", { role: "status", class: "happened" });
  const problem = problemLine();
  const table = h("div");
  const past = h("div");
  const more = h("button", { type: "button", hidden: true }, t("history.more"));
  const pastProblem = problemLine();
  const pastTitle = h("h2", {}, t("rules.history"));
  const element = h(
    "section",
    { class: "rules", hidden: true },
    source,
    changed,
    h("div", { class: "inline" }, mayEdit ? [add, toFile] : null),
    happened,
    problem,
    table,
    pastTitle,
    pastProblem,
    past,
    more,
  );
  /** @type {AlarmRules | null} */
  let present = null;
  /** @type {RulesRevision[]} */
  let revisions = [];
  /** @type {string | null} */
  let cursor = null;

  add.addEventListener("click", () => present && edit(present, null));
  toFile.addEventListener("click", () => present && restore(present, FILE));
  more.addEventListener("click", () => loadHistory(cursor));

  /**
   * Sends a change, and shows the rules that are in force then.
   * @param {string} path
   * @param {string} method
   * @param {object} body
   * @param {string} done What is told then.
   */
  async function send(path, method, body, done) {
    const answer = await request(path, { method, body: { by: setting("operator"), ...body } });
    present = answer;
    showProblem(problem, "");
    setText(happened, done);
    draw();
    loadHistory(null);
  }

  /**
   * Opens the form for a rule.
   * @param {AlarmRules} shown The rules to which the change is made.
   * @param {AlarmRule | null} rule Null for a new one.
   */
  function edit(shown, rule) {
    const { rules, revision } = shown;
    editRule(rule, {
      names: rules.map(({ name }) => name),
      index: rule ? rules.indexOf(rule) : rules.length,
      save: (edited, reason) => {
        const all = rule ? rules.map((each) => (each === rule ? edited : each)) : [...rules, edited];
        const done = t("rules.done.saved", { rule: edited.name });
        return send("/api/alarms/rules", "PUT", { rules: all, revision, reason }, done);
      },
    });
  }

  /**
   * @param {AlarmRules} shown
   * @param {AlarmRule} rule
   */
  function remove({ rules, revision }, rule) {
    askReason(t("rules.remove.title", { rule: ruleText(rule.text) }), t("rules.remove"), (reason) => {
      const rest = rules.filter((each) => each !== rule);
      const done = t("rules.done.removed", { rule: rule.name });
      return attempt(send("/api/alarms/rules", "PUT", { rules: rest, revision, reason }, done));
    });
  }

  /**
   * @param {AlarmRules} shown
   * @param {number} restores
   */
  function restore({ revision }, restores) {
    const title = restores === FILE ? t("rules.to_file") : t("rules.restore.title", { n: restores });
    askReason(title, t("rules.restore"), (reason) => {
      const done = t("rules.done.restored");
      return attempt(send("/api/alarms/rules/restore", "POST", { restores, revision, reason }, done));
    });
  }

  /** @param {Promise<void>} change */
  async function attempt(change) {
    try {
      await change;
    } catch (error) {
      setText(happened, "");
      showProblem(problem, messageOf(error));
    }
  }

  /**
   * @param {AlarmRules} shown
   * @param {AlarmRule} rule
   */
  const row = (shown, rule) =>
    h(
      "tr",
      { "data-rule": rule.name },
      h("th", { scope: "row" }, ruleText(rule.text), remark(rule.name)),
      h("td", {}, t(`priority.${rule.priority}`)),
      h("td", { class: "what" }, typesText(rule)),
      h("td", { class: "what" }, conditionText(rule), remark(delaysText(rule))),
      mayEdit
        ? h(
            "td",
            { class: "actions" },
            button("rules.edit", ruleText(rule.text), () => edit(shown, rule)),
            button("rules.remove", ruleText(rule.text), () => remove(shown, rule)),
          )
        : null,
    );

  /**
   * @param {string} key
   * @param {string} what Tells screen readers what it concerns.
   * @param {() => unknown} click
   */
  const button = (key, what, click) =>
    h("button", { type: "button", "aria-label": `${t(key)}: ${what}`, on: { click } }, t(key));

  function draw() {
    const shown = present;
    if (!shown) return;
    const values = { n: shown.revision, by: shown.by ?? "–", time: shown.stored_at ? moment(shown.stored_at) : "" };
    setText(source, t(shown.source === "file" ? "rules.source.file" : "rules.source.stored", values));
    showProblem(changed, shown.file_changed ? t("rules.file_changed") : "");
    toFile.hidden = shown.source === "file";
    const head = ["rules.text", "alarm.priority", "rules.types", "rules.condition"].map((key) => t(key));
    const label = t("alarms.rules");
    table.replaceChildren(
      wideRegion(
        label,
        tableOf({
          label,
          head: headings(mayEdit ? [...head, t("alarm.actions")] : head),
          rows: shown.rules.map((rule) => row(shown, rule)),
        }),
      ),
    );
  }

  /** @param {RulesRevision} item */
  const pastRow = (item) =>
    h(
      "tr",
      { "data-revision": item.revision },
      h("th", { scope: "row" }, String(item.revision)),
      h("td", {}, moment(item.at), remark(item.by)),
      h("td", { class: "what" }, item.reason),
      h(
        "td",
        { class: "what" },
        item.restores === null ? null : remark(restoredText(item.restores)),
        h(
          "ul",
          {},
          item.changes.map((change, n) => h("li", {}, changeText(item.rule_changes[n], change))),
        ),
        item.change_count > item.changes.length
          ? remark(t("rules.more_changes", { n: item.change_count - item.changes.length }))
          : null,
      ),
      mayEdit
        ? h(
            "td",
            { class: "actions" },
            item.revision === present?.revision || item.source === "file"
              ? null
              : button("rules.restore", t("rules.revision", { n: item.revision }), () => {
                  if (present) restore(present, item.revision);
                }),
          )
        : null,
    );

  /** @param {number} number */
  const restoredText = (number) => (number === FILE ? t("rules.restored.file") : t("rules.restored", { n: number }));

  /** @param {string | null} from The cursor of an older page; null for the newest. */
  async function loadHistory(from) {
    try {
      const query = from === null ? "" : `?cursor=${encodeURIComponent(from)}`;
      /** @type {RulesRevisions} */
      const page = await request(`/api/alarms/rules/history${query}`, { signal });
      revisions = from === null ? page.items : [...revisions, ...page.items];
      cursor = page.next_cursor;
      showProblem(pastProblem, "");
      const head = ["rules.number", "journal.time", "rules.reason", "rules.changes"].map((key) => t(key));
      const label = t("rules.history");
      past.replaceChildren(
        revisions.length
          ? wideRegion(
              label,
              tableOf({
                label,
                head: headings(mayEdit ? [...head, t("alarm.actions")] : head),
                rows: revisions.map(pastRow),
              }),
            )
          : h("p", { class: "nothing" }, t("rules.history.none")),
      );
      more.hidden = cursor === null;
    } catch (error) {
      if (error instanceof ApiError && error.status === 403)
        pastTitle.hidden = true; // users of sites see no revisions
      else if (!signal.aborted) showProblem(pastProblem, messageOf(error));
    }
  }

  async function load() {
    try {
      present = await request("/api/alarms/rules", { signal });
      showProblem(problem, "");
      draw();
      await loadHistory(null);
    } catch (error) {
      if (!signal.aborted) showProblem(problem, messageOf(error));
    }
  }

  return {
    element,
    choose: load,
    refresh() {}, // rules that are being edited do not change; a save says if another was faster
  };
}
