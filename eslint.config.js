import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: [".venv/", ".cache/", "services/aurum/api/console/vendor/"] },
  js.configs.recommended,
  {
    rules: {
      complexity: ["error", 10],
      eqeqeq: "error",
      "no-shadow": "error",
      "no-var": "error",
      "prefer-const": "error",
    },
  },
  { files: ["services/aurum/api/console/*.js"], languageOptions: { globals: globals.browser } },
  { files: ["*.js", "tests/console/*.js"], languageOptions: { globals: { ...globals.node, ...globals.browser } } },
];
