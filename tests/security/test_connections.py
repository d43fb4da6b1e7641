"""Clients that take time, room or places: they get an end, and the others do not notice."""

import contextlib
import socket
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.support.connections import memory
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(
        tmp_path_factory.mktemp("bounded"),
        extra={
            "AURUM_FEATURE_PREDICTIVE": "false",
            "AURUM_API_HEAD_TIMEOUT": "2",
            "AURUM_API_BODY_TIMEOUT": "3",
            "AURUM_API_MAX_CONNECTIONS_PER_ADDRESS": "400",
        },
    )
    running.start("ingestion")
    running.start("api")
    yield running
    running.stop()


def connect(api: Platform) -> socket.socket:
    return socket.create_connection(("127.0.0.1", api.port("api")), 10)


def answer_of(connection: socket.socket) -> bytes:
    connection.settimeout(15)
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(4096)
    return b""


def ended(api: Platform, why: str) -> float:
    for line in api.admin("api", "/metrics").body.decode().splitlines():
        if line.startswith(f'http_connections_ended_total{{why="{why}"}}'):
            return float(line.split()[1])
    return 0.0


def test_slow_headers_time_out_with_408(api: Platform) -> None:
    """Connections whose headers come slowly or not at all are ended with 408."""
    with connect(api) as silent, connect(api) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        started = time.monotonic()
        slow.settimeout(0.5)
        reply = b""
        while time.monotonic() - started < 10 and not reply:
            with contextlib.suppress(TimeoutError):
                reply = slow.recv(1000)
                break
            with contextlib.suppress(OSError):
                slow.sendall(b"X-Drip: 1\r\n")
        assert reply.startswith(b"HTTP/1.1 408"), "a header now and then buys no time"
        assert answer_of(silent).startswith(b"HTTP/1.1 408")


def test_slow_body_times_out(api: Platform) -> None:
    """A connection whose body only drips is ended."""
    before = ended(api, "body_time")
    with connect(api) as slow:
        slow.sendall(
            b"POST /api/readings HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 900\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            for _ in range(20):
                slow.sendall(b" ")
                time.sleep(0.3)
        wait_for(lambda: ended(api, "body_time") > before, 10, "its end")


def test_oversized_headers_end_the_connection(api: Platform) -> None:
    """A connection whose headers do not end is ended."""
    with connect(api) as endless:
        endless.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        with contextlib.suppress(OSError):
            for number in range(2000):
                endless.sendall(b"X-%d: %s\r\n" % (number, b"a" * 200))
        wait_for(lambda: ended(api, "head_size") > 0, 5, "its end")


def test_keep_alive_connection_serves_many_requests(api: Platform) -> None:
    """A kept connection serves several requests for longer than headers may take."""
    with connect(api) as kept:
        for _ in range(5):
            kept.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            reply = b""
            while b"alive" not in reply:
                part = answer_of(kept)
                assert part, "the connection was ended"
                reply += part
            assert reply.startswith(b"HTTP/1.1 200")
            time.sleep(0.7)  # together longer than headers may take


def test_slowloris_leaves_other_clients_served(api: Platform) -> None:
    """Beside 300 unfinished connections another client is served, at under 100 MB more memory."""

    def seconds() -> list[float]:
        found = []
        for _ in range(60):
            started = time.perf_counter()
            assert http("GET", f"{api.api}/livez").status == 200
            found.append(time.perf_counter() - started)
        return found

    quiet = seconds()
    before = memory(api)
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(connect(api))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        beside = seconds()
        assert memory(api) - before < 100_000_000
    print(f"median {1e3 * statistics.median(quiet):.1f} ms alone, {1e3 * statistics.median(beside):.1f} ms beside 300")


def test_connections_per_address_are_limited(api: Platform) -> None:
    """Connections beyond the limit of an address get 429, and places become free again."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connect(api)) for _ in range(420)]
        assert answer_of(opened[-1]).startswith(b"HTTP/1.1 429")
    wait_for(lambda: http("GET", f"{api.api}/livez").status == 200, 10, "places are free again")


def test_oversized_body_is_rejected_before_it_is_read(api: Platform) -> None:
    """A body that is too large gets 413 at under 80 MB, whether it is declared or chunked."""
    before = memory(api)
    with connect(api) as large:
        large.sendall(b"POST /api/readings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        assert b"413" in answer_of(large)
    with connect(api) as chunked:
        head = (
            b"POST /api/readings HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunked.sendall(head)
        with contextlib.suppress(OSError):
            for _ in range(400):
                chunked.sendall(b"10000\r\n" + b"a" * 65_536 + b"\r\n")
        assert b"413" in answer_of(chunked)
    assert memory(api) - before < 80_000_000


def test_compressed_bomb_is_refused_in_little_memory(api: Platform) -> None:
    """A compressed body that exceeds the limit when it is decompressed is refused without being held in memory."""
    import gzip

    bomb = gzip.compress(b"0" * 50_000_000)
    before = memory(api)
    headers = {"Content-Encoding": "gzip", "Content-Type": "text/csv"}
    assert http("POST", f"{api.api}/api/readings", bomb, headers).status == 413
    assert memory(api) - before < 40_000_000
