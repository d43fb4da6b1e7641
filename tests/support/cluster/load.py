"""Predictions requested by a pod at a steady rate, while a test disturbs the release."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cluster.kube import Namespace

RATE = 20  # requests/s, which two cores have time for


class Load:
    """Predictions asked for by a pod, until it is stopped."""

    def __init__(self, release: Namespace, *, retry: bool, keepalive: int = 20, rate: float = RATE) -> None:
        self._release = release
        settings = {"URL": "http://aurumai-api:8000", "RATE": rate, "SECONDS": 900, "KEEPALIVE": keepalive}
        release.start_script("load", "load.py", **settings, RETRY=int(retry))
        time.sleep(3)

    def stop(self) -> dict[str, Any]:
        self._release.kubectl("exec", "load", "--", "python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
        found = self._release.finish_script("load", 60)
        print(json.dumps(found))
        return dict(found)


def not_missed(
    release: Namespace, rate: float, within: float, look: Callable[[float], None], kill: Callable[[], None]
) -> None:
    """Nobody who asks misses the pods that `kill` ends, at the rate (requests/s) or, on a machine that is too slow for
    it, at half of it and so on: pods that start take the time of those that answer, and so does whatever else the
    machine does. One that is missed costs some answers at each rate.

    within: seconds for 95 % of the answers before that, well below the deadline. look: is called under the load, with
    its rate.
    """
    while rate > 0.3:
        release.kubectl("rollout", "status", "deployment", "--timeout=180s", timeout=200)
        load = Load(release, retry=True, keepalive=0, rate=rate)  # a connection that is kept stays with its pod
        time.sleep(20)
        look(rate)
        quiet = load.stop()
        assert quiet["failed"] == 0, quiet
        if not quiet["degraded"] and quiet["p95"] < within:
            load = Load(release, retry=True, keepalive=0, rate=rate)
            kill()
            killed = load.stop()
            assert killed["failed"] == 0, killed
            if killed["degraded"] <= 0.001 * killed["requests"]:
                return
        rate /= 2
    pytest.fail("pods were missed, or the machine is too slow, at any rate")
