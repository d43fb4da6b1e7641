// @ts-check
// The spans of a request through all services as bars: each below its parent, over the time of the whole request.

import { h, headings, tableOf, wideRegion } from "./dom.js";
import { duration } from "./format.js";
import { t } from "./text.js";

/** @import { ConsoleSettings, Span, Trace } from "./types.d.ts" */

/**
 * Returns spans with their depth, each followed by its children. Siblings stay in their order.
 * @param {Span[]} spans
 * @returns {{ span: Span, depth: number }[]}
 */
export function spanTree(spans) {
  const ids = new Set(spans.map((span) => span.span_id));
  /** @type {Map<string | null, Span[]>} */
  const children = new Map();
  for (const span of spans) {
    const parent = span.parent_id !== null && ids.has(span.parent_id) ? span.parent_id : null;
    children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  /**
   * @param {string | null} parent
   * @param {number} depth
   * @returns {{ span: Span, depth: number }[]}
   */
  const below = (parent, depth) =>
    (children.get(parent) ?? []).flatMap((span) => [{ span, depth }, ...below(span.span_id, depth + 1)]);
  return below(null, 0);
}

/**
 * @param {{ span: Span, depth: number }} item
 * @param {number} begin Start of the request, in seconds since 1970.
 * @param {number} whole Its duration in seconds.
 */
function spanRow({ span, depth }, begin, whole) {
  const bar = h("i", { class: span.failed ? "failed" : "" });
  bar.style.left = `${(100 * (span.start - begin)) / whole}%`;
  bar.style.width = `max(2px, ${(100 * span.seconds) / whole}%)`;
  const name = h(
    "th",
    { scope: "row", title: span.detail },
    span.name,
    span.failed ? h("small", {}, ` ${t("trace.failed")}`) : null,
    span.events.map((event) => h("small", {}, ` ${event.name.replace("resilience.", "")}`)),
  );
  name.style.paddingInlineStart = `${0.6 + 1.1 * depth}rem`;
  return h(
    "tr",
    { "data-service": span.service },
    name,
    h("td", {}, span.service),
    h("td", { class: "time" }, duration(span.seconds)),
    h("td", { class: "lane", "aria-hidden": "true" }, bar),
  );
}

/**
 * Returns the elements that show a request.
 * @param {Trace} trace
 * @param {ConsoleSettings} settings
 * @returns {Node[]}
 */
export function waterfall(trace, settings) {
  const begin = Math.min(...trace.spans.map((span) => span.start));
  const end = Math.max(...trace.spans.map((span) => span.start + span.seconds));
  const whole = Math.max(1e-6, end - begin);
  const label = t("waterfall.label");
  const head = headings(["span", "service", "time", "lane"].map((key) => t(`waterfall.${key}`)));
  const rows = spanTree(trace.spans).map((item) => spanRow(item, begin, whole));
  return [
    h(
      "h3",
      {},
      `${trace.name} · ${duration(trace.seconds)} `,
      h("small", {}, trace.trace_id),
      " ",
      settings.jaeger_url ? h("a", { href: `${settings.jaeger_url}/trace/${trace.trace_id}` }, "Jaeger") : null,
    ),
    ...(trace.detail ? [h("p", {}, trace.detail)] : []),
    wideRegion(label, tableOf({ label, head, rows })),
  ];
}
