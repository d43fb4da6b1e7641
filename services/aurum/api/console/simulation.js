// @ts-check
// The banner of a simulated plant: its speed, how far the training of the first models is, and the way to real machines.

import { messageOf, request } from "./api.js";
import { h, setText, showProblem } from "./dom.js";
import { number } from "./format.js";
import { t, textOr } from "./text.js";

/** @import { ConsoleSettings, ModelTraining } from "./types.d.ts" */

const REFRESH_EVERY = 3000; // ms, while models are trained

/** @param {ModelTraining[]} trainings */
export function trainingText(trainings) {
  const count = (/** @type {string} */ state) => trainings.filter((each) => each.state === state).length;
  const [done, failed] = [count("done"), count("failed")];
  if (done + failed === trainings.length) return "";
  return t("simulation.training", { done: number(done), total: number(trainings.length) });
}

/** @param {ModelTraining[]} trainings */
export const failureText = (trainings) =>
  trainings
    .filter((each) => each.state === "failed")
    .map(({ machine_type: type, problem }) =>
      t("simulation.failed", { type: textOr(`type.${type}`, type), problem: problem ?? "" }),
    )
    .join(" ");

/**
 * Shows the banner.
 * @param {HTMLElement} parent
 * @param {number} speed Seconds of machine life per second.
 * @param {ConsoleSettings} settings
 * @returns {() => void} Ends its updates.
 */
export function openSimulation(parent, speed, settings) {
  const training = h("span", { role: "status", "data-training": "" });
  const failure = h("span", { role: "alert", hidden: true });
  const link = h("a", { href: "/connect" }, t("simulation.connect"));
  const text = t("simulation.text", { speed: number(speed) });
  parent.hidden = false;
  parent.replaceChildren(h("p", { class: "banner simulation" }, text, " ", link, " ", training, " ", failure));
  const leaving = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let waiting;

  async function refresh() {
    let unfinished = true;
    try {
      /** @type {{ training: ModelTraining[] }} */
      const { training: trainings } = await request("/api/models", { signal: leaving.signal });
      const progress = trainingText(trainings);
      setText(training, progress);
      showProblem(failure, failureText(trainings));
      unfinished = Boolean(progress);
    } catch (error) {
      if (leaving.signal.aborted) return;
      console.info(`how far the training is cannot be loaded: ${messageOf(error)}`);
    }
    if (unfinished) waiting = setTimeout(refresh, REFRESH_EVERY);
  }

  if (settings.features.predictive) refresh();
  return () => {
    leaving.abort();
    clearTimeout(waiting);
  };
}
