"""The lag of a stream is measured by the clocks of both sides, however far these are apart."""

import math

from hypothesis import given
from hypothesis import strategies as st

from aurum.prediction.fleet.stream_lag import StreamLag


def test_lag_is_unknown_until_a_complete_response() -> None:
    lag = StreamLag()
    assert lag.seconds(10.0) == math.inf
    lag.note(0, 10.0)
    assert lag.seconds(10.0) == math.inf
    lag.note(5_000_000, 11.0)
    assert lag.seconds(11.5) == 0.5


def test_a_response_that_was_held_up_is_older() -> None:
    lag = StreamLag()
    lag.note(5_000_000, 105.0)
    lag.note(6_000_000, 108.0)  # two seconds later than usual
    assert lag.seconds(108.5) == 2.5
    lag.note(9_000_000, 109.0)
    assert lag.seconds(109.0) == 0.0


@given(st.floats(-1e6, 1e6), st.floats(-1e-4, 1e-4))
def test_clocks_may_differ_and_drift_apart(difference: float, drift: float) -> None:
    lag = StreamLag()
    for second in range(1, 1000):
        received = second * (1 + drift) + difference + 1e6
        lag.note(second * 1_000_000, received)
        assert lag.seconds(received) < 0.1  # the drift of the last minutes
        assert 0.9 < lag.seconds(received + 1) < 1.1
