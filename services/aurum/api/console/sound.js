// A short tone when there are more alarms that wait than before; off until somebody switches it on.

import { on, plant } from "./live.js";
import { remember, setting } from "./settings.js";

let context = null;
let waiting = null;

export const playsSound = () => setting("sound") === "on";

export function switchSound() {
  remember("sound", playsSound() ? "off" : "on");
  if (playsSound()) play(); // what it sounds like; browsers also want a click before the first tone
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

export function followAlarms() {
  on("alarms", () => {
    const now = plant.alarms.counts.unacknowledged ?? 0;
    if (waiting !== null && now > waiting && playsSound()) play();
    waiting = now;
  });
}
