// @ts-check
// The platform: its services as a map, its processes with their policies, notable requests, and fault injection.

import { messageOf, request } from "./api.js";
import { h, headings, problemLine, setText, showProblem, tableOf, wideRegion } from "./dom.js";
import { inputTable } from "./edge_inputs.js";
import { clock, duration, number, percent } from "./format.js";
import { serviceMap } from "./map.js";
import { mayMake } from "./session.js";
import { t } from "./text.js";
import { waterfall } from "./waterfall.js";

/** @import { Instance, Limit, PageContext, Platform, ReachableInstance, Target, Traces, TraceSummary, UnreachableInstance }
 *   from "./types.d.ts" */

const REFRESH_EVERY = 2000; // ms
const FAULT_SECONDS = 30;
const FAULTS = {
  slow: { kind: "delay", delay: "1s" },
  fail: { kind: "error", code: "UNAVAILABLE" },
  stop: { kind: "abort" },
};
const FAULT_NAMES = /** @type {(keyof typeof FAULTS)[]} */ (Object.keys(FAULTS));
const STOPPING_METHODS = { prediction: "Predict*", ingestion: "Query*", edge: "[IW]*" }; // the next call stops the service
const FAULTY_SERVICES = /** @type {(keyof typeof STOPPING_METHODS)[]} */ (Object.keys(STOPPING_METHODS));

/** @param {number | null | undefined} value */
const rate = (value) => (value === null || value === undefined ? "–" : `${number(value)}/s`);

/**
 * @param {string} state Colours the badge.
 * @param {string} text
 * @param {string} [title]
 */
const badge = (state, text, title) => h("span", { class: "badge", "data-state": state, title }, text);

/** @param {UnreachableInstance} instance */
const unreachableRow = ({ service, address, reason }) =>
  h(
    "tr",
    { "data-instance": service },
    h("th", { scope: "row" }, service),
    h("td", {}, address),
    h("td", { colspan: 6 }, h("small", {}, reason)),
    h("td", {}, badge("fault", t("platform.down"))),
  );

/** @param {ReachableInstance} instance */
const stateCell = ({ missing, refused, faults }) =>
  h(
    "td",
    {},
    missing.length ? badge("stale", t("platform.starting")) : badge("running", t("platform.up")),
    missing.length ? h("small", {}, ` ${missing.join(", ")}`) : null,
    refused ? badge("fault", t("platform.refused"), refused.reason) : null,
    faults.length ? badge("stale", t("platform.faults", { n: faults.length })) : null,
  );

/** @param {ReachableInstance["spool"]} spool */
function spoolText(spool) {
  if (!spool) return "–";
  const { batches, oldest_seconds: oldest } = spool;
  return t("platform.spool", { batches: number(batches), n: batches, age: duration(oldest) });
}

/** @param {ReachableInstance} instance */
const reachableRow = (instance) =>
  h(
    "tr",
    { "data-instance": instance.service },
    h("th", { scope: "row" }, instance.service),
    h("td", {}, instance.instance, h("small", {}, ` ${instance.pid}`)),
    h("td", {}, rate(instance.rates?.requests_per_second)),
    h("td", {}, percent(instance.rates?.error_ratio, 1)),
    h("td", {}, instance.rates?.p95_seconds ? duration(instance.rates.p95_seconds) : "–"),
    h("td", { title: instance.policy.hash }, String(instance.policy.generation)),
    h("td", {}, spoolText(instance.spool)),
    h("td", {}, duration(instance.uptime_seconds)),
    stateCell(instance),
  );

const PROCESS_COLUMNS = ["service", "instance", "requests", "errors", "p95", "generation", "spool", "uptime", "state"];

/** @param {Instance[]} instances */
const processTable = (instances) =>
  tableOf({
    label: t("platform.processes"),
    head: headings(PROCESS_COLUMNS.map((key) => t(`process.${key}`))),
    rows: instances.map((each) => (each.reachable ? reachableRow(each) : unreachableRow(each))),
  });

/** @param {Limit} limit */
const limitText = (limit) => `${number(limit.in_flight)} / ${number(limit.limit)}`;

/**
 * @param {Target} target
 * @param {string} instance
 */
const targetRow = ({ name, breaker, window: calls, retry_budget_tokens: tokens, limit }, instance) =>
  h(
    "tr",
    { "data-target": name },
    h("th", { scope: "row" }, name),
    h("td", {}, instance),
    h(
      "td",
      {},
      h("span", { class: "badge", "data-breaker": breaker }, t(`breaker.${breaker}`)),
      calls ? h("small", {}, ` ${t("breaker.window", { failures: calls.failures, calls: calls.calls })}`) : null,
    ),
    h("td", {}, number(tokens)),
    h("td", {}, limitText(limit)),
  );

/**
 * @param {Limit} limit Of a server, which has neither breaker nor retries.
 * @param {ReachableInstance} instance
 */
const limitRow = (limit, { service, instance }) =>
  h(
    "tr",
    {},
    h("th", { scope: "row" }, limit.name ?? service),
    h("td", {}, instance),
    h("td", {}, "–"),
    h("td", {}, "–"),
    h("td", {}, limitText(limit)),
  );

/** @param {Instance[]} instances */
function policyTable(instances) {
  const up = instances.filter((each) => each.reachable);
  return tableOf({
    label: t("platform.policies"),
    head: headings(["target", "instance", "breaker", "budget", "limit"].map((key) => t(`policy.${key}`))),
    rows: [
      ...up.flatMap((each) => each.targets.map((target) => targetRow(target, each.instance))),
      ...up.flatMap((each) => each.limits.map((limit) => limitRow(limit, each))),
    ],
  });
}

