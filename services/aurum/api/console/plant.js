// The plant at a glance: totals, and every machine in a table that stays quick with ten thousand.

import { request } from "./api.js";
import { h, onceAFrame, setText } from "./dom.js";
import { age, interval, number, percent, remainingLife, riskLevel, sensorName } from "./format.js";
import { on, plant, statusOf } from "./live.js";
import { longTable } from "./table.js";
import { known, t } from "./text.js";

const ROW_HEIGHT = 44; // px, as .machines in style.css
const SORT_EVERY = 1000; // ms; an order that changes more often cannot be read
const TOTALS_EVERY = 60_000; // ms
const VALUES = 3; // readings in a row
const STATES = ["running", "fault", "stale", "offline", "new"];
const AT_RISK = 0.5;

const view = { search: "", state: "", type: "", site: "", sort: "risk", descending: true }; // kept between visits

const KEYS = {
  machine: (machine) => machine.machine_id,
  type: (machine) => machine.machine_type,
  site: (machine) => machine.site,
  state: (machine) => STATES.indexOf(statusOf(machine)),
  risk: (machine) => machine.risk_score ?? -1,
  life: (machine) => machine.rul?.estimate ?? Infinity,
  seen: (machine) => machine.last_seen ?? "",
};

function matching() {
  const wanted = view.search.trim().toLowerCase();
  const found = [];
  for (const machine of plant.machines.values()) {
    if (view.type && machine.machine_type !== view.type) continue;
    if (view.site && machine.site !== view.site) continue;
    if (view.state && statusOf(machine) !== view.state) continue;
    if (wanted && !`${machine.machine_id} ${machine.machine_type} ${machine.site}`.toLowerCase().includes(wanted))
      continue;
    found.push(machine);
  }
  const key = KEYS[view.sort];
  const sign = view.descending ? -1 : 1;
  return found.sort((a, b) => {
    const left = key(a);
    const right = key(b);
    if (left !== right) return left < right ? -sign : sign;
    return a.machine_id < b.machine_id ? -1 : 1;
  });
}

export function stateBadge() {
  const element = h("span", { class: "badge" });
  return {
    element,
    show(state) {
      if (element.dataset.state === state) return;
      element.dataset.state = state;
      setText(element, t(`state.${state}`));
    },
  };
}

function makeRow() {
  const link = h("a", {});
  const state = stateBadge();
  const bar = h("i", {});
  const risk = h("b", {});
  const rule = h("small", {});
  const life = h("span", {});
  const range = h("small", {});
  const cells = ["type", "site", "values", "seen"].map((name) => [name, h("td", { class: name })]);
  const { type, site, values, seen } = Object.fromEntries(cells);
  const element = h(
    "tr",
    { class: "machine" },
    h("th", { scope: "row" }, link),
    type,
    site,
    h("td", {}, state.element),
    h("td", { class: "risk" }, h("span", { class: "bar", "aria-hidden": "true" }, bar), risk, " ", rule),
    h("td", { class: "life" }, life, " ", range),
    values,
    seen,
  );
  return {
    element,
    show(machine) {
      const id = machine.machine_id;
      if (link.textContent !== id) {
        link.textContent = id;
        link.href = `/machines/${encodeURIComponent(id)}`;
      }
      setText(type, known(`type.${machine.machine_type}`, machine.machine_type));
      setText(site, machine.site);
      state.show(statusOf(machine));
      bar.style.width = `${100 * (machine.risk_score ?? 0)}%`;
      bar.dataset.level = riskLevel(machine.risk_score);
      setText(risk, machine.risk_score === null ? t("unknown") : percent(machine.risk_score));
      setText(rule, machine.degraded ? t("by_rule") : "");
      setText(life, remainingLife(machine.rul));
      setText(range, interval(machine.rul));
      setText(values, readings(machine));
      setText(seen, age(machine.last_seen));
    },
  };
}

function readings(machine) {
  const found = [];
  for (const [sensor, value] of Object.entries(machine.values)) {
    if (value === null || sensor === "fault" || sensor === "operating_hours") continue;
    const { name, unit } = sensorName(sensor);
    found.push(`${name} ${number(value)} ${unit}`.trim());
    if (found.length === VALUES) break;
  }
  return found.join(" · ");
}

