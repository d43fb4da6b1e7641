// The live table of machines: state comes by server-sent events, the page draws at most twice a second.

const SHOWN = 500;
const machines = new Map();
let total = 0;
let dirty = false;

const byId = (id) => document.getElementById(id);
const text = (tag, content, className = "") => {
  const element = document.createElement(tag);
  element.textContent = content;
  element.className = className;
  return element;
};

function age(isoTime) {
  if (!isoTime) return "never";
  const seconds = Math.max(0, (Date.now() - Date.parse(isoTime)) / 1000);
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h ago`;
  return new Date(isoTime).toLocaleDateString();
}

function riskCell(machine) {
  const cell = text("td", "", "number");
  if (machine.risk_score === null) {
    cell.append(text("small", "not yet known"));
    return cell;
  }
  const meter = document.createElement("meter");
  Object.assign(meter, { min: 0, max: 1, low: 0.3, high: 0.7, optimum: 0, value: machine.risk_score });
  meter.setAttribute("aria-label", `risk of ${machine.machine_id}`);
  cell.append(meter, `${(100 * machine.risk_score).toFixed(0)} %`);
  if (machine.degraded) cell.append(" ", text("small", "by rule"));
  return cell;
}

function lifeCell(rul) {
  const cell = text("td", "", "number");
  if (!rul) return cell;
  cell.append(`${rul.estimate.toFixed(0)} ${rul.unit} `, text("small", `${rul.lower.toFixed(0)}–${rul.upper.toFixed(0)}`));
  return cell;
}

function valuesOf(machine) {
  const values = Object.entries(machine.values).filter(([sensor, value]) => value !== null && sensor !== "fault");
  return values.slice(0, 4).map(([sensor, value]) => `${sensor} ${Number(value.toPrecision(4))}`).join(" · ");
}

function row(machine) {
  const element = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  const link = text("a", machine.machine_id);
  link.href = `/api/machines/${encodeURIComponent(machine.machine_id)}`;
  name.append(link);
  const state = document.createElement("td");
  state.append(text("span", machine.status, `badge ${machine.status}`));
  element.append(name, text("td", machine.machine_type), text("td", machine.site), state, riskCell(machine),
    lifeCell(machine.rul), text("td", valuesOf(machine), "values"), text("td", age(machine.last_seen), "number"));
  return element;
}

function draw() {
  const wanted = byId("search").value.trim().toLowerCase();
  const state = byId("state").value;
  const matching = [...machines.values()].filter((machine) =>
    (!state || machine.status === state)
    && (!wanted || `${machine.machine_id} ${machine.machine_type} ${machine.site}`.toLowerCase().includes(wanted)));
  matching.sort((a, b) => (b.risk_score ?? -1) - (a.risk_score ?? -1) || a.machine_id.localeCompare(b.machine_id));
  byId("machines").replaceChildren(...matching.slice(0, SHOWN).map(row));
  byId("empty").hidden = machines.size > 0;
  byId("more").hidden = matching.length <= SHOWN;
  byId("more").textContent = `${matching.length - SHOWN} more match; narrow the search to see them.`;
  const atRisk = [...machines.values()].filter((machine) => machine.risk_score >= 0.5).length;
  const faulty = [...machines.values()].filter((machine) => machine.status === "fault").length;
  byId("summary").textContent = `${total} machines · ${atRisk} with a risk of 50 % or more · ${faulty} with a fault`;
}

function connect() {
  const events = new EventSource("/api/events");
  events.addEventListener("machines", (event) => {
    const update = JSON.parse(event.data);
    total = update.total;
    for (const machine of update.machines) machines.set(machine.machine_id, machine);
    byId("offline").hidden = true;
    dirty = true;
    if (!byId("machines").hasChildNodes()) draw();
  });
  events.addEventListener("error", () => { byId("offline").hidden = false; });
}

byId("filters").addEventListener("input", draw);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
setInterval(() => { if (dirty) { dirty = false; draw(); } }, 500);
connect();
