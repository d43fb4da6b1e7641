// @ts-check
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

const VENDOR = new URL("../../services/aurum/api/console/vendor/", import.meta.url);
const PACKAGE = new URL("../../node_modules/uplot/dist/", import.meta.url);

test("vendored uPlot is that of the package whose types are checked", async () => {
  for (const name of ["uPlot.iife.min.js", "uPlot.min.css"]) {
    assert.ok((await readFile(new URL(name, VENDOR))).equals(await readFile(new URL(name, PACKAGE))), name);
  }
});
