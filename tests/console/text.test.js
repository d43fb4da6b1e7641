// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { remember } from "../../services/aurum/api/console/settings.js";
import { language, loadTexts, t, textOr } from "../../services/aurum/api/console/text.js";
import { serveConsole, setGlobal, speak, storage } from "./browser.js";

beforeEach(() => {
  storage();
  remember("language", "");
});

test("first language of the browser with texts is loaded", async () => {
  await speak("fr-FR", "es-MX", "en");
  assert.equal(language, "es");
  assert.equal(document.documentElement.lang, "es");
  assert.equal(t("nav.alarms"), "Alarmas");
});

test("English is loaded for a browser without known languages", async () => {
  await speak("fr", "de");
  assert.equal(language, "en");
});

test("chosen language comes before those of the browser", async () => {
  remember("language", "es");
  await speak("en");
  assert.equal(language, "es");
});

test("language stays as it is if its texts cannot be loaded", async () => {
  await speak("en");
  remember("language", "es");
  for (const answer of [
    () => Promise.reject(new TypeError("failed")),
    async () => new Response("{}", { status: 503 }),
  ]) {
    setGlobal("fetch", answer);
    await assert.rejects(loadTexts(), TypeError);
    assert.equal(language, "en");
    assert.equal(t("nav.alarms"), "Alarms");
  }
  serveConsole();
  await loadTexts();
  assert.equal(language, "es");
});

test("placeholders are filled with values", async () => {
  await speak("en");
  assert.equal(t("plant.shown", { n: "2", total: "50" }), "2 of 50 machines");
  assert.equal(t("machine.unknown"), "There is no machine .");
});

test("singular text is used for one", async () => {
  await speak("en");
  assert.equal(t("alarms.waiting", { n: 1 }), "1 unacknowledged alarm");
  assert.equal(t("alarms.waiting", { n: 2 }), "2 unacknowledged alarms");
});

test("key without text has a fallback", async () => {
  await speak("en");
  assert.equal(textOr("rule.The machine sends no readings", "other"), "The machine sends no readings");
  assert.equal(textOr("rule.own", "Oven too hot"), "Oven too hot");
  assert.equal(t("no.such.key"), "no.such.key");
});
