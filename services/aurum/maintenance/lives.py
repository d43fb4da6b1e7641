"""What maintenance records say about the lives of machines, from which models are trained."""

from collections.abc import Iterable

from aurum.maintenance.records import Record, live_records
from aurum.readings.history import Stop

_RENEWING = ("overhaul", "replacement")
_COUNTING = (*_RENEWING, "repair", "failure")


def stops_of(records: Iterable[Record]) -> list[Stop]:
    """Returns the stops that records tell of, by time.

    An overhaul or a replacement begins a new life and a failure ends one. A repair only ends the time for which a
    machine is out of service after a failure. Inspections, notes and deleted records say nothing about lives.
    """
    return [
        Stop(
            record.from_us,
            record.to_us,
            failed=record.kind == "failure",
            renewed=record.kind in _RENEWING,
            mode=record.failure_mode if record.kind == "failure" else "",
        )
        for record in live_records(records)
        if record.kind in _COUNTING
    ]
