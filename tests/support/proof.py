"""Proofs: tests of a claim that take too long, or need too much, to run at every change. `make proof` runs them.

A test is a proof of a topic by `@pytest.mark.proof("topic")`; the first line of its docstring is the claim. A plain run
of pytest leaves proofs out; `--proof TOPIC` runs those of one topic and nothing else.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

TOPICS = {
    "alerts": "tests/cluster/observability",
    "attacks": "tests/faults",
    "api-fuzzing": "tests/security",
    "cassandra": "tests/integration tests/faults",
    "cassandra-release": "tests/cluster",
    "chaos": "tests/faults",
    "connections": "tests/security tests/faults",
    "console": "tests/browser",
    "costs": "tests/faults",
    "devices": "tests/integration",
    "fuzz": "tests/unit/fuzz",
    "matrices": "tests/unit/storage",
    "operator": "tests/cluster/operator",
    "operator-model": "tests/unit/operator",
    "disruption": "tests/cluster",
    "resilience-model": "tests/unit/resilience",
    "security": "tests/security tests/cluster",
    "soak": "tests/cluster/observability",
    "telemetry": "tests/cluster",
    "tenants": "tests/security",
}
"""Each topic, and the folders that its proofs are in."""


@dataclass
class Outcome:
    """What a proof showed. result: passed, failed, error or skipped; detail: why it was skipped, or how it failed."""

    claim: str
    test: str
    result: str
    seconds: float
    detail: str = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("proofs")
    group.addoption("--proof", choices=sorted(TOPICS), help="run the proofs of this topic, and nothing else")
    group.addoption("--proof-report", type=Path, metavar="FILE", help="write their outcomes to this file, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "proof(topic): proves a claim, and runs only with --proof TOPIC")
    if report := config.getoption("--proof-report"):
        config.pluginmanager.register(_Recorder(report))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    topic = config.getoption("--proof")
    chosen = [item for item in items if topic in (_topics(item) or [None])]
    left_out = [item for item in items if item not in set(chosen)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    items[:] = chosen


def _topics(item: pytest.Item) -> list[str]:
    """The topics of a proof; empty for any other test. Raises UsageError where the mark or the claim is wrong."""
    topics = [str(mark.args[0]) for mark in item.iter_markers("proof")]
    for topic in topics:
        if topic not in TOPICS:
            raise pytest.UsageError(f"{item.nodeid}: {topic!r} is not one of the topics {', '.join(sorted(TOPICS))}")
        if not any(item.nodeid.startswith(folder) for folder in TOPICS[topic].split()):
            raise pytest.UsageError(f"{item.nodeid}: the proofs of {topic} are in {TOPICS[topic]}")
    if topics and not _claim(item):
        raise pytest.UsageError(f"{item.nodeid} is a proof without a docstring, whose first line is the claim")
    return topics[:1]


def _claim(item: pytest.Item) -> str:
    documentation = getattr(item, "obj", None) and item.obj.__doc__  # type: ignore[attr-defined]
    return str(documentation or "").strip().partition("\n")[0]


class _Recorder:
    """Collects the outcomes of a run and writes them after each test, so that a killed run leaves what it has."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[str, Outcome] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Iterator[None]:
        report: pytest.TestReport = yield  # type: ignore[misc]
        found = self._outcomes.setdefault(item.nodeid, Outcome(_claim(item), item.nodeid, "passed", 0.0))
        found.seconds += report.duration
        if report.skipped:
            found.result, found.detail = "skipped", str(report.longrepr[2] if report.longrepr else "")  # type: ignore[index]
        elif report.failed:
            found.result = "failed" if report.when == "call" else "error"
            found.detail = str(call.excinfo.value) if call.excinfo else ""
        self._path.write_text(json.dumps([asdict(each) for each in self._outcomes.values()]))
        return report  # type: ignore[return-value]
