// @ts-check
import assert from "node:assert/strict";
import { test } from "node:test";

import { comparisonAddress, MOST_MACHINES, readComparison } from "../../services/aurum/api/console/comparison.js";

test("address restores the comparison that it was made of", () => {
  for (const comparison of [
    { sensor: "", machines: [] },
    { sensor: "vibration_mm_s", machines: ["pump-1", "Kühlturm 7/A & B%"] },
  ]) {
    const address = new URL(comparisonAddress(comparison), "http://plant");
    assert.equal(address.pathname, "/compare");
    assert.deepEqual(readComparison(address.search), comparison);
  }
});

test("address with too many or repeated machines is cut", () => {
  const machines = Array.from({ length: 20 }, (_, number) => `m-${number % 12}`);
  const read = readComparison(new URL(comparisonAddress({ sensor: "x", machines }), "http://plant").search);
  assert.deepEqual(read.machines, machines.slice(0, MOST_MACHINES));
});
