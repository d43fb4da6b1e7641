"""Waits while the clock of the gateway's system was never set.

A gateway without a battery for its clock starts in 1970 or 2000, until NTP sets it. Values without a time of their own
would then be stored in those years, and the right times of devices would be replaced, since they seem to be far ahead.
"""

import asyncio

from aurum.edge.inputs.common.configuration import EARLIEST
from aurum.edge.inputs.common.connection_status import ConnectionStatus
from aurum.edge.inputs.common.reading_times import shown_time
from aurum.readings.batch import now_us

_CHECK_SECONDS = 1.0
_EARLIEST_US = int(EARLIEST.timestamp() * 1_000_000)


async def wait_for_set_clock(status: ConnectionStatus) -> None:
    """Waits while the system's clock is before any time that it can have, and records that as the input's problem.

    The input is not connected meanwhile, so brokers and devices keep what they would send.
    """
    told = False
    while (now := now_us()) < _EARLIEST_US:
        if not told:
            problem = f"the clock of the gateway's system is not set (it shows {shown_time(now)})"
            status.mark_lost(f"{problem}; set it, for example by NTP; the input starts then")
            told = True
        await asyncio.sleep(_CHECK_SECONDS)
