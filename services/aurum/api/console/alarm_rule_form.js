// @ts-check
// The form for one alarm rule: its fields with what is wrong in them, a preview with the past week, and saving.

import { CONDITIONS, conditionOf } from "./alarm_rule_words.js";
import { previewText } from "./alarm_rule_preview.js";
import { ApiError, fieldText, messageOf, request } from "./api.js";
import { h, problemLine, setText, showProblem } from "./dom.js";
import { plant } from "./live.js";
import { t } from "./text.js";

/** @import { ConditionName } from "./alarm_rule_words.js" */
/** @import { AlarmRule, FieldProblem, RulePreview } from "./types.d.ts" */

const PRIORITIES = ["low", "medium", "high", "urgent"];
const MOST_REASON = 500; // characters
const ANY = "*";

const NEW_RULE = {
  name: "",
  text: "",
  priority: "medium",
  machine_types: [ANY],
  on_delay_seconds: 0,
  off_delay_seconds: 0,
  suppress_in_fault: true,
};

/**
 * What the limits of the different conditions have, without values.
 * @type {{ sensor: string, above: number | null, below: number | null, deadband: number, beyond_threshold: boolean,
 *   over_seconds: number, after_seconds: number | null }}
 */
const NO_LIMIT = {
  sensor: "",
  above: null,
  below: null,
  deadband: 0,
  beyond_threshold: false,
  over_seconds: 60,
  after_seconds: null,
};

/** @typedef {"name" | "text" | "priority" | "types" | "condition" | "sensor" | "side" | "limit" | "deadband" | "over"
 *   | "on" | "off" | "fault" | "reason"} Field */

/**
 * Which fields a condition has, besides those of all rules.
 * @type {Record<ConditionName, Field[]>}
 */
const FIELDS = {
  sensor: ["sensor", "side", "limit", "deadband"],
  rate: ["sensor", "side", "limit", "deadband", "over"],
  stale: ["limit"],
  risk: ["side", "limit", "deadband"],
  rul: ["side", "limit", "deadband"],
  anomaly: ["side", "limit", "deadband"],
};
const OF_CONDITIONS = /** @type {Field[]} */ (["sensor", "side", "limit", "deadband", "over"]);

/**
 * The field of the form for the last part of the path of a field in a rule.
 * @type {Record<string, Field>}
 */
const BY_PATH = {
  name: "name",
  text: "text",
  priority: "priority",
  machine_types: "types",
  sensor: "sensor",
  above: "limit",
  below: "limit",
  after_seconds: "limit",
  deadband: "deadband",
  over_seconds: "over",
  on_delay_seconds: "on",
  off_delay_seconds: "off",
  suppress_in_fault: "fault",
  reason: "reason",
};

/**
 * Returns the field of the form that a field of a request is shown in; undefined if there is none.
 * @param {string} path Such as body.rules.3.sensor.above.
 */
export const fieldOfPath = (path) =>
  path
    .split(".")
    .reverse()
    .map((part) => BY_PATH[part])
    .find(Boolean);

/**
 * Makes a choice.
 * @param {string[]} values
 * @param {(value: string) => string} shown
 * @param {string} chosen
 */
function choiceOf(values, shown, chosen) {
  const select = h(
    "select",
    {},
    values.map((value) => h("option", { value }, shown(value))),
  );
  select.value = chosen;
  return select;
}

/**
 * Makes the controls of a rule.
 * @param {AlarmRule | null} rule
 */
