"""The HTTP header field Retry-After: seconds or a date (RFC 9110, 10.2.3)."""

from datetime import UTC
from email.utils import parsedate_to_datetime


def retry_after_seconds(value: str, now: float) -> float | None:
    """Returns the seconds to wait, 0 for a past date, or None if the value is neither a number of seconds nor a date.

    Args:
        value: The value of the field.
        now: Seconds since the epoch on the server's clock, which is the Date field of the response if it has one.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    at = http_date(value)
    return None if at is None else max(0.0, at - now)


def http_date(value: str) -> float | None:
    """Returns an HTTP date in seconds since the epoch, or None if it is invalid."""
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
