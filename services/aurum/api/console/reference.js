// @ts-check
// The reference of the API, made in the browser from /openapi.json. It is in English, as the description is.

import { h } from "./dom.js";

/** @typedef {Record<string, any>} Schema */
/** @typedef {{ name: string, in: string, required?: boolean, description?: string, schema?: Schema }} Parameter */
/**
 * @typedef {{ tags?: string[], summary?: string, description?: string, parameters?: Parameter[],
 *   requestBody?: { content: Record<string, { schema?: Schema }> },
 *   responses?: Record<string, { description?: string, content?: Record<string, { schema?: Schema }> }> }} Operation
 */
/**
 * @typedef {{ paths: Record<string, Record<string, Operation>>,
 *   components?: { schemas?: Record<string, Schema> } }} Description
 */

const REF = "#/components/schemas/";

/**
 * Returns the type of a value in words.
 * @param {Schema | undefined} schema
 * @returns {string}
 */
export function typeText(schema) {
  if (!schema) return "any";
  if (schema.$ref) return String(schema.$ref).replace(REF, "");
  const choices = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (choices) return choices.map(typeText).join(" | ");
  if (schema.enum) return schema.enum.map((/** @type {unknown} */ each) => JSON.stringify(each)).join(" | ");
  if (schema.type === "array") return `${typeText(schema.items)}[]`;
  return schema.format ? `${schema.type} (${schema.format})` : (schema.type ?? "any");
}

/**
 * Makes a type, which leads to its definition if it has a name.
 * @param {Schema | undefined} schema
 */
function typeLink(schema) {
  const named = schema?.$ref ?? schema?.items?.$ref;
  const text = h("code", {}, typeText(schema));
  return named ? h("a", { href: `#${named.replace(REF, "")}` }, text) : text;
}

/**
 * @param {string[]} head
 * @param {HTMLElement[]} rows
 */
const table = (head, rows) =>
  h(
    "div",
    { class: "wide", tabindex: "0", role: "region", "aria-label": head.join(", ") },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          head.map((each) => h("th", { scope: "col" }, each)),
        ),
      ),
      h("tbody", {}, rows),
    ),
  );

/** @param {Parameter} parameter */
const parameterRow = ({ name, in: place, required, description, schema }) =>
  h(
    "tr",
    {},
    h("th", { scope: "row" }, h("code", {}, name)),
    h("td", {}, place),
    h("td", {}, typeLink(schema)),
    h("td", {}, required ? "yes" : "no"),
    h("td", {}, description ?? ""),
  );

/**
 * @param {string} method
 * @param {string} path
 * @param {Operation} operation
 */
function operationDetails(method, path, operation) {
  const body = Object.entries(operation.requestBody?.content ?? {});
  const answers = Object.entries(operation.responses ?? {});
  return h(
    "details",
    { "data-operation": `${method} ${path}` },
    h("summary", {}, h("code", {}, `${method.toUpperCase()} ${path}`), " ", operation.summary ?? ""),
    operation.description ? h("p", { class: "description" }, operation.description) : null,
    operation.parameters?.length
      ? table(["parameter", "in", "type", "required", "description"], operation.parameters.map(parameterRow))
      : null,
    body.map(([type, { schema }]) => h("p", {}, "Body: ", h("code", {}, type), " ", typeLink(schema))),
    table(
      ["answer", "content", "description"],
      answers.map(([status, { description, content }]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, status),
          h("td", {}, typeLink(Object.values(content ?? {})[0]?.schema)),
          h("td", {}, description ?? ""),
        ),
      ),
    ),
  );
}

/**
 * Makes the content of the page.
 * @param {Description} description
 */
function pageOf(description) {
  /** @type {Map<string, HTMLElement[]>} */
  const byTag = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? "other";
      byTag.set(tag, [...(byTag.get(tag) ?? []), operationDetails(method, path, operation)]);
    }
  }
  const types = Object.entries(description.components?.schemas ?? {}).map(([name, schema]) =>
    h(
      "details",
      { id: name },
      h("summary", {}, h("code", {}, name)),
      h("pre", { tabindex: "0", "aria-label": name }, JSON.stringify(schema, null, 2)),
    ),
  );
  return [
    ...[...byTag].flatMap(([tag, operations]) => [h("h2", {}, tag), ...operations]),
    h("h2", {}, "types"),
    ...types,
  ];
}

/** Opens the definition that the address names. */
function openNamed() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named instanceof HTMLDetailsElement) {
    named.open = true;
    named.scrollIntoView();
  }
}

/** @param {HTMLElement} main */
async function show(main) {
  try {
    const answer = await fetch("/openapi.json");
    if (!answer.ok) throw new Error(`the API answers ${answer.status}`);
    main.append(...pageOf(await answer.json()));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    main.append(h("p", { class: "problem", role: "alert" }, `The description cannot be loaded: ${reason}`));
    return;
  }
  addEventListener("hashchange", openNamed);
  openNamed();
}

if (typeof document !== "undefined") {
  const main = document.getElementById("reference");
  if (main) await show(main);
}
