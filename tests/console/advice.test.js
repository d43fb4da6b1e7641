// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { stopText } from "../../services/aurum/api/console/planned_stops.js";
import { t } from "../../services/aurum/api/console/text.js";
import { speak } from "./browser.js";

beforeEach(() => speak("en"));

test("planned stop shows its date and how long until it", () => {
  const stop = { id: "1-a", at: "2026-01-03T12:00:00Z", in_hours: 30, text: "cleaning" };
  assert.match(stopText(stop), /2026, .*, in 30 h · cleaning$/);
  assert.match(stopText({ ...stop, in_hours: 0.5, text: "" }), /in 30 min$/);
});

test("advice names the option that it is compared with", async () => {
  const words = { saves: "23 EUR", next: t("advice.next.planned_stop") };
  assert.equal(
    t("advice.best.now", words),
    "Maintain now: the expected cost is 23 EUR lower than waiting for a planned stop.",
  );
  await speak("es");
  assert.match(t("advice.best.now", { saves: "23 EUR", next: t("advice.next.now") }), /23 EUR menor que con el/);
});
