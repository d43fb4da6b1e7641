// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { visibleRows } from "../../services/aurum/api/console/table.js";

const VIEW = { scrollTop: 0, height: 400, rowHeight: 40, count: 1000 }; // shows 10 rows, with 8 spare ones

test("table begins with its first rows", () => {
  assert.deepEqual(visibleRows(VIEW), [0, 18]);
});

test("scrolled table has spare rows on both sides", () => {
  assert.deepEqual(visibleRows({ ...VIEW, scrollTop: 4000 }), [96, 114]);
});

test("table ends with its last row", () => {
  assert.deepEqual(visibleRows({ ...VIEW, scrollTop: 1000 * 40 - 400 }), [982, 1000]);
  assert.deepEqual(visibleRows({ ...VIEW, scrollTop: 1_000_000 }), [982, 1000]);
});

test("short and empty tables have all their rows", () => {
  assert.deepEqual(visibleRows({ ...VIEW, count: 3 }), [0, 3]);
  assert.deepEqual(visibleRows({ ...VIEW, count: 3, scrollTop: 500 }), [0, 3]);
  assert.deepEqual(visibleRows({ ...VIEW, count: 0 }), [0, 0]);
});
