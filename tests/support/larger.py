"""A plugin of pytest that gives property tests more examples: -p tests.support.larger --examples N --steps N."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("larger")
    group.addoption("--examples", type=int, default=200, help="examples of each property test")
    group.addoption("--steps", type=int, default=50, help="steps of each example of a state machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Also where a test has settings of its own. Raises UsageError if nothing was made larger."""
    found = 0
    for item in items:
        place: Any = getattr(item, "cls", None)  # the class that hypothesis makes of a state machine
        if isinstance(getattr(place, "settings", None), settings):
            place.settings = settings(
                place.settings,
                max_examples=config.getoption("--examples"),
                stateful_step_count=config.getoption("--steps"),
                suppress_health_check=list(HealthCheck),
            )
            found += 1
    if not found:
        raise pytest.UsageError("there is no state machine among the tests, so nothing is larger")
