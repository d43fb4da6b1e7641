// One request through all services: a bar for each span, below its parent, over the time of the whole.

import { h } from "./dom.js";
import { duration } from "./format.js";
import { t } from "./text.js";

/** Spans with their depth, each followed by its children in the order of their starts. */
function ordered(spans) {
  const ids = new Set(spans.map((span) => span.span_id));
  const children = new Map();
  for (const span of spans) {
    const parent = ids.has(span.parent_id) ? span.parent_id : null;
    children.set(parent, [...(children.get(parent) ?? []), span]);
  }
  const found = [];
  const add = (span, depth) => {
    found.push({ span, depth });
    for (const child of children.get(span.span_id) ?? []) add(child, depth + 1);
  };
  for (const root of children.get(null) ?? []) add(root, 0);
  return found;
}

export function waterfall(trace, settings) {
  const begin = Math.min(...trace.spans.map((span) => span.start));
  const end = Math.max(...trace.spans.map((span) => span.start + span.seconds));
  const whole = Math.max(1e-6, end - begin);
  const rows = ordered(trace.spans).map(({ span, depth }) => {
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
  });
  const head = ["span", "service", "time", "lane"].map((key) => h("th", { scope: "col" }, t(`waterfall.${key}`)));
  return [
    h(
      "h3",
      {},
      `${trace.name} · ${duration(trace.seconds)} `,
      h("small", {}, trace.trace_id),
      " ",
      settings.jaeger_url ? h("a", { href: `${settings.jaeger_url}/trace/${trace.trace_id}` }, "Jaeger") : null,
    ),
    trace.detail ? h("p", {}, trace.detail) : null,
    h(
      "div",
      { class: "wide", tabindex: "0", role: "region", "aria-label": t("waterfall.label") },
      h("table", { "aria-label": t("waterfall.label") }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)),
    ),
  ].filter(Boolean);
}
