"""Measures the lag of the event loop: the time that a coroutine waits beyond what it asked for."""

import asyncio

from aurum.runtime import metrics

_EVERY = 0.5  # seconds between two measurements


async def measure_lag() -> None:
    """Records the lag until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _EVERY
        await asyncio.sleep(_EVERY)
        metrics.event_loop_lag_seconds.observe(max(0.0, loop.time() - due))
