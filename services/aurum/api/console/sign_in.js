// Signing in, where callers are asked who they are: a key or token is sent once, and forgotten.

import { request } from "./api.js";
import { h, setText } from "./dom.js";
import { t } from "./text.js";

export const whoAmI = () => request("/api/session");

/** Shows the form in place of a page; done(): after somebody is known. */
export function openSignIn(main, done) {
  const credential = h("input", {
    type: "password",
    name: "credential",
    autocomplete: "current-password",
    required: true,
    maxlength: 16_384,
  });
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const form = h(
    "form",
    {
      class: "sign-in card",
      on: {
        submit: async (event) => {
          event.preventDefault();
          problem.hidden = true;
          try {
            await request("/api/session", { method: "POST", body: { credential: credential.value.trim() } });
            done();
          } catch (error) {
            setText(problem, error.message);
            problem.hidden = false;
            credential.select();
          }
        },
      },
    },
    h("h1", {}, t("sign_in.title")),
    h("p", {}, t("sign_in.text")),
    h("label", {}, t("sign_in.credential"), " ", credential),
    h("button", { type: "submit", class: "main" }, t("sign_in.go")),
    problem,
  );
  main.replaceChildren(form);
  credential.focus();
}

export async function signOut() {
  await request("/api/session", { method: "DELETE" });
}
