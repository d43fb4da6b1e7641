"""Scorecards: what became of the forecasts for a machine type in a month, as an event of the plant."""

import json
from dataclasses import asdict, fields

from aurum.maintenance.track_record import BINS, Month

SCORECARD, FORECAST = "scorecard", "forecast"  # kinds of events


class ScorecardError(ValueError):
    """A scorecard cannot be read. The message says why."""


def encode(month: Month, unit: str) -> bytes:
    """Returns the content of a scorecard's event. unit: the unit of the lead times."""
    return json.dumps({**asdict(month), "unit": unit}).encode()


def decode(content: bytes) -> tuple[Month, str]:
    """Reads a scorecard. Returns the month and the unit of its lead times. Raises ScorecardError."""
    try:
        read = json.loads(content)
        month = Month(**{each.name: read[each.name] for each in fields(Month)})
        if not len(month.told) == len(month.true) == len(month.decided) == BINS:
            raise ValueError(f"its calibration does not have {BINS} bins")
        return month, str(read["unit"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ScorecardError(f"{type(error).__name__}: {error}") from error