function controlsOf(rule) {
  const { name, text, priority, machine_types: types, ...rest } = rule ?? NEW_RULE;
  const condition = rule ? conditionOf(rule) : "sensor";
  const limit = { ...NO_LIMIT, ...rule?.[condition] };
  /**
   * @param {number | null} value
   * @param {object} [properties]
   */
  const numeric = (value, properties = {}) =>
    h("input", { type: "number", step: "any", value: value ?? "", required: true, ...properties });
  /** @param {number} value */
  const positive = (value) => numeric(value, { min: 0 });
  return {
    name: h("input", {
      value: name,
      required: true,
      maxlength: 40,
      pattern: "[a-z][a-z0-9_]*",
      readonly: rule !== null,
      autocomplete: "off",
      title: t("rules.name.hint"),
    }),
    text: h("input", { value: text, required: true, maxlength: 200 }),
    priority: choiceOf(PRIORITIES, (each) => t(`priority.${each}`), priority),
    types: h("input", {
      value: types.filter((each) => each !== ANY).join(", "),
      placeholder: t("rules.all_types"),
      autocomplete: "off",
    }),
    condition: choiceOf(CONDITIONS, (each) => t(`rules.of.${each}`), condition),
    sensor: h("input", {
      value: limit.sensor,
      required: true,
      list: "rule-sensors",
      autocomplete: "off",
      spellcheck: "false",
    }),
    side: choiceOf(["above", "below", "threshold"], (each) => t(`rules.side.${each}`), sideOf(limit)),
    limit: numeric(limit.after_seconds ?? limit.above ?? limit.below),
    deadband: positive(limit.deadband),
    over: numeric(limit.over_seconds, { min: 0.001 }),
    on: positive(rest.on_delay_seconds),
    off: positive(rest.off_delay_seconds),
    fault: h("input", { type: "checkbox", checked: rest.suppress_in_fault }),
    reason: h("input", { required: true, maxlength: MOST_REASON }),
  };
}

/** @param {{ beyond_threshold: boolean, below: number | null }} limit */
function sideOf({ beyond_threshold: beyond, below }) {
  if (beyond) return "threshold";
  return below === null ? "above" : "below";
}

/** @typedef {ReturnType<typeof controlsOf>} Controls */

/**
 * Returns the rule that the controls state.
 * @param {Controls} controls
 * @returns {AlarmRule}
 */
function ruleOf(controls) {
  const condition = /** @type {ConditionName} */ (controls.condition.value);
  const side = controls.side.value;
  const value = controls.limit.valueAsNumber;
  const types = controls.types.value.split(",").map((each) => each.trim());
  const limit = {
    above: side === "above" ? value : null,
    below: side === "below" ? value : null,
    deadband: controls.deadband.valueAsNumber,
  };
  const ofSensor = { ...limit, sensor: controls.sensor.value.trim() };
  /**
   * @template Limit
   * @param {ConditionName} name
   * @param {Limit} each
   */
  const chosen = (name, each) => (condition === name ? each : null);
  return {
    name: controls.name.value.trim(),
    text: controls.text.value.trim(),
    priority: /** @type {AlarmRule["priority"]} */ (controls.priority.value),
    machine_types: types.some(Boolean) ? types.filter(Boolean) : [ANY],
    sensor: chosen("sensor", ofSensor),
    rate: chosen("rate", { ...ofSensor, over_seconds: controls.over.valueAsNumber }),
    stale: chosen("stale", { after_seconds: value }),
    risk: chosen("risk", limit),
    rul: chosen("rul", limit),
    anomaly: chosen("anomaly", { ...limit, beyond_threshold: side === "threshold" }),
    on_delay_seconds: controls.on.valueAsNumber,
    off_delay_seconds: controls.off.valueAsNumber,
    suppress_in_fault: controls.fault.checked,
  };
}

/** Returns the sensors of the machines that are known here. */
const knownSensors = () =>
  [...new Set([...plant.machines.values()].flatMap((machine) => Object.keys(machine.values)))].sort();

/**
 * Makes a field with its label, and a line for what is wrong in it.
 * @param {Field} name
 * @param {HTMLElement} control
 */
function labelled(name, control) {
  const problem = h("small", { class: "problem", id: `rule-${name}-problem`, hidden: true });
  const label = h("span", {}, t(`rules.field.${name}`));
  control.setAttribute("data-field", name);
  return { element: h("label", { class: "field" }, label, control, problem), label, control, problem };
}

/**
 * Opens the form. It stays open until the rule is saved, or the user cancels.
 * @param {AlarmRule | null} rule Null for a new one.
 * @param {object} options
 * @param {string[]} options.names The names of all rules.
 * @param {number} options.index The rule's place among all.
 * @param {(rule: AlarmRule, reason: string) => Promise<void>} options.save
 */
