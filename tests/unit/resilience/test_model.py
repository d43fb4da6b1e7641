"""Breaker, limit, budget, hedge and retry of a pipeline together, driven at random and compared with a reference."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.resilience_model import ResilienceMachine

STEPS = 50  # of a run


def run(steps: int) -> None:
    run_state_machine_as_test(
        ResilienceMachine,
        settings=settings(
            max_examples=steps // STEPS,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_pipeline_agrees_with_reference_model() -> None:
    run(2_000)


@pytest.mark.proof("resilience-model")
def test_pipeline_agrees_with_reference_model_for_long() -> None:
    """Breaker, limit, budget, hedges and retries agree with their reference in 200,000 random steps in virtual time."""
    for _ in range(10):  # hypothesis remembers what it has tried, and needs memory for it
        run(20_000)
