"""The rules without a cluster: promtool's tests of each alert, and runbooks that are there."""

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts.telemetry.alerts import ALERTS, Alert

from tests.support.cluster import kube
from tests.support.cluster.kube import CHARTS, ROOT, TESTS

RULES = CHARTS / "observability" / "rules" / "aurumai.rules.yaml"


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on the PATH")
    return found


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def test_prometheus_rules_pass_promtool_check(promtool: str) -> None:
    """promtool finds no error in the Prometheus rules."""
    kube.run(promtool, "check", "rules", "--lint-fatal", str(RULES))


@pytest.fixture(scope="module")
def suite() -> dict[str, Any]:
    """promtool's tests of all rules."""
    return dict(yaml.safe_load((TESTS / "rules.test.yaml").read_text()))


def asked(tests: Sequence[dict[str, Any]]) -> str:
    return " ".join(each["expr"] for test in tests for each in test["promql_expr_test"])


def check(promtool: str, folder: Path, suite: dict[str, Any], tests: Sequence[dict[str, Any]]) -> None:
    """Some of the tests, on those rules alone that they ask for: a day of all rules, minute by minute, takes long."""
    wanted = asked(tests)
    alerts = [rule for rule in rules() if rule.get("alert") in re.findall(r'alertname="(\w+)"', wanted)]
    recorded = re.findall(r"aurumai:[\w:]+", " ".join((wanted, *(rule["expr"] for rule in alerts))))
    records = [rule for rule in rules() if rule.get("record") in recorded]
    groups = [{"name": name, "rules": each} for name, each in (("records", records), ("alerts", alerts)) if each]
    (folder / "some.rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    file = folder / "some.test.yaml"
    file.write_text(yaml.safe_dump({**suite, "rule_files": ["some.rules.yaml"], "tests": list(tests)}))
    kube.run(promtool, "test", "rules", str(file), timeout=600)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_passes_its_promtool_cases(
    promtool: str, tmp_path: Path, suite: dict[str, Any], alert: Alert
) -> None:
    """Each alert fires and clears in promtool's cases as it should."""
    tests = [test for test in suite["tests"] if f'alertname="{alert.name}"' in asked([test])]
    assert len(tests) == len(alert.cases)
    check(promtool, tmp_path, suite, tests)


def test_recording_rules_match_values_computed_by_hand(promtool: str, tmp_path: Path, suite: dict[str, Any]) -> None:
    """Recording rules yield the values that were computed by hand."""
    tests = [test for test in suite["tests"] if "alertname" not in asked([test])]
    assert tests
    check(promtool, tmp_path, suite, tests)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_has_firing_and_silent_cases(alert: Alert) -> None:
    """Each alert has at least three cases, among them some that fire and some that do not."""
    assert {case.fires for case in alert.cases} == {True, False}
    assert len(alert.cases) >= 3, "what fires it, what is just below, and its clearing"


def test_alerts_and_runbooks_correspond() -> None:
    """Each alert has a runbook, and each runbook belongs to an alert."""
    urls = {rule["annotations"]["runbook_url"] for rule in rules() if "alert" in rule}
    assert urls == {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "runbooks").glob("*.md")}


def test_runbook_queries_are_valid(promtool: str, tmp_path: Path) -> None:
    """promtool accepts every query in the runbooks."""
    queries = [
        line.split("  #")[0].strip()
        for path in sorted((ROOT / "docs" / "runbooks").glob("*.md"))
        for block in re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL)
        for line in block.splitlines()
    ]
    records = [{"record": f"q{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": records}]}))
    kube.run(promtool, "check", "rules", "--lint=none", str(file))