export function editRule(rule, { names, index, save }) {
  const controls = controlsOf(rule);
  const fields = Object.fromEntries(
    Object.entries(controls).map(([name, control]) => [name, labelled(/** @type {Field} */ (name), control)]),
  );
  const problem = problemLine();
  const preview = h("div", { role: "status", class: "preview" });
  const previewButton = h("button", { type: "button", "data-rules": "preview" }, t("rules.preview"));
  const saveButton = h("button", { type: "submit", class: "main" }, t("rules.save"));
  const dialog = h("dialog", { class: "rule-form", "aria-labelledby": "rule-title" });
  const threshold = /** @type {HTMLOptionElement} */ (controls.side.options[2]);

  function showFields() {
    const condition = /** @type {ConditionName} */ (controls.condition.value);
    threshold.hidden = threshold.disabled = condition !== "anomaly";
    if (threshold.disabled && controls.side.value === "threshold") controls.side.value = "above";
    const wanted = FIELDS[condition].filter(
      (name) => name !== "limit" || condition !== "anomaly" || controls.side.value !== "threshold",
    );
    for (const name of OF_CONDITIONS) {
      const shown = wanted.includes(name);
      fields[name].element.hidden = !shown;
      /** @type {HTMLInputElement} */ (fields[name].control).disabled = !shown;
    }
    setText(fields.limit.label, t(condition === "stale" ? "rules.field.after" : `rules.limit.${condition}`));
  }

  /** @param {FieldProblem[]} errors */
  function showErrors(errors) {
    /** @type {Partial<Record<string, string>>} */
    const found = {};
    for (const each of errors) {
      const path = each.field;
      // Other rules are as they were; what is wrong in them has no field here
      const other = /^body\.rules\.(\d+)/.exec(path);
      const name = other && Number(other[1]) !== index ? undefined : fieldOfPath(path);
      if (name) found[name] ??= fieldText({ ...each, detail: each.detail.replace(/^rule \w+: /, "") });
    }
    for (const [name, each] of Object.entries(fields)) {
      showProblem(each.problem, found[name] ?? "");
      if (found[name]) {
        each.control.setAttribute("aria-invalid", "true");
        each.control.setAttribute("aria-describedby", each.problem.id);
      } else {
        each.control.removeAttribute("aria-invalid");
        each.control.removeAttribute("aria-describedby");
      }
    }
    const first = Object.keys(fields).find((name) => found[name]);
    if (first) fields[first].control.focus();
    return Boolean(first);
  }

  /** @param {unknown} error */
  function showFailure(error) {
    const atFields = showErrors(error instanceof ApiError ? error.errors : []);
    showProblem(problem, atFields ? t("rules.invalid") : messageOf(error));
  }

  /** @param {boolean} withReason */
  function isValid(withReason) {
    const taken = rule === null && names.includes(controls.name.value.trim());
    controls.name.setCustomValidity(taken ? t("rules.name.taken") : "");
    controls.reason.required = withReason;
    return form.reportValidity();
  }

  previewButton.addEventListener("click", async () => {
    if (!isValid(false)) return;
    previewButton.disabled = true;
    setText(preview, t("rules.preview.running"));
    try {
      /** @type {RulePreview} */
      const found = await request("/api/alarms/rules/preview", { method: "POST", body: { rule: ruleOf(controls) } });
      showErrors([]);
      showProblem(problem, "");
      preview.replaceChildren(...previewText(found));
    } catch (error) {
      setText(preview, "");
      showFailure(error);
    } finally {
      previewButton.disabled = false;
    }
  });

  /** @param {SubmitEvent} event */
  async function submit(event) {
    event.preventDefault();
    if (!isValid(true)) return;
    saveButton.disabled = true;
    try {
      await save(ruleOf(controls), controls.reason.value.trim());
      dialog.close();
    } catch (error) {
      showFailure(error);
    } finally {
      saveButton.disabled = false;
    }
  }

  const form = h(
    "form",
    { novalidate: true, on: { submit } },
    h("h2", { id: "rule-title" }, rule ? t("rules.edit.title", { rule: rule.name }) : t("rules.add")),
    h(
      "datalist",
      { id: "rule-sensors" },
      knownSensors().map((value) => h("option", { value })),
    ),
    h(
      "div",
      { class: "fields" },
      Object.values(fields).map(({ element }) => element),
    ),
    problem,
    preview,
    h(
      "div",
      { class: "actions" },
      previewButton,
      h("button", { type: "button", on: { click: () => dialog.close() } }, t("cancel")),
      saveButton,
    ),
  );
  controls.condition.addEventListener("change", showFields);
  controls.side.addEventListener("change", showFields);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.append(form);
  showFields();
  document.body.append(dialog);
  dialog.showModal();
}
