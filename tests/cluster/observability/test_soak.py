"""Ten minutes of a healthy release, with somebody who asks for predictions: no alert, not even one that only waits."""

from collections.abc import Iterator

import pytest

from tests.support.cluster.alerts import age
from tests.support.cluster.kube import Namespace, query

SOAK = 600.0  # seconds
VISIT = 20.0  # seconds at least; other tests have been there before
RATE = 2  # requests/s


@pytest.fixture(scope="module")
def asked(release: Namespace) -> Iterator[None]:
    yield
    release.kubectl("delete", "pod", "visitor", "--ignore-not-found", "--grace-period=0", "--force")


@pytest.mark.proof("soak")
def test_healthy_release_raises_no_alert(asked: None, release: Namespace) -> None:
    """A healthy release under load raises no alert, fails no request and restarts no pod."""
    left = max(VISIT, SOAK - age(release))
    release.start_script("visitor", "load.py", URL="http://aurumai-api:8000", RATE=RATE, SECONDS=left, RETRY=0)
    found = release.finish_script("visitor", left + 60)
    assert found["failed"] == 0, found
    with release.forwarded("service/observability-prometheus", 9090) as prometheus:
        minutes = int(min(SOAK, age(release)) / 60)
        # The rules themselves, all of them, over this time
        assert query(prometheus, f"min_over_time(count(aurumai:slo_ingest_late:ratio_1d)[{minutes - 1}m:15s])")
        fired = query(prometheus, f'count_over_time(ALERTS{{alertstate="firing"}}[{minutes}m])')
        assert not fired, fired
        waiting = query(prometheus, "ALERTS")
        assert not waiting, waiting
    assert not (restarted := release.restarted()), restarted
