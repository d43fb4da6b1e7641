// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { spanTree } from "../../services/aurum/api/console/waterfall.js";

/**
 * @param {string} id
 * @param {string | null} parent
 */
const span = (id, parent) => ({
  span_id: id,
  parent_id: parent,
  service: "api",
  name: id,
  start: 0,
  seconds: 1,
  failed: false,
  detail: "",
  events: [],
});

/** @param {ReturnType<typeof span>[]} spans */
const outline = (spans) => spanTree(spans).map((item) => `${item.depth} ${item.span.name}`);

test("spans follow their parents", () => {
  const spans = [span("root", null), span("a", "root"), span("b", "root"), span("a1", "a"), span("b1", "b")];
  assert.deepEqual(outline(spans), ["0 root", "1 a", "2 a1", "1 b", "2 b1"]);
});

test("span whose parent is not kept begins a tree", () => {
  assert.deepEqual(outline([span("a", "elsewhere"), span("b", "a")]), ["0 a", "1 b"]);
});
