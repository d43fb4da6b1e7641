// @ts-check
// Requests to the API, with JSON in both directions.

import { filled, t, textOr } from "./text.js";

/** @import { FieldProblem, Problem } from "./types.d.ts" */

const PROBLEM_TYPE = "urn:aurumai:problem:"; // begins the type of the API's own problems

/** The API did not answer, or answered with an error. The message is for the user. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status The HTTP status; 0 without an answer.
   * @param {FieldProblem[]} [errors] The invalid fields.
   */
  constructor(message, status, errors = []) {
    super(message);
    this.status = status;
    this.errors = errors;
  }
}

/** @param {unknown} error */
const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";

/**
 * Returns the message of a caught error.
 * @param {unknown} error
 */
export const messageOf = (error) => (error instanceof Error ? error.message : String(error));

/**
 * Returns what is wrong with a field in the user's language, or else as the API says it.
 * @param {FieldProblem} problem
 */
export const fieldText = ({ code, detail, parameters }) => filled(textOr(`invalid.${code}`, detail), parameters ?? {});

/**
 * Returns the user's text for a kind of problem, or else the API's.
 * @param {string | null} kind
 * @param {string | null} text The API's text.
 * @param {Record<string, string>} [parameters]
 * @param {FieldProblem} [invalid] The first invalid field.
 */
export function kindText(kind, text, parameters = {}, invalid) {
  const detail = text ?? "";
  const own = textOr(parameters.needed ? `numbers.${kind}` : `problem.${kind}`, detail);
  if (!invalid) return own.includes("{problem}") ? detail : filled(own, { detail, ...parameters });
  const field = invalid.field.replace(/^(body|query|path)\./, "");
  return filled(own, { detail, ...parameters, field, problem: fieldText(invalid) });
}

/**
 * Returns the user's text for an error response: the translation for its type of problem, or else the detail.
 * @param {Partial<Problem> | null} problem The body, if it is JSON.
 * @param {number} status
 */
function problemText(problem, status) {
  const kind = problem?.type?.startsWith(PROBLEM_TYPE) ? problem.type.slice(PROBLEM_TYPE.length) : "";
  return kindText(kind, problem?.detail ?? t("error.status", { status }), problem?.parameters, problem?.errors?.[0]);
}

/**
 * Sends a request. A 401 also dispatches the event "signed-out" on the document.
 * @param {string} path
 * @param {{ method?: string, body?: unknown, signal?: AbortSignal }} [options] `body` is sent as JSON.
 * @returns {Promise<any>} The JSON of the answer; null if it has none.
 * @throws {ApiError} The API is not reachable or answered with an error.
 * @throws {DOMException} The signal aborted the request.
 */
export async function request(path, { method = "GET", body, signal } = {}) {
  const { answer, content } = await exchange(path, {
    method,
    signal,
    ...(body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
  });
  if (answer.status === 401 && path !== "/api/session") document.dispatchEvent(new Event("signed-out"));
  if (!answer.ok) throw new ApiError(problemText(content, answer.status), answer.status, content?.errors);
  return content;
}

/**
 * @param {string} path
 * @param {RequestInit} options
 */
async function exchange(path, options) {
  try {
    const answer = await fetch(path, options);
    const isJson = answer.status !== 204 && (answer.headers.get("content-type") ?? "").includes("json");
    return { answer, content: isJson ? await answer.json() : null };
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError(t("error.unreachable"), 0);
  }
}
