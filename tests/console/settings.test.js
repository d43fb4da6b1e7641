// @ts-check
import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { remember, setting } from "../../services/aurum/api/console/settings.js";
import { setGlobal, storage } from "./browser.js";

test("choice is kept in the browser's storage", () => {
  const stored = storage();
  assert.equal(setting("theme"), "auto");
  remember("theme", "dark");
  assert.equal(setting("theme"), "dark");
  assert.deepEqual([...stored], [["aurum.theme", "dark"]]);
});

test("choice lasts as long as the page without storage", () => {
  const info = mock.method(console, "info", () => {});
  const forbid = () => {
    throw new Error("storage is forbidden");
  };
  setGlobal("localStorage", { getItem: forbid, setItem: forbid });
  remember("operator", "Ada");
  assert.equal(setting("operator"), "Ada");
  assert.equal(info.mock.callCount(), 1);
});
