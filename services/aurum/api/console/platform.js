// The platform itself: its services as a map, every process with its policies, slow and degraded requests, and faults
// to see it heal from.

import { request } from "./api.js";
import { h, setText } from "./dom.js";
import { clock, duration, number, percent } from "./format.js";
import { serviceMap } from "./map.js";
import { t } from "./text.js";
import { waterfall } from "./waterfall.js";

const EVERY = 2000; // ms
const SLOW_BY = "1s";
const FAULT_FOR = 30; // seconds
const FAULTS = {
  slow: { kind: "delay", delay: SLOW_BY },
  fail: { kind: "error", code: "UNAVAILABLE" },
  stop: { kind: "abort" },
};
const CALLS = { prediction: "Predict*", ingestion: "Query*", edge: "[IW]*" }; // whose next call ends the service

const rate = (value) => (value === null || value === undefined ? "–" : `${number(value)}/s`);

function processTable(instances) {
  const head = ["service", "instance", "requests", "errors", "p95", "generation", "spool", "uptime", "state"];
  const row = (each) => {
    if (!each.reachable) {
      return h(
        "tr",
        { "data-instance": each.service },
        h("th", { scope: "row" }, each.service),
        h("td", {}, each.address),
        h("td", { colspan: 6 }, h("small", {}, each.reason)),
        h("td", {}, h("span", { class: "badge", "data-state": "fault" }, t("platform.down"))),
      );
    }
    const { rates, policy, spool } = each;
    const refused = each.refused
      ? h("span", { class: "badge", "data-state": "fault", title: each.refused.reason }, t("platform.refused"))
      : null;
    const struck = each.faults.length
      ? h("span", { class: "badge", "data-state": "stale" }, t("platform.faults", { n: each.faults.length }))
      : null;
    const missing = each.missing.length ? h("small", {}, ` ${each.missing.join(", ")}`) : null;
    return h(
      "tr",
      { "data-instance": each.service },
      h("th", { scope: "row" }, each.service),
      h("td", {}, each.instance, h("small", {}, ` ${each.pid}`)),
      h("td", {}, rate(rates?.requests_per_second)),
      h("td", {}, percent(rates?.error_ratio, 1)),
      h("td", {}, rates?.p95_seconds ? duration(rates.p95_seconds) : "–"),
      h("td", { title: policy.hash }, String(policy.generation)),
      h(
        "td",
        {},
        spool ? t("platform.spool", { batches: number(spool.batches), age: duration(spool.oldest_seconds) }) : "–",
      ),
      h("td", {}, duration(each.uptime_seconds)),
      h(
        "td",
        {},
        h(
          "span",
          { class: "badge", "data-state": each.missing.length ? "stale" : "running" },
          each.missing.length ? t("platform.starting") : t("platform.up"),
        ),
        missing,
        refused,
        struck,
      ),
    );
  };
  return h(
    "table",
    { "aria-label": t("platform.processes") },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        head.map((key) => h("th", { scope: "col" }, t(`process.${key}`))),
      ),
    ),
    h("tbody", {}, instances.map(row)),
  );
}

function policyTable(instances) {
  const rows = instances
    .filter((each) => each.reachable)
    .flatMap((each) =>
      each.targets.map((target) =>
        h(
          "tr",
          { "data-target": target.name },
          h("th", { scope: "row" }, target.name),
          h("td", {}, each.instance),
          h(
            "td",
            {},
            h("span", { class: "badge", "data-breaker": target.breaker }, t(`breaker.${target.breaker}`)),
            target.window
              ? h(
                  "small",
                  {},
                  ` ${t("breaker.window", { failures: target.window.failures, calls: target.window.calls })}`,
                )
              : null,
          ),
          h("td", {}, number(target.retry_budget_tokens)),
          h("td", {}, limit(target.limit)),
        ),
      ),
    );
  const limits = instances
    .filter((each) => each.reachable)
    .flatMap((each) =>
      each.limits.map((each_) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, each_.name ?? each.service),
          h("td", {}, each.instance),
          h("td", {}, "–"),
          h("td", {}, "–"),
          h("td", {}, limit(each_)),
        ),
      ),
    );
  const head = ["target", "instance", "breaker", "budget", "limit"].map((key) =>
    h("th", { scope: "col" }, t(`policy.${key}`)),
  );
  return h(
    "table",
    { "aria-label": t("platform.policies") },
    h("thead", {}, h("tr", {}, head)),
    h("tbody", {}, rows, limits),
  );
}

const limit = (state) => (state ? `${number(state.in_flight)} / ${number(state.limit)}` : "–");

