// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { isSignal, valueLimits } from "../../services/aurum/api/console/chart_scales.js";

/** @param {number} count */
const wave = (count) => Array.from({ length: count }, (_, index) => 50 + 10 * Math.sin(index / 7));

test("series of zeros and ones is a signal", () => {
  assert.equal(isSignal([0, 0, 0], [0, 1, 1]), true);
  assert.equal(isSignal([null, 1], [null, 1]), true);
  assert.equal(isSignal([0, 0.5], [1, 1]), false);
  assert.equal(isSignal([null], [null]), false);
});

test("value axis covers all values and a margin", () => {
  const [low, high] = valueLimits([2, 3], [4, 6]);
  assert.ok(low < 2 && low > 1.5);
  assert.ok(high > 6 && high < 6.5);
});

test("value axis of no values and of one value is not empty", () => {
  assert.deepEqual(valueLimits([null], [null]), [0, 1]);
  for (const value of [0, 5, -5]) {
    const [low, high] = valueLimits([value], [value]);
    assert.ok(low < value && value < high);
  }
});

test("one far outlier does not squeeze the other values", () => {
  const values = wave(300);
  values[100] = 1e6;
  values[200] = -1e6;
  const [low, high] = valueLimits(values, values);
  assert.ok(low < 40 && low > 0, `${low}`);
  assert.ok(high > 60 && high < 100, `${high}`);
});

test("step that lasts stays within the value axis", () => {
  const values = [...wave(300), ...Array(30).fill(500)];
  assert.ok(valueLimits(values, values)[1] > 500);
});

test("constant values with one spike show the spike", () => {
  const values = Array(300).fill(0);
  values[150] = 7;
  assert.ok(valueLimits(values, values)[1] > 7);
});

test("value axis covers a limit near the values, not one far away", () => {
  assert.ok(valueLimits([4, 5], [5, 6], [7.1])[1] > 7.1);
  assert.ok(valueLimits([4, 5], [5, 6], [100])[1] < 10);
});
