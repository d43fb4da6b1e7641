"""pytest as mutmut runs it: the same examples for each mutant, which are not made simpler; the quickest test first."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

_STATISTICS = Path("mutmut-stats.json")  # what mutmut has measured, in the folder in which it runs the tests
_RUNS = 50  # of a state machine; tests with fewer examples than they ask for miss mutants that they kill otherwise

settings.register_profile(
    "mutation",
    database=None,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """State machines run less often; and quick tests come first, of which most mutants die."""
    for case in {item.cls for item in items if isinstance(item, pytest.Function) and item.cls is not None}:
        if isinstance(asked := getattr(case, "settings", None), settings):
            case.settings = settings(asked, max_examples=min(asked.max_examples, _RUNS))
    if _STATISTICS.exists():
        took = json.loads(_STATISTICS.read_text())["duration_by_test"]
        items.sort(key=lambda item: float(took.get(item.nodeid, 0.0)))
