// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { findPage } from "../../services/aurum/api/console/pages.js";

/** @param {string} path */
const found = (path) => {
  const match = findPage(path);
  return match && [match.page.name, match.id];
};

test("paths lead to their pages", () => {
  assert.deepEqual(found("/"), ["plant", ""]);
  assert.deepEqual(found("/alarms"), ["alarms", ""]);
  assert.deepEqual(found("/platform"), ["platform", ""]);
  assert.deepEqual(found("/connect"), ["connect", ""]);
  assert.deepEqual(found("/machines/pump-1"), ["machine", "pump-1"]);
});

test("machine's path is decoded", () => {
  assert.deepEqual(found("/machines/oven%201%2Fb"), ["machine", "oven 1/b"]);
});

test("machine's path with a stray percent sign is kept", () => {
  assert.deepEqual(found("/machines/100%"), ["machine", "100%"]);
});

test("other paths lead to no page", () => {
  for (const path of ["/docs", "/machines/", "/machines/a/b", "/alarms/x"]) assert.equal(found(path), null);
});
