"""What became of predictions, from recorded forecasts and stops."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.maintenance.scorecard import ScorecardError, decode, encode
from aurum.maintenance.track_record import BINS, Forecast, Month, month_of, month_start, track
from aurum.readings.history import Stop
from aurum.runtime.time_units import HOUR_US

BEGIN = month_start("2026-05")
HORIZON = 10.0


def forecasts(risks: list[float], first: int = 0, life: float = 0.0) -> list[Forecast]:
    """Hourly forecasts whose life counter counts hours."""
    return [Forecast(BEGIN + (first + hour) * HOUR_US, life + hour, HORIZON, risk) for hour, risk in enumerate(risks)]


def total(months: dict[str, Month]) -> Month:
    whole = Month()
    for month in months.values():
        whole.add(month)
    return whole


def test_predicted_failure_has_its_lead_time() -> None:
    found = total(track(forecasts([0.1] * 20 + [0.9] * 6), [Stop(BEGIN + 26 * HOUR_US, failed=True)]))
    assert (found.failures, found.predicted, found.false_warnings) == (1, 1, 0)
    assert found.lead_time == pytest.approx(6)
    assert (found.forecasts, sum(found.true)) == (26, 10)  # those within ten hours before the failure
    assert found.skill is not None
    assert found.skill > 0


def test_failure_without_a_warning_is_missed() -> None:
    found = total(track(forecasts([0.1] * 30), [Stop(BEGIN + 30 * HOUR_US, failed=True)]))
    assert (found.failures, found.predicted, found.lead_times) == (1, 0, [])
    assert found.skill is not None
    assert found.skill < 0


def test_warning_is_false_if_the_machine_runs_on() -> None:
    found = total(track(forecasts([0.1] * 5 + [0.8] * 3 + [0.1] * 30), []))
    assert (found.failures, found.false_warnings, found.undecided_warnings) == (0, 1, 0)
    assert found.undecided == 11  # the machine has not run on for more than ten hours after them


def test_overhaul_after_a_warning_leaves_it_undecided() -> None:
    found = total(track(forecasts([0.1] * 20 + [0.9] * 4), [Stop(BEGIN + 24 * HOUR_US, renewed=True)]))
    assert (found.false_warnings, found.undecided_warnings, sum(found.true)) == (0, 1, 0)


def test_decreasing_counter_begins_another_life() -> None:
    both = forecasts([0.1] * 20) + forecasts([0.1] * 20, first=20)
    found = total(track(both, [Stop(BEGIN + 40 * HOUR_US, failed=True)]))
    assert sum(found.true) == 10
    assert found.undecided == 11  # at the end of the first life, of which nobody recorded how it ended


def test_forecasts_of_a_stopped_machine_do_not_count() -> None:
    made = [*forecasts([0.1] * 20), *(Forecast(BEGIN + hour * HOUR_US, 19.0, HORIZON, 0.9) for hour in range(21, 26))]
    found = total(track(made, [Stop(BEGIN + 20 * HOUR_US, BEGIN + 26 * HOUR_US, failed=True)]))
    assert found.forecasts + found.undecided == 20


def test_months_are_those_of_forecasts_and_failures() -> None:
    first = (month_start("2026-06") - BEGIN) // HOUR_US - 5
    months = track(forecasts([0.9] * 10, first=first), [Stop(BEGIN + (first + 10) * HOUR_US, failed=True)])
    assert (months["2026-05"].forecasts, months["2026-06"].forecasts) == (5, 5)
    assert (months["2026-05"].failures, months["2026-06"].failures) == (0, 1)


@given(
    st.lists(st.tuples(st.integers(0, 300), st.floats(0, 200), st.floats(0, 1)), max_size=60),
    st.lists(st.builds(Stop, st.integers(0, 300).map(lambda hour: BEGIN + hour * HOUR_US), st.none(), st.booleans())),
)
def test_each_forecast_counts_at_most_once(made: list[tuple[int, float, float]], stops: list[Stop]) -> None:
    given = [Forecast(BEGIN + hour * HOUR_US, life, HORIZON, risk) for hour, life, risk in made]
    found = total(track(given, stops))
    assert found.forecasts + found.undecided == len(given)
    assert found.predicted <= found.failures <= len(stops)
    assert all(0 <= true <= count for true, count in zip(found.true, found.decided, strict=True))


def test_scorecard_is_read_as_it_was_written() -> None:
    month = total(track(forecasts([0.1] * 20 + [0.9] * 6), [Stop(BEGIN + 26 * HOUR_US, failed=True)]))
    assert decode(encode(month, "h")) == (month, "h")
    assert month_of(month_start("2026-05")) == "2026-05"
    assert len(month.told) == BINS
    many = Month()
    for number in range(2000):
        many.add(Month(told=[0.1 * number / 7] * BINS, lead_times=[number / 7]))
    assert len(encode(many, "h")) < 16_384  # the limit of an event
    for damaged in (b"", b"{}", b"[]", encode(month, "h").replace(b'"told"', b'"tell"')):
        with pytest.raises(ScorecardError):
            decode(damaged)
