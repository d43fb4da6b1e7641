// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { changeText } from "../../services/aurum/api/console/alarm_rule_words.js";
import { speak } from "./browser.js";

/** @import { RuleChange } from "../../services/aurum/api/console/types.d.ts" */

beforeEach(() => speak("es"));

test("change of a rule is told in the user's language", () => {
  /** @type {RuleChange} */
  const change = {
    rule: "hot",
    kind: "changed",
    fields: [
      { field: "priority", before: "low", after: "urgent" },
      { field: "sensor.above", before: 70.5, after: null },
      { field: "rate", before: null, after: { above: 2, below: null, deadband: 0, sensor: "heat" } },
      { field: "machine_types", before: ["*"], after: ["pump", "fan"] },
      { field: "suppress_in_fault", before: true, after: false },
    ],
  };
  assert.equal(
    changeText(change, "hot changed"),
    "hot: modificada (prioridad baja → urgente; sensor, límite superior 70,5 → ninguno; " +
      "velocidad de cambio ninguno → límite superior 2, sensor heat; tipos de máquina todos → pump, fan; " +
      "suprimida mientras una avería para la máquina sí → no)",
  );
  assert.equal(changeText({ rule: "hot", kind: "removed", fields: [] }, "hot removed"), "hot: eliminada");
});

test("change of an earlier version keeps the platform's text", () => {
  assert.equal(changeText(undefined, "hot removed"), "hot removed");
});
