// @ts-check
// Three ways to send readings of an own machine, as commands that are ready to copy.

import { h, setText } from "./dom.js";
import { currentSession } from "./session.js";
import { t } from "./text.js";

const COPIED_FOR = 2000; // ms
const MACHINE = "my-machine";

/**
 * Returns the commands by the name of their step.
 * @param {string} origin The address of the API.
 * @param {boolean} needsKey Whether callers have to authenticate.
 */
export function commands(origin, needsKey) {
  const key = needsKey ? ` \\\n  --header "X-API-Key: $AURUM_API_KEY"` : "";
  const json = ` \\\n  --header 'Content-Type: application/json'${key}`;
  const now = `'"$(date +%s)"'`;
  return {
    key: "export AURUM_API_KEY=$(.venv/bin/aurum key create my-devices --role ingest --role engineer)",
    send:
      `curl --fail-with-body ${origin}/api/readings${json} \\\n` +
      `  --data '{"readings": [{"machine_id": "${MACHINE}", "sensor": "temperature_c", "timestamp": ${now}, "value": 21.5}]}'`,
    register:
      `curl --fail-with-body ${origin}/api/machines${json} \\\n` +
      `  --data '{"machine_id": "${MACHINE}", "machine_type": "pump", "site": "my-site"}'`,
    table:
      `printf 'machine_id,timestamp,temperature_c,power_kw\\n${MACHINE},%s,21.7,4.2\\n' ` +
      `"$(date -u +%Y-%m-%dT%H:%M:%SZ)" > readings.csv`,
    upload:
      `curl --fail-with-body ${origin}/api/readings \\\n  --header 'Content-Type: text/csv'${key} \\\n` +
      `  --data-binary @readings.csv`,
    broker: "mosquitto -p 1883 &",
    inputs: [
      "cat > inputs.yaml <<'END'",
      "inputs:",
      "  - name: my-broker",
      "    protocol: mqtt",
      "    broker: {host: 127.0.0.1, port: 1883}",
      '    topics: [{pattern: "plant/{machine}/state", timestamp: ts}]',
      "END",
      ".venv/bin/aurum edge check inputs.yaml",
    ].join("\n"),
    restart: "AURUM_EDGE_INPUTS=inputs.yaml make run",
    publish: `mosquitto_pub -p 1883 -q 1 -t plant/${MACHINE}/state -m "{\\"ts\\": $(date +%s), \\"temperature_c\\": 21.9}"`,
  };
}

/**
 * Shows a command with a button that copies it.
 * @param {string} name
 * @param {string} command
 */
function commandBlock(name, command) {
  const copy = h("button", { type: "button", "aria-label": t("connect.copy.label", { name: t(`connect.${name}`) }) });
  setText(copy, t("connect.copy"));
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      setText(copy, t("connect.copied"));
    } catch (error) {
      console.info("the command cannot be copied:", error);
      setText(copy, t("connect.not_copied"));
    }
    setTimeout(() => setText(copy, t("connect.copy")), COPIED_FOR);
  });
  const label = t(`connect.${name}`);
  return [
    h("p", {}, label),
    h(
      "div",
      { class: "command" },
      h("pre", { tabindex: "0", "aria-label": label }, h("code", { "data-command": name }, command)),
      copy,
    ),
  ];
}

/**
 * Opens the page.
 * @param {HTMLElement} main
 */
export function open(main) {
  const needsKey = Boolean(currentSession().asked);
  const all = commands(location.origin, needsKey);
  /**
   * @param {string} way
   * @param {(keyof typeof all)[]} names
   */
  const section = (way, names) =>
    h(
      "section",
      { class: "card", "data-way": way },
      h("h2", {}, t(`connect.way.${way}`)),
      names.map((name) => commandBlock(name, all[name])),
    );
  main.append(
    h("h1", {}, t("nav.connect")),
    h("p", {}, t("connect.text")),
    needsKey ? section("key", ["key"]) : "",
    section("curl", ["send", "register"]),
    section("csv", ["table", "upload"]),
    section("mqtt", ["broker", "inputs", "restart", "publish"]),
    h("p", {}, h("a", { href: `/machines/${MACHINE}` }, t("connect.look"))),
  );
  return () => {};
}
