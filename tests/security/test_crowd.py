"""Ten thousand connections that ask nothing, and one client that does."""

import contextlib
import resource
import socket
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.support.connections import memory
from tests.support.http import http
from tests.support.platform import Platform

CROWD = 10_000
ADDRESSES = 20  # of the crowd, each within what one address may have
MORE_MEMORY = 150_000_000  # bytes
_FILES = CROWD + 2000  # that a process has open: the API has fewer, since it ends what is too much


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        pytest.skip(f"a process may open {hard} files here; this needs {_FILES}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, _FILES), hard))  # the API inherits it
    running = Platform(tmp_path_factory.mktemp("crowd"), extra={"AURUM_FEATURE_PREDICTIVE": "false"})
    running.start("ingestion")
    running.start("api")
    yield running
    running.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def seconds(api: Platform) -> list[float]:
    found = []
    for _ in range(100):
        started = time.perf_counter()
        assert http("GET", f"{api.api}/api/machines").status == 200
        found.append(time.perf_counter() - started)
    return found


@pytest.mark.proof("connections")
def test_api_serves_beside_ten_thousand_connections(api: Platform) -> None:
    """Beside 10,000 idle connections a client is served, at under 150 MB of additional memory."""
    seconds(api)
    quiet, before = seconds(api), memory(api)
    with contextlib.ExitStack() as stack:
        for number in range(CROWD):
            crowd = socket.socket()
            stack.callback(crowd.close)
            crowd.bind((f"127.0.1.{1 + number % ADDRESSES}", 0))
            crowd.connect(("127.0.0.1", api.port("api")))
            crowd.setblocking(False)
            with contextlib.suppress(OSError):
                crowd.send(b"GET / HTTP/1.1\r\n")
        beside = seconds(api)
        assert memory(api) - before < MORE_MEMORY
    median = statistics.median(quiet), statistics.median(beside)
    print(f"median {1e3 * median[0]:.1f} ms alone, {1e3 * median[1]:.1f} ms beside {CROWD} connections")
