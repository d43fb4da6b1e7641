"""Metrics stay bounded, whatever is asked and however many machines there are. Last, since the machines stay."""

import time

import pytest

from tests.support.cluster.kube import SERVICES, Namespace, http, query, wait_for


@pytest.mark.proof("telemetry")
def test_series_stay_bounded_with_many_paths_and_machines(release: Namespace, api: str, prometheus: str) -> None:
    """With 1,000 paths and 10,000 machines no pod exports more than 2,000 series."""
    release.start_script("many", "many.py", URL="http://aurumai-api:8000", PATHS=1000, MACHINES=10_000)
    done = release.finish_script("many", 180)
    assert done == {"paths": 1000, "machines": 10_000}
    wait_for(lambda: len(http("GET", f"{api}/api/machines?limit=500")[1]["items"]) == 500, 30, "the machines are known")
    time.sleep(12)  # two scrapes
    series = query(prometheus, 'count by (k8s_pod_name) ({k8s_pod_name=~"aurumai-.+"})')
    assert len(series) >= len(SERVICES)
    assert {labels["k8s_pod_name"]: count for labels, count in series if count > 2000} == {}