function traceList(items, choose, chosen) {
  if (!items.length) return h("p", { class: "nothing" }, t("traces.none"));
  return h(
    "ul",
    { class: "traces" },
    items.map((each) =>
      h(
        "li",
        {},
        h(
          "button",
          {
            type: "button",
            "data-trace": each.trace_id,
            "aria-pressed": String(each.trace_id === chosen),
            on: { click: () => choose(each.trace_id) },
          },
          h(
            "span",
            { class: "badge", "data-state": each.reason === "slow" ? "stale" : "fault" },
            t(`trace.${each.reason}`),
          ),
          " ",
          h("b", {}, each.name),
          ` ${duration(each.seconds)} `,
          h("small", {}, `${clock(each.start * 1000)} ${each.detail}`),
        ),
      ),
    ),
  );
}

function faultPanel(services, told) {
  const button = (service, name) =>
    h(
      "button",
      {
        type: "button",
        "data-fault": `${service}-${name}`,
        on: {
          click: async () => {
            const method = name === "stop" ? CALLS[service] : "*";
            await told(
              () =>
                request(`/api/platform/faults/${service}`, {
                  method: "POST",
                  body: { ...FAULTS[name], method, duration: `${FAULT_FOR}s` },
                }),
              t(`fault.told.${name}`, { service, seconds: FAULT_FOR }),
            );
          },
        },
      },
      t(`fault.${name}`),
    );
  return h(
    "table",
    { class: "faults" },
    h(
      "tbody",
      {},
      services.map((service) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, service),
          h(
            "td",
            { class: "actions" },
            Object.keys(FAULTS)
              .filter((name) => name !== "stop" || CALLS[service])
              .map((name) => button(service, name)),
            h(
              "button",
              {
                type: "button",
                on: {
                  click: () =>
                    told(
                      () => request(`/api/platform/faults/${service}`, { method: "DELETE" }),
                      t("fault.cleared", { service }),
                    ),
                },
              },
              t("fault.clear"),
            ),
          ),
        ),
      ),
    ),
  );
}

export function open(main, { console: settings }) {
  const leaving = new AbortController();
  const { signal } = leaving;
  const region = (key) => h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": t(key) });
  const map = serviceMap();
  const processes = region("platform.processes");
  const policies = region("platform.policies");
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const traces = h("div", {});
  const detail = h("div", { class: "waterfall" });
  const happened = h("p", { role: "status", class: "happened" });
  let chosen = null;

  const told = async (action, text) => {
    try {
      await action();
      setText(happened, text);
    } catch (error) {
      setText(happened, error.message);
    }
    refresh();
  };

  main.append(
    h("h1", {}, t("nav.platform")),
    problem,
    map.element,
    ...(settings.faults_enabled
      ? [
          h(
            "section",
            { class: "card", "data-card": "faults" },
            h("h2", {}, t("platform.break")),
            h("p", {}, t("platform.break.text")),
            faultPanel(["prediction", "ingestion", "edge"], told),
            happened,
          ),
        ]
      : []),
    h("h2", {}, t("platform.traces")),
    traces,
    detail,
    h("h2", {}, t("platform.processes")),
    processes,
    h("h2", {}, t("platform.policies")),
    policies,
  );

  async function choose(traceId) {
    chosen = traceId;
    try {
      detail.replaceChildren(...waterfall(await request(`/api/platform/traces/${traceId}`, { signal }), settings));
    } catch (error) {
      if (!signal.aborted) detail.replaceChildren(h("p", { class: "nothing" }, error.message));
    }
    refreshTraces();
  }

  async function refreshTraces() {
    if (!settings.traces_kept) {
      traces.replaceChildren(
        h(
          "p",
          { class: "nothing" },
          t("traces.elsewhere"),
          " ",
          settings.jaeger_url ? h("a", { href: settings.jaeger_url }, "Jaeger") : null,
        ),
      );
      return;
    }
    const { items } = await request("/api/platform/traces", { signal });
    const key = `${chosen} ${items.map((each) => each.trace_id).join()}`;
    if (traces.dataset.key === key) return; // nothing new: the keyboard's focus stays where it is
    traces.dataset.key = key;
    traces.replaceChildren(traceList(items, choose, chosen));
  }

  async function refresh() {
    if (document.hidden) return;
    try {
      const { instances } = await request("/api/platform", { signal });
      problem.hidden = true;
      map.show(instances);
      processes.replaceChildren(processTable(instances));
      policies.replaceChildren(policyTable(instances));
      await refreshTraces();
    } catch (error) {
      if (signal.aborted) return;
      setText(problem, error.message);
      problem.hidden = false;
    }
  }

  const again = setInterval(refresh, EVERY);
  refresh();
  return () => {
    clearInterval(again);
    leaving.abort();
  };
}
