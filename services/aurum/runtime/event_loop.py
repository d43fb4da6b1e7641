"""The event loop of a service: uvloop for those that answer calls, which takes a little less CPU, else asyncio's.

Gateways and simulators run on asyncio: the clients of field protocols watch sockets that they close by themselves, upon
which uvloop ends the process.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aurum.runtime.settings import EventLoop, SettingsError

try:
    import uvloop
except ImportError:  # it has no wheels for Windows
    uvloop = None  # type: ignore[assignment]

T = TypeVar("T")

_ON_UVLOOP = frozenset({"api", "ingestion", "prediction"})


def run(name: str, work: Coroutine[Any, Any, T], event_loop: EventLoop) -> T:
    """Runs a coroutine to its end on a new event loop, as `asyncio.run` does.

    Args:
        name: The service.
        work: The coroutine.
        event_loop: The implementation. "auto" stands for uvloop if it is installed and suits the service, else for
            asyncio.

    Raises:
        SettingsError: uvloop is asked for and not installed.
    """
    try:
        factory = _factory("asyncio" if event_loop == "auto" and name not in _ON_UVLOOP else event_loop)
    except SettingsError:
        work.close()
        raise
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def _factory(event_loop: EventLoop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Returns the function that makes the event loop; None for the default of asyncio."""
    if event_loop == "asyncio":
        return None
    if uvloop is not None:
        return uvloop.new_event_loop
    if event_loop == "uvloop":
        raise SettingsError(
            "AURUM_EVENT_LOOP is uvloop, which is not installed here; install it (pip install uvloop, on Linux or "
            "macOS), or set AURUM_EVENT_LOOP to auto or asyncio"
        )
    return None
