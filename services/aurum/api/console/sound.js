// @ts-check
// A short tone when more alarms are unacknowledged than before. It is off until the user switches it on.

import { plant, subscribe } from "./live.js";
import { remember, setting } from "./settings.js";

/** @type {AudioContext | null} */
let context = null;
/** @type {number | null} */
let unacknowledged = null;

/** Returns whether the tone is switched on. */
export const isSoundOn = () => setting("sound") === "on";

/** Switches the tone on or off, and plays it once when it is switched on. */
export function switchSound() {
  remember("sound", isSoundOn() ? "off" : "on");
  if (isSoundOn()) play(); // browsers allow sound only after a click
}

function play() {
  context ??= new AudioContext();
  const tone = context.createOscillator();
  const volume = context.createGain();
  tone.frequency.value = 880;
  volume.gain.setValueAtTime(0.15, context.currentTime);
  volume.gain.exponentialRampToValueAtTime(0.001, context.currentTime + 0.5);
  tone.connect(volume).connect(context.destination);
  tone.start();
  tone.stop(context.currentTime + 0.5);
}

/** Plays the tone for new alarms, as long as the page is open. */
export function playNewAlarms() {
  subscribe("alarms", () => {
    const count = plant.alarms.counts.unacknowledged ?? 0;
    if (unacknowledged !== null && count > unacknowledged && isSoundOn()) play();
    unacknowledged = count;
  });
}
