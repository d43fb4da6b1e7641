"""Writes what is generated; with --check, fails if a file is not current."""

import argparse
import sys
from pathlib import Path

from charts.telemetry.dashboards import PAGES
from charts.telemetry.dashboards.grafana import dashboard_json
from charts.telemetry.rules import RULES_FILE, rule_tests, rules

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "observability"


def pages() -> dict[Path, str]:
    """Returns the generated files with their content: alert rules, their tests and dashboards."""
    tests = ROOT / "tests" / "cluster" / "rules.test.yaml"
    return {
        CHART / "rules" / RULES_FILE: rules(),
        tests: rule_tests(f"../../charts/observability/rules/{RULES_FILE}"),
        **{CHART / "dashboards" / f"{page.name}.json": dashboard_json(page) for page in PAGES},
    }


def main() -> None:
    """Writes, checks or prints the generated files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument(
        "--faster",
        type=int,
        metavar="TIMES",
        help="print the rules with shorter windows and waits, to try alerts; write nothing",
    )
    arguments = parser.parse_args()
    if arguments.faster:
        print(rules(arguments.faster), end="")
        return
    check = arguments.check
    for path, page in pages().items():
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(page, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != page:
            sys.exit(f"{path.relative_to(ROOT)} is not current; run `make telemetry`")


if __name__ == "__main__":
    main()
