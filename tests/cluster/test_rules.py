"""The rules without a cluster: promtool's tests of each alert, and runbooks that are there."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts.telemetry.alerts import ALERTS

from tests.cluster import kube
from tests.cluster.kube import CHARTS, HERE, ROOT

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


def test_the_rules_are_valid(promtool: str) -> None:
    kube.run(promtool, "check", "rules", "--lint-fatal", str(RULES))


def test_each_alert_fires_and_clears_when_it_should(promtool: str) -> None:
    kube.run(promtool, "test", "rules", str(HERE / "rules.test.yaml"), timeout=600)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_is_tested_both_ways(alert: Any) -> None:
    assert {case.fires for case in alert.cases} == {True, False}
    assert len(alert.cases) >= 3, "what fires it, what is just below, and its clearing"


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    urls = {rule["annotations"]["runbook_url"] for rule in rules() if "alert" in rule}
    assert urls == {str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "runbooks").glob("*.md")}


def test_the_queries_of_the_runbooks_are_valid(promtool: str, tmp_path: Path) -> None:
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
