// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { makeSelection } from "../../services/aurum/api/console/selection.js";

const ORDER = ["a", "b", "c", "d", "e"];

test("a range goes from the item that was selected last, in both directions", () => {
  const selection = makeSelection();
  selection.set("b", true);
  selection.extendTo("d", ORDER);
  assert.deepEqual(selection.ids(), ["b", "c", "d"]);
  selection.extendTo("a", ORDER);
  assert.deepEqual([...selection.ids()].sort(), ["a", "b", "c", "d"]);
});

test("a range without a beginning is its end", () => {
  const selection = makeSelection();
  selection.extendTo("c", ORDER);
  assert.deepEqual(selection.ids(), ["c"]);
  selection.extendTo("e", ORDER);
  assert.deepEqual(selection.ids(), ["c", "d", "e"]);
  selection.extendTo("nothing", ORDER);
  assert.equal(selection.size, 3);
});

test("what is no longer shown is no longer selected, nor the beginning of a range", () => {
  const selection = makeSelection();
  selection.add(ORDER);
  selection.set("a", true);
  selection.remove(["e"]);
  selection.keepOnly(["b", "c", "x"]);
  assert.deepEqual(selection.ids(), ["b", "c"]);
  selection.extendTo("d", ["b", "c", "d"]);
  assert.deepEqual(selection.ids(), ["b", "c", "d"]);
  selection.clear();
  assert.equal(selection.size, 0);
});
