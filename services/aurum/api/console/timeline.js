// The range of time that a machine's charts show: it ends now and moves on, or stands still where somebody looks.

import { h, setText } from "./dom.js";
import { moment, now } from "./format.js";
import { t } from "./text.js";

const RANGES = { "15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000 };
const SHORTEST = 5; // seconds

export function timeline(onChange) {
  let span = RANGES["1h"];
  let end = null; // seconds since 1970; null while it is now
  const label = h("span", { class: "range-label", role: "status" });
  const buttons = Object.entries(RANGES).map(([name, seconds]) =>
    h("button", { type: "button", "data-span": seconds, on: { click: () => set(seconds, null) } }, t(`range.${name}`)),
  );
  const move = (sign) => () => set(span, range()[1] + (sign * span) / 2);
  const zoom = (factor) => () => {
    const [start, last] = range();
    const middle = (start + last) / 2;
    set(span * factor, end === null ? null : middle + (span * factor) / 2);
  };
  const action = (key, sign, act) =>
    h("button", { type: "button", "aria-label": t(key), title: t(key), on: { click: act } }, sign);
  const live = h("button", { type: "button", class: "live", on: { click: () => set(span, null) } }, t("range.live"));

  function set(seconds, until) {
    span = Math.min(RANGES["30d"], Math.max(SHORTEST, seconds));
    end = until !== null && until < now() / 1000 ? until : null;
    show();
    onChange();
  }

  function show() {
    for (const button of buttons) button.setAttribute("aria-pressed", String(Number(button.dataset.span) === span));
    live.setAttribute("aria-pressed", String(end === null));
    const [start, last] = range();
    setText(label, end === null ? "" : `${moment(start * 1000)} – ${moment(last * 1000)}`);
  }

  function range() {
    const last = end ?? now() / 1000;
    return [last - span, last];
  }

  const element = h(
    "div",
    { class: "timeline", role: "group", "aria-label": t("range.label") },
    buttons,
    action("range.back", "←", move(-1)),
    action("range.forward", "→", move(1)),
    action("range.in", "+", zoom(0.5)),
    action("range.out", "−", zoom(2)),
    live,
    label,
  );
  show();
  return {
    element,
    range,
    isLive: () => end === null,
    zoomTo: (start, last) => set(last - start, last),
  };
}