function tile(name) {
  const value = h("b", {});
  const note = h("span", {});
  const element = h("div", { class: "tile", "data-tile": name }, h("h2", {}, t(`tile.${name}`)), value, note);
  return {
    element,
    show(text, more, level = "", unit = "") {
      if (value.textContent !== `${text}${unit}`) value.replaceChildren(text, unit ? h("small", {}, unit) : "");
      setText(note, more);
      element.dataset.level = level;
    },
  };
}

function showCounts(tiles) {
  const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
  let atRisk = 0;
  let highest = null;
  for (const machine of plant.machines.values()) {
    counts[statusOf(machine)] += 1;
    if (machine.risk_score >= AT_RISK) atRisk += 1;
    if (machine.risk_score !== null && (highest === null || machine.risk_score > highest.risk_score)) highest = machine;
  }
  const others = STATES.filter((state) => counts[state] && state !== "running");
  tiles.machines.show(
    number(plant.total),
    others.length
      ? others.map((state) => `${counts[state]} ${t(`state.${state}`)}`).join(" · ")
      : t("tile.machines.well"),
    counts.fault ? "high" : counts.stale + counts.offline ? "medium" : "low",
  );
  tiles.risk.show(
    number(atRisk),
    highest
      ? t("tile.risk.highest", {
          machine: highest.machine_id,
          risk: percent(highest.risk_score),
        })
      : t("unknown"),
    atRisk ? "high" : "low",
  );
  const waiting = (plant.alarms.counts.unacknowledged ?? 0) + (plant.alarms.counts.returned ?? 0);
  tiles.alarms.show(
    plant.alarms.loaded ? number(waiting) : "–",
    t("tile.alarms.more", {
      acknowledged: plant.alarms.counts.acknowledged ?? 0,
      shelved: plant.alarms.counts.shelved ?? 0,
    }),
    waiting ? "high" : "low",
  );
}

async function showUse(tiles, features, signal) {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  const shown = { energy: ["energy_kwh", "kWh"], carbon: ["carbon_kgco2e", "kg CO₂e"], water: ["water_litres", "l"] };
  let used;
  try {
    used = await request(`/api/today?midnight=${encodeURIComponent(midnight.toISOString())}`, { signal });
  } catch (error) {
    if (error.name !== "AbortError") for (const name of Object.keys(shown)) tiles[name]?.show("–", error.message);
    return;
  }
  for (const [name, [field, unit]] of Object.entries(shown)) {
    if (!features[name]) continue;
    const use = used[field];
    if (!use) tiles[name].show("–", used.notes.find((note) => note.startsWith(`${name}:`)) ?? t("tile.use.none"));
    else if (!use.usual) tiles[name].show(number(use.amount), t("tile.use.no_history"), "", ` ${unit}`);
    else {
      const more = use.amount / use.usual - 1;
      tiles[name].show(
        number(use.amount),
        t("tile.use.against", {
          change: `${more > 0 ? "+" : ""}${percent(more)}`,
          usual: `${number(use.usual)} ${unit}`,
        }),
        more > 0.1 ? "medium" : "low",
        ` ${unit}`,
      );
    }
  }
}

function chooser(name, onChange) {
  const select = h("select", {
    on: {
      change: () => {
        view[name] = select.value;
        onChange();
      },
    },
  });
  return {
    element: h("label", {}, t(`filter.${name}`), " ", select),
    show(values, text) {
      const wanted = ["", ...values];
      if (
        select.options.length === wanted.length &&
        wanted.every((value, index) => select.options[index].value === value)
      )
        return;
      select.replaceChildren(...wanted.map((value) => h("option", { value }, value ? text(value) : t("filter.all"))));
      select.value = view[name];
    },
  };
}

const distinct = (field) =>
  [...new Set([...plant.machines.values()].map((each) => each[field]).filter(Boolean))].sort();

function firstRun() {
  const command = (text) => h("pre", { tabindex: "0" }, h("code", {}, text));
  return h(
    "section",
    { class: "empty", hidden: true },
    h("h2", {}, t("first.title")),
    h("p", {}, t("first.text")),
    h("h3", {}, t("first.send")),
    command(
      `curl ${location.origin}/api/readings -H 'Content-Type: application/json' -d '{"readings": [\n` +
        `  {"machine_id": "pump-1", "sensor": "vibration_mm_s", "timestamp": "${new Date().toISOString()}", "value": 2.4}]}'`,
    ),
    h("h3", {}, t("first.import")),
    command("aurum import --format csv --machine-type pump readings.csv"),
    h("h3", {}, t("first.simulate")),
    command("make run"),
  );
}

