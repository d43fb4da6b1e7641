"""The HTTP field Retry-After: seconds, or a date (RFC 9110, 10.2.3)."""

from datetime import UTC
from email.utils import parsedate_to_datetime


def retry_after_seconds(value: str, now: float) -> float | None:
    """Seconds to wait, 0 for a date that is past; None for a value that is neither a number of seconds nor a date.

    now: seconds since the epoch by the clock that the date was made by, so that of the answer's Date field if it has
    one.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    at = http_date(value)
    return None if at is None else max(0.0, at - now)


def http_date(value: str) -> float | None:
    """Seconds since the epoch of an HTTP date; None if it is none."""
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
