// @ts-check
// The time range of a machine's charts. It ends now and moves on, or stands still where the user has zoomed or moved to.

import { h, setText } from "./dom.js";
import { moment, now } from "./format.js";
import { t } from "./text.js";

const RANGES = { "15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000 };
const SHORTEST = 5; // seconds

/**
 * Makes the control of the time range.
 * @param {() => void} onChange
 */
export function timeline(onChange) {
  let span = RANGES["1h"];
  /** @type {number | null} */
  let end = null; // seconds since 1970; null for now

  /** @returns {[number, number]} Start and end, in seconds since 1970. */
  function range() {
    const last = end ?? now() / 1000;
    return [last - span, last];
  }

  /**
   * @param {number} seconds
   * @param {number | null} until
   */
  function set(seconds, until) {
    span = Math.min(RANGES["30d"], Math.max(SHORTEST, seconds));
    end = until !== null && until < now() / 1000 ? until : null;
    show();
    onChange();
  }

  /** @param {number} sign */
  const move = (sign) => () => set(span, range()[1] + (sign * span) / 2);

  /** @param {number} factor */
  const zoom = (factor) => () => {
    const [start, last] = range();
    set(span * factor, end === null ? null : (start + last + span * factor) / 2);
  };

  /**
   * @param {string} key
   * @param {string} sign
   * @param {() => void} click
   */
  const action = (key, sign, click) =>
    h("button", { type: "button", "aria-label": t(key), title: t(key), on: { click } }, sign);

  const label = h("span", { class: "range-label", role: "status" });
  const buttons = Object.entries(RANGES).map(([name, seconds]) => {
    const click = () => set(seconds, null);
    return h("button", { type: "button", "data-span": seconds, on: { click } }, t(`range.${name}`));
  });
  const live = h("button", { type: "button", class: "live", on: { click: () => set(span, null) } }, t("range.live"));
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

  function show() {
    for (const button of buttons) button.setAttribute("aria-pressed", String(Number(button.dataset.span) === span));
    live.setAttribute("aria-pressed", String(end === null));
    const [start, last] = range();
    setText(label, end === null ? "" : `${moment(start * 1000)} – ${moment(last * 1000)}`);
  }

  show();
  return {
    element,
    range,
    isLive: () => end === null,
    /**
     * @param {number} start
     * @param {number} last
     */
    zoomTo: (start, last) => set(last - start, last),
  };
}
