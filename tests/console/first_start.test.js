// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { commands } from "../../services/aurum/api/console/connect.js";
import { typeText } from "../../services/aurum/api/console/reference.js";
import { failureText, trainingText } from "../../services/aurum/api/console/simulation.js";
import { speak } from "./browser.js";

beforeEach(() => speak("en"));

/**
 * @param {string} state
 * @param {string | null} [problem]
 */
const training = (state, problem = null) => ({ machine_type: "pump", state, problem });

test("training is told until every model is there or has failed", async () => {
  const trainings = ["done", "running", "waiting"].map((each) => training(each));
  assert.match(trainingText(trainings), /^Models in training: 1 of 3 are ready/);
  assert.equal(trainingText([training("done"), training("failed", "killed")]), "");
  assert.equal(trainingText([]), "");
  await speak("es");
  assert.match(trainingText(trainings), /^Entrenando modelos: 1 de 3/);
});

test("failed training is told with its reason", () => {
  assert.equal(failureText([training("done")]), "");
  assert.equal(failureText([training("failed", "it was killed")]), "No model for pump was trained: it was killed.");
});

test("commands have the address of the page, and a key only if one is needed", () => {
  const open = commands("http://plant.example:8000", false);
  assert.ok(open.send.includes("http://plant.example:8000/api/readings"));
  assert.ok(Object.values(open).every((each) => each === open.key || !each.includes("AURUM_API_KEY")));
  const closed = commands("https://plant.example", true);
  for (const each of [closed.send, closed.register, closed.upload]) assert.match(each, /X-API-Key: \$AURUM_API_KEY/);
});

test("type of the API is told in words", () => {
  assert.equal(typeText({ $ref: "#/components/schemas/MachineOut" }), "MachineOut");
  assert.equal(typeText({ type: "array", items: { type: "string", format: "date-time" } }), "string (date-time)[]");
  assert.equal(typeText({ anyOf: [{ type: "number" }, { type: "null" }] }), "number | null");
  assert.equal(typeText({ enum: ["a", "b"] }), '"a" | "b"');
  assert.equal(typeText(undefined), "any");
});
