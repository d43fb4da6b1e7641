"""Predictions requested by a pod at a steady rate, while a test disturbs the release."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cluster.kube import Namespace

RATE = 20  # requests/s, which two cores have time for


class Load:
    """Predictions requested by a pod until it is stopped."""

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


def assert_kill_fails_no_request(
    release: Namespace, rate: float, within: float, look: Callable[[float], None], kill: Callable[[], None]
) -> None:
    """Asserts that killed pods fail no request and degrade at most one answer in a thousand.

    It halves the rate on a machine that is too slow, where starting pods take CPU from those that answer. A kill that
    costs answers does so at every rate.

    Args:
        release: The release.
        rate: Requests a second to begin with.
        within: Seconds for 95 % of the answers before the kill; well below the deadline.
        look: Called under the load, with its rate.
        kill: Ends pods.
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
    pytest.fail("a kill degraded answers, or the machine is too slow, at every rate")
