// @ts-check
// Sign-in with a key or token, which is sent once and not kept in the browser.

import { messageOf, request } from "./api.js";
import { h, problemLine, showProblem } from "./dom.js";
import { t } from "./text.js";

/**
 * Shows the form in place of a page.
 * @param {HTMLElement} main
 * @param {() => void} onSignedIn
 */
export function openSignIn(main, onSignedIn) {
  const credential = h("input", {
    type: "password",
    name: "credential",
    autocomplete: "current-password",
    required: true,
    maxlength: 16_384,
  });
  const problem = problemLine();
  /** @param {SubmitEvent} event */
  const submit = async (event) => {
    event.preventDefault();
    showProblem(problem, "");
    try {
      await request("/api/session", { method: "POST", body: { credential: credential.value.trim() } });
      onSignedIn();
    } catch (error) {
      showProblem(problem, messageOf(error));
      credential.select();
    }
  };
  const form = h(
    "form",
    { class: "sign-in card", on: { submit } },
    h("h1", {}, t("sign_in.title")),
    h("p", {}, t("sign_in.text")),
    h("label", {}, t("sign_in.credential"), " ", credential),
    h("button", { type: "submit", class: "main" }, t("sign_in.go")),
    problem,
  );
  main.replaceChildren(form);
  credential.focus();
}
