"""The HTTP field Retry-After: seconds, dates, and what is neither."""

import math
import time
from collections.abc import Mapping
from email.utils import formatdate

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.resilience.retry_after import http_date, retry_after_seconds
from aurum.runtime.http.client import HTTP_ERRORS

NOW = 1_792_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("9" * 400, math.inf),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 0.0),
        (formatdate(NOW + 60), 60.0),  # -0000 in the place of GMT
        ("²", None),
        ("٣", None),
        ("-5", None),
        ("1.5", None),
        ("1, 2", None),
        ("inf", None),
        ("nan", None),
        ("", None),
        ("Wed, 21 Oct", None),
        ("Wed, 21 Oct 2015 99:28:00 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_parsed(value: str, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds


@given(st.text(max_size=60))
def test_retry_after_never_raises(value: str) -> None:
    seconds = retry_after_seconds(value, NOW)
    assert seconds is None or seconds >= 0.0


@given(st.integers(0, 4_000_000_000))
def test_http_dates_round_trip(moment: int) -> None:
    assert http_date(formatdate(moment, usegmt=True)) == moment
    assert http_date(formatdate(moment).replace("-0000", "-0100")) == moment + 3600


def asked(headers: Mapping[str, str] | list[tuple[bytes, bytes]]) -> float | None:
    response = httpx.Response(503, headers=headers, request=httpx.Request("GET", "http://x/"))
    return HTTP_ERRORS.retry_after(httpx.HTTPStatusError("x", request=response.request, response=response))


def test_http_error_asks_to_wait_until_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    date = formatdate(NOW + 3, usegmt=True)
    assert asked({"Retry-After": date, "Date": formatdate(NOW, usegmt=True)}) == 3.0
    assert asked({"Retry-After": date}) == 3.0
    assert asked({"Retry-After": date, "Date": formatdate(NOW + 1, usegmt=True)}) == 2.0
    assert asked({"Retry-After": "2", "Date": "nonsense"}) == 2.0
    assert asked([(b"Retry-After", b"\xb2")]) is None
    assert asked({}) is None
    assert HTTP_ERRORS.retry_after(httpx.ConnectError("x")) is None