/**
 * Lists notable requests. Each is a button that shows its spans.
 * @param {TraceSummary[]} items
 * @param {(traceId: string) => void} choose
 * @param {string | null} chosen
 */
function traceList(items, choose, chosen) {
  if (!items.length) return h("p", { class: "nothing" }, t("traces.none"));
  /** @param {TraceSummary} trace */
  const button = ({ trace_id: traceId, name, start, seconds, reason, detail }) =>
    h(
      "button",
      {
        type: "button",
        "data-trace": traceId,
        "aria-pressed": String(traceId === chosen),
        on: { click: () => choose(traceId) },
      },
      badge(reason === "slow" ? "stale" : "fault", t(`trace.${reason}`)),
      " ",
      h("b", {}, name),
      ` ${duration(seconds)} `,
      h("small", {}, `${clock(start * 1000)} ${detail}`),
    );
  return h(
    "ul",
    { class: "traces" },
    items.map((trace) => h("li", {}, button(trace))),
  );
}

/**
 * Makes the buttons that inject faults.
 * @param {(action: () => Promise<unknown>, text: string) => void} perform Performs an action, then shows a text.
 */
function faultTable(perform) {
  /**
   * @param {keyof typeof STOPPING_METHODS} service
   * @param {keyof typeof FAULTS} name
   */
  const inject = (service, name) => () => {
    const method = name === "stop" ? STOPPING_METHODS[service] : "*";
    const body = { ...FAULTS[name], method, duration: `${FAULT_SECONDS}s` };
    const text = t(`fault.started.${name}`, { service, seconds: FAULT_SECONDS });
    perform(() => request(`/api/platform/faults/${service}`, { method: "POST", body }), text);
  };

  /** @param {keyof typeof STOPPING_METHODS} service */
  const clear = (service) => () =>
    perform(() => request(`/api/platform/faults/${service}`, { method: "DELETE" }), t("fault.cleared", { service }));

  const rows = FAULTY_SERVICES.map((service) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, service),
      h(
        "td",
        { class: "actions" },
        FAULT_NAMES.map((name) =>
          h(
            "button",
            { type: "button", "data-fault": `${service}-${name}`, on: { click: inject(service, name) } },
            t(`fault.${name}`),
          ),
        ),
        h("button", { type: "button", on: { click: clear(service) } }, t("fault.clear")),
      ),
    ),
  );
  return tableOf({ class: "faults", rows });
}

/**
 * Opens the page.
 * @param {HTMLElement} main
 * @param {PageContext} context
 */
export function open(main, { console: settings }) {
  const leaving = new AbortController();
  const { signal } = leaving;
  const map = serviceMap();
  const processes = wideRegion(t("platform.processes"));
  const policies = wideRegion(t("platform.policies"));
  const inputs = wideRegion(t("platform.inputs"));
  const problem = problemLine();
  const traces = h("div");
  const detail = h("div", { class: "waterfall" });
  const happened = h("p", { role: "status", class: "happened" });
  /** @type {string | null} */
  let chosen = null;

  /**
   * @param {() => Promise<unknown>} action
   * @param {string} text
   */
  async function perform(action, text) {
    try {
      await action();
      setText(happened, text);
    } catch (error) {
      setText(happened, messageOf(error));
    }
    refresh();
  }

  const faults = h(
    "section",
    { class: "card", "data-card": "faults" },
    h("h2", {}, t("platform.faults.title")),
    h("p", {}, t("platform.faults.text")),
    faultTable(perform),
    happened,
  );
  main.append(
    h("h1", {}, t("nav.platform")),
    problem,
    map.element,
    ...(settings.faults_enabled && mayMake("POST /api/platform/faults/{service}") ? [faults] : []),
    h("h2", {}, t("platform.traces")),
    traces,
    detail,
    h("h2", {}, t("platform.processes")),
    processes,
    h("h2", {}, t("platform.inputs")),
    inputs,
    h("h2", {}, t("platform.policies")),
    policies,
  );

  /** @param {string} traceId */
  async function choose(traceId) {
    chosen = traceId;
    try {
      const trace = await request(`/api/platform/traces/${traceId}`, { signal });
      if (chosen === traceId) detail.replaceChildren(...waterfall(trace, settings));
    } catch (error) {
      if (!signal.aborted && chosen === traceId) detail.replaceChildren(h("p", { class: "nothing" }, messageOf(error)));
    }
    refresh();
  }

  async function refreshTraces() {
    if (!settings.traces_kept) {
      const link = settings.jaeger_url ? h("a", { href: settings.jaeger_url }, "Jaeger") : null;
      traces.replaceChildren(h("p", { class: "nothing" }, t("traces.elsewhere"), " ", link));
      return;
    }
    /** @type {Traces} */
    const { items } = await request("/api/platform/traces", { signal });
    const key = `${chosen} ${items.map((each) => each.trace_id).join()}`;
    if (traces.dataset.key === key) return; // nothing is new, so the keyboard's focus stays where it is
    traces.dataset.key = key;
    traces.replaceChildren(traceList(items, choose, chosen));
  }

  async function refresh() {
    if (document.hidden) return;
    try {
      /** @type {Platform} */
      const { instances } = await request("/api/platform", { signal });
      map.show(instances);
      processes.replaceChildren(processTable(instances));
      inputs.replaceChildren(inputTable(instances));
      policies.replaceChildren(policyTable(instances));
      await refreshTraces();
      showProblem(problem, "");
    } catch (error) {
      if (!signal.aborted) showProblem(problem, messageOf(error));
    }
  }

  const refreshing = setInterval(refresh, REFRESH_EVERY);
  refresh();
  return () => {
    clearInterval(refreshing);
    leaving.abort();
  };
}
