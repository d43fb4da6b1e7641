"""Every decoder on its seeds, on the inputs that have shown a fault before, and on small changes of the seeds."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fuzzing.inputs import mutated, saved
from tests.support.fuzzing.oracle import FaultError, Target, measure_input, try_input
from tests.support.fuzzing.targets import TARGETS

EXAMPLES = 25  # of each decoder


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Without the decoders' log, which is most of the time otherwise."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
def test_known_input_is_decoded_within_its_bounds(name: str) -> None:
    for data in (*TARGETS[name].seeds(), *saved(name), b"", bytes(100)):
        measure_input(TARGETS[name], data)


@pytest.mark.parametrize("name", TARGETS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_changed_input_raises_documented_errors_only(name: str, data: st.DataObject) -> None:
    try_input(TARGETS[name], data.draw(mutated(TARGETS[name].seeds())))


@pytest.mark.parametrize(
    ("decode", "problem"),
    [
        (lambda data: bytes(2_000 * len(data)), "bytes of memory"),
        (lambda data: [len(data) for _ in data for _ in data], "calls"),
        (int, "invalid literal"),
        (lambda data: None, ""),
    ],
)
def test_oracle_tells_memory_calls_and_errors(decode: object, problem: str) -> None:
    target = Target("x", list, decode, (KeyError,))  # type: ignore[arg-type]
    data = b"x" * 1000
    if not problem:
        measure_input(target, data)
        return
    with pytest.raises((FaultError, ValueError), match=problem):
        measure_input(target, data)


def test_every_folder_of_saved_inputs_has_a_decoder() -> None:
    folder = Path(__file__).parents[2] / "data" / "fuzz"
    assert {path.name for path in folder.iterdir()} <= set(TARGETS)
