// Requests to the API: JSON in, JSON out; what goes wrong is an error whose message a person can read.

import { t } from "./text.js";

class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export async function request(path, { method = "GET", body, signal } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(t("error.unreachable"), 0);
  }
  const type = answer.headers.get("content-type") ?? "";
  const content = answer.status !== 204 && type.includes("json") ? await answer.json() : null;
  if (answer.status === 401 && path !== "/api/session") document.dispatchEvent(new Event("signed-out"));
  if (!answer.ok) throw new ApiError(content?.detail ?? t("error.status", { status: answer.status }), answer.status);
  return content;
}
