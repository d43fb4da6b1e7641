"""What the console is told of the platform: rates between two looks, traces worth a look."""

import asyncio
import contextlib
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from aurum.api import platform_view
from aurum.api.platform_view import PlatformView, rates
from aurum.runtime.telemetry.span_ring import SpanRing

HOUR_US = 3_600_000_000


def look(total: float, failed: float, counts: list[float]) -> dict[str, Any]:
    requests = {"total": total, "failed": failed, "bounds": [0.1, 0.5, 1.0], "counts": counts, "observed": counts[-1]}
    return {
        "requests": requests,
        "readings": 10 * total,
        "batches": 0.0,
        "predictions": total,
        "degraded": failed,
        "retries": 0.0,
    }


def test_rates_cover_the_time_between_two_samples() -> None:
    found = rates(look(100, 5, [90, 100, 100]), look(200, 15, [90, 200, 200]), 10)
    assert found is not None
    assert found["requests_per_second"] == 10
    assert found["error_ratio"] == pytest.approx(0.1)
    assert found["readings_per_second"] == 100
    assert found["p95_seconds"] == pytest.approx(0.1 + 0.4 * 0.95)  # all hundred lie between 0.1 and 0.5


def test_error_ratio_is_absent_without_requests() -> None:
    same = look(100, 5, [90, 100, 100])
    found = rates(same, same, 10)
    assert found is not None
    assert found["error_ratio"] is None
    assert found["p95_seconds"] is None
    assert rates(same, same, 0) is None


@pytest.fixture
def ring() -> SpanRing:
    return SpanRing(size=50, slow=10.0)


@pytest.fixture
def tracer(ring: SpanRing) -> trace.Tracer:
    provider = TracerProvider()
    provider.add_span_processor(ring)
    return provider.get_tracer("test")


def test_failed_degraded_and_slow_traces_are_noted(ring: SpanRing, tracer: trace.Tracer) -> None:
    with tracer.start_as_current_span("fine"):
        pass
    with tracer.start_as_current_span("bad") as span:
        span.set_status(Status(StatusCode.ERROR, "no way"))
    with tracer.start_as_current_span("poor") as span:
        span.set_attributes({"aurum.degraded": True, "aurum.degraded.reason": "nobody there"})
    tracer.start_span("long", start_time=1_000_000_000).end(end_time=13_000_000_000)
    assert [(each.name, each.reason, each.detail) for each in ring.notable] == [
        ("long", "slow", ""),
        ("poor", "degraded", "nobody there"),
        ("bad", "failed", "no way"),
    ]
    assert ring.notable[0].seconds == 12


def test_spans_are_bounded_by_their_bytes() -> None:
    """However long what callers send is, the spans in memory have a bounded size, and the newest are kept."""
    provider, wide = TracerProvider(), SpanRing(size=100_000, slow=10.0)
    provider.add_span_processor(wide)
    for number in range(400):
        with provider.get_tracer("test").start_as_current_span(
            f"span {number}", attributes={"url.path": "x" * 100_000}
        ):
            pass
    assert 100 < len(wide._spans) < 200
    assert wide._bytes <= 16_000_000
    assert wide._spans[-1][0].name == "span 399"


async def test_frequent_traces_do_not_displace_a_rare_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten kinds of slow requests that come all the time hide no request that is slow once."""
    monkeypatch.setattr(platform_view, "_ROUND_SECONDS", 0.001)
    provider, busy = TracerProvider(), SpanRing(size=1000, slow=10.0)
    provider.add_span_processor(busy)
    tracer = provider.get_tracer("test")
    view = PlatformView(dict, {}, busy)
    tracer.start_span("rare", start_time=0).end(end_time=20_000_000_000)
    collecting = asyncio.create_task(view.collect())
    for _ in range(100):
        for number in range(10):
            tracer.start_span(f"often {number}", start_time=0).end(end_time=20_000_000_000)
        await asyncio.sleep(0.002)
    collecting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await collecting
    names = [kept.name for kept, _ in view.traces]
    assert "rare" in names
    assert len(names) == 40


def test_trace_contains_only_its_own_spans(ring: SpanRing, tracer: trace.Tracer) -> None:
    with (
        tracer.start_as_current_span("outer", attributes={"aurum.machines": 3}) as outer,
        tracer.start_as_current_span("inner") as inner,
    ):
        inner.add_event("resilience.retry")
    with tracer.start_as_current_span("another"):
        pass
    found = ring.trace(format(outer.get_span_context().trace_id, "032x"))
    assert [span["name"] for span in found] == ["outer", "inner"]
    assert found[1]["parent_id"] == found[0]["span_id"]
    assert found[0]["attributes"] == {"aurum.machines": 3}
    assert found[1]["events"][0]["name"] == "resilience.retry"


def test_failed_request_with_remote_parent_is_noted(ring: SpanRing, tracer: trace.Tracer) -> None:
    remote = SpanContext(5, 6, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    context = trace.set_span_in_context(NonRecordingSpan(remote))
    with tracer.start_as_current_span("served", context=context) as span:
        span.set_status(Status(StatusCode.ERROR))
        with tracer.start_as_current_span("within") as within:
            within.set_status(Status(StatusCode.ERROR))
    assert [each.name for each in ring.notable] == ["served"]


def test_span_ring_is_bounded_in_total_and_per_name(ring: SpanRing, tracer: trace.Tracer) -> None:
    tracer.start_span("rare", start_time=0).end(end_time=20_000_000_000)
    for _ in range(500):
        tracer.start_span("often", start_time=0).end(end_time=20_000_000_000)
    names = [each.name for each in ring.notable]
    assert names.count("often") == 12
    assert names.count("rare") == 1
    assert ring.added == 501
    assert ring.trace(ring.notable[-1].trace_id) == []  # its spans made room for later ones