export function open(main, { console: { features } }) {
  let held = false; // the order, while somebody points at the table
  let sortedAt = -Infinity;
  let order = [];
  let sorted = 0; // machines there were then
  const leaving = new AbortController();
  const tiles = Object.fromEntries(
    ["machines", "risk", "alarms", "energy", "carbon", "water"]
      .filter((name) => features[name] !== false)
      .map((name) => [name, tile(name)]),
  );
  const columns = ["machine", "type", "site", "state", "risk", "life", "values", "seen"].map((key) => ({
    key,
    label: t(`column.${key}`),
    class: key,
    sort: key !== "values",
  }));
  const table = longTable({
    label: t("plant.table"),
    columns,
    rowHeight: ROW_HEIGHT,
    makeRow,
    onSort: (key) => {
      view.descending = view.sort === key ? !view.descending : key === "risk" || key === "seen";
      view.sort = key;
      choose();
    },
  });
  table.element.classList.add("machines");
  table.element.addEventListener("pointerenter", () => {
    held = true;
  });
  table.element.addEventListener("pointerleave", () => {
    held = false;
  });
  const count = h("p", { class: "count-line", role: "status" });
  const search = h("input", {
    type: "search",
    value: view.search,
    placeholder: t("filter.search.hint"),
    on: {
      input: () => {
        view.search = search.value;
        choose();
      },
    },
  });
  const choosers = { state: chooser("state", choose), type: chooser("type", choose), site: chooser("site", choose) };
  const empty = firstRun();
  const loading = h("p", { class: "loading" }, t("loading"));
  const nothing = h("p", { class: "nothing", hidden: true }, t("plant.no_match"));
  const list = h(
    "section",
    { hidden: true },
    h(
      "form",
      { class: "filters", on: { submit: (event) => event.preventDefault() } },
      h("label", {}, t("filter.search"), " ", search),
      Object.values(choosers).map((each) => each.element),
    ),
    count,
    nothing,
    table.element,
  );
  main.append(
    h("h1", { class: "hidden" }, t("nav.plant")),
    h(
      "section",
      { class: "tiles", "aria-label": t("plant.totals") },
      Object.values(tiles).map((each) => each.element),
    ),
    loading,
    empty,
    list,
  );

  function choose() {
    table.element.scrollTop = 0; // what was asked for is at the top
    sort();
  }

  function sort() {
    sortedAt = performance.now();
    sorted = plant.machines.size;
    order = matching();
    table.markSorted(view.sort, view.descending);
    table.setItems(order);
    nothing.hidden = order.length > 0 || !plant.machines.size;
    setText(count, t("plant.shown", { n: number(order.length), total: number(plant.machines.size) }));
  }

  function draw() {
    loading.hidden = plant.known;
    empty.hidden = !plant.known || plant.machines.size > 0;
    list.hidden = !plant.machines.size;
    const more = plant.machines.size !== sorted;
    const due = more || performance.now() - sortedAt > SORT_EVERY;
    if (due) {
      showCounts(tiles);
      choosers.state.show(STATES, (state) => t(`state.${state}`));
      choosers.type.show(distinct("machine_type"), (type) => known(`type.${type}`, type));
      choosers.site.show(distinct("site"), (site) => site);
    }
    if (more || (due && !held)) sort();
    else {
      order = order.map((machine) => plant.machines.get(machine.machine_id) ?? machine);
      table.setItems(order);
    }
  }

  const drawSoon = onceAFrame(draw);
  const stops = [on("machines", drawSoon), on("alarms", () => showCounts(tiles))];
  const ticking = setInterval(drawSoon, 1000); // ages, and machines that fall silent
  const totals = () => showUse(tiles, features, leaving.signal);
  const counting = setInterval(totals, TOTALS_EVERY);
  addEventListener("resize", drawSoon);
  draw();
  totals();
  return () => {
    stops.forEach((stop) => stop());
    clearInterval(ticking);
    clearInterval(counting);
    removeEventListener("resize", drawSoon);
    leaving.abort();
  };
}
