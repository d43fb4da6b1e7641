// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { inputsOf, lastText, tallyText } from "../../services/aurum/api/console/edge_inputs.js";
import { speak } from "./browser.js";

const LAST = { machine: "Öfen", sensor: "t", stored_machine: "x00D6_fen", stored_sensor: "t", value: 21.5 };

beforeEach(() => speak("en"));

test("tallies name count and reason", () => {
  const tally = { example: "", last: "2026-01-01T00:00:00Z" };
  assert.equal(
    tallyText([
      { ...tally, reason: "wrong_time", count: 3 },
      { ...tally, reason: "of_tomorrow", count: 1 },
    ]),
    "3 wrong time, 1 of tomorrow",
  );
  assert.equal(tallyText([]), "0");
});

test("last value has the original and the stored name", () => {
  const time = new Date().toISOString();
  assert.match(lastText({ ...LAST, time }), /^Öfen t = 21\.5, .*\(stored as x00D6_fen t\)$/);
  assert.match(lastText({ ...LAST, machine: "x00D6_fen", time }), /^x00D6_fen t = 21\.5, [^(]*$/);
  assert.equal(lastText(null), "–");
});

test("processes without inputs are left out", () => {
  assert.deepEqual(inputsOf([{ reachable: false, service: "edge", address: "", reason: "" }]), []);
});
