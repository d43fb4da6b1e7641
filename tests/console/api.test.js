// @ts-check
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { ApiError, messageOf, request } from "../../services/aurum/api/console/api.js";
import { setGlobal, speak } from "./browser.js";

/** @type {{ path: string, options: RequestInit }[]} */
let sent = [];

/**
 * Lets the API answer each request with this.
 * @param {BodyInit | null} body
 * @param {ResponseInit} [init]
 * @param {string} [type]
 */
function answerWith(body, init = {}, type = "application/json") {
  sent = [];
  setGlobal("fetch", async (/** @type {string} */ path, /** @type {RequestInit} */ options) => {
    options.signal?.throwIfAborted();
    sent.push({ path, options });
    return new Response(body, { ...init, headers: { "content-type": type } });
  });
}

/**
 * @param {number} status
 * @param {object} problem
 */
const answerWithProblem = (status, problem) =>
  answerWith(JSON.stringify(problem), { status }, "application/problem+json");

beforeEach(() => speak("en"));

test("request returns the JSON of the answer", async () => {
  answerWith('{"items": [1]}');
  assert.deepEqual(await request("/api/machines"), { items: [1] });
  assert.equal(sent[0].path, "/api/machines");
  assert.equal(sent[0].options.method, "GET");
  assert.equal(sent[0].options.body, undefined);
});

test("request sends its body as JSON", async () => {
  answerWith(null, { status: 204 });
  assert.equal(await request("/api/session", { method: "POST", body: { credential: "x" } }), null);
  assert.equal(sent[0].options.body, '{"credential":"x"}');
  assert.deepEqual(sent[0].options.headers, { "Content-Type": "application/json" });
});

test("problem with numbers tells them in the user's language", async () => {
  const parameters = { machine_id: "m", present: "1", needed: "12" };
  answerWithProblem(409, { type: "urn:aurumai:problem:not-enough-readings", detail: "too few readings", parameters });
  await assert.rejects(request("/api/machines/m/advice"), {
    message: "Not enough data for a prediction yet (1 of 12 readings).",
  });
  answerWithProblem(409, { type: "urn:aurumai:problem:not-enough-readings", detail: "too few readings" });
  await assert.rejects(request("/api/machines/m/advice"), { message: "Not enough data for a prediction yet." });
});

test("problem of a known type is translated", async () => {
  const problem = { type: "urn:aurumai:problem:circuit-open", detail: "circuit breaker api/ingestion is open" };
  answerWithProblem(503, problem);
  const expected = { message: "A service of the platform is not available at the moment.", status: 503 };
  await assert.rejects(request("/api/alarms"), expected);
  await speak("es");
  answerWithProblem(503, problem);
  await assert.rejects(request("/api/alarms"), {
    message: "Un servicio de la plataforma no está disponible en este momento.",
  });
});

test("problem of another type keeps its detail", async () => {
  answerWithProblem(422, { type: "urn:aurumai:problem:invalid-argument", detail: "text: is empty" });
  await assert.rejects(request("/api/alarms"), { message: "text: is empty" });
  answerWithProblem(500, { type: "about:blank", detail: "broken" });
  await assert.rejects(request("/api/alarms"), { message: "broken" });
});

test("invalid field is told in the user's language", async () => {
  await speak("es");
  const problem = {
    type: "urn:aurumai:problem:invalid-argument",
    detail: "body.reason: String should have at least 1 character",
    errors: [
      {
        field: "body.reason",
        detail: "String should have at least 1 character",
        code: "string_too_short",
        parameters: { min_length: "1" },
      },
    ],
  };
  answerWithProblem(422, problem);
  await assert.rejects(request("/api/alarms"), {
    message: "No se ha aceptado: reason: es demasiado corto; mínimo 1 caracteres",
  });
  problem.errors[0].code = "newer";
  answerWithProblem(422, problem);
  await assert.rejects(request("/api/alarms"), {
    message: "No se ha aceptado: reason: String should have at least 1 character",
  });
});

test("error without a problem names its status", async () => {
  answerWith("<h1>Bad gateway</h1>", { status: 502 }, "text/html");
  await assert.rejects(request("/api/alarms"), { message: "The platform reported an error (HTTP 502).", status: 502 });
});

test("API that does not answer is reported as unreachable", async () => {
  setGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
  await assert.rejects(request("/api/alarms"), new ApiError("The platform does not respond.", 0));
});

test("answer that breaks off is reported as unreachable", async () => {
  answerWith('{"items": [');
  await assert.rejects(request("/api/alarms"), new ApiError("The platform does not respond.", 0));
});

test("aborted request rejects with the abort", async () => {
  answerWith("{}");
  await assert.rejects(request("/api/alarms", { signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("unauthenticated answer announces that the user is signed out", async () => {
  let events = 0;
  document.addEventListener("signed-out", () => (events += 1));
  answerWithProblem(401, { type: "urn:aurumai:problem:unauthenticated" });
  await assert.rejects(request("/api/alarms"), { status: 401 });
  assert.equal(events, 1);
  await assert.rejects(request("/api/session"), { status: 401 });
  assert.equal(events, 1);
});

test("message is taken from errors and other values", () => {
  assert.equal(messageOf(new Error("broken")), "broken");
  assert.equal(messageOf("broken"), "broken");
});
