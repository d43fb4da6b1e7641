// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { levelsText } from "../../services/aurum/api/console/life_suggestions.js";
import { speak } from "./browser.js";

beforeEach(() => speak("en"));

/** @param {string} sensor */
const level = (sensor) => ({ sensor, begin: 2.04, before: 7.123, after: 2.111 });
const times = { stopped_at: "2026-01-01T00:00:00Z", resumed_at: "2026-01-02T00:00:00Z" };

test("suggestion of a new life names the sensors that went back", () => {
  const levels = [level("vibration_mm_s")];
  assert.equal(levelsText({ ...times, levels }), "Vibration from 7.12 to 2.11 mm/s (2.04 at the beginning)");
});

test("suggestion of a new life with many sensors tells how many more there are", () => {
  const levels = ["a", "b", "c", "d", "e"].map(level);
  assert.match(levelsText({ ...times, levels }), /; and 2 more sensors$/);
  assert.match(levelsText({ ...times, levels: levels.slice(1) }), /; and one more sensor$/);
});
