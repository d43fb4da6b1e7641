// @ts-check
// A dialog with a form.

import { h } from "./dom.js";
import { t } from "./text.js";

/** @import { Child } from "./types.d.ts" */

let opened = 0; // gives each dialog a title of its own id

/**
 * Opens a dialog with a form. It closes when the form is sent or cancelled.
 * @param {object} options
 * @param {string} options.title
 * @param {Child[]} options.fields
 * @param {string} options.confirm Text of the button that sends the form.
 * @param {() => unknown} options.onConfirm
 * @param {() => unknown} [options.onClose] Called after it has closed in either way.
 */
export function openFormDialog({ title, fields, confirm, onConfirm, onClose }) {
  const id = `dialog-${(opened += 1)}`;
  const dialog = h("dialog", { "aria-labelledby": id });
  const close = () => dialog.close();
  /** @param {SubmitEvent} event */
  const submit = (event) => {
    event.preventDefault();
    close();
    onConfirm();
  };
  dialog.addEventListener("close", () => {
    dialog.remove();
    onClose?.();
  });
  dialog.append(
    h(
      "form",
      { method: "dialog", on: { submit } },
      h("h2", { id }, title),
      fields,
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", on: { click: close } }, t("cancel")),
        h("button", { type: "submit", class: "main" }, confirm),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}

/**
 * Makes a field of a form with its label.
 * @param {string} label
 * @param {HTMLElement} control
 */
export const field = (label, control) => h("label", {}, label, " ", control);
