"""What holds of every decoder: it raises only the errors that it documents, and its memory and work are bounded by the
size of its input.

Work is counted in calls of Python and C functions, not in seconds, so that the load of the machine does not matter.
"""

import contextlib
import gc
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MB = 1_000_000


class FaultError(AssertionError):
    """An input that a decoder does not treat as documented."""


@dataclass(frozen=True)
class Target:
    """One decoder. seeds: inputs to begin with. decode: decodes an input and checks what comes out of it, with an
    AssertionError if that is wrong. refusals: the errors that the decoder documents. memory: bytes allocated, and
    calls: functions called, for each byte of an input; base_memory, base_calls: besides, for any input."""

    name: str
    seeds: Callable[[], list[bytes]]
    decode: Callable[[bytes], None]
    refusals: tuple[type[Exception], ...] = ()
    memory: int = 100
    calls: int = 20
    base_memory: int = MB
    base_calls: int = 5_000


def try_input(target: Target, data: bytes) -> None:
    """Decodes an input. Raises what the decoder raises and does not document."""
    with contextlib.suppress(*target.refusals):
        target.decode(data)


def measure_input(target: Target, data: bytes) -> None:
    """As `try_input`; also raises FaultError if the memory or the calls are more than the input's size allows."""
    try_input(target, data)  # what is imported or cached at first use counts for none
    gc.disable()  # for what it finds is of others; only what is allocated from now on is measured
    try:
        _measure(target, data)
    finally:
        gc.enable()


def _measure(target: Target, data: bytes) -> None:
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1

    profiler = sys.getprofile()
    sys.setprofile(count)
    try:
        try_input(target, data)
    finally:
        sys.setprofile(profiler)
    allowed = target.base_calls + target.calls * len(data)
    if calls > allowed:
        raise FaultError(f"{target.name}: {calls} calls for {len(data)} bytes; {allowed} are allowed")
    tracemalloc.start()
    try:
        try_input(target, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    allowed = target.base_memory + target.memory * len(data)
    if peak > allowed:
        raise FaultError(f"{target.name}: {peak} bytes of memory for {len(data)} bytes; {allowed} are allowed")
