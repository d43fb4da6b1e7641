"""What attackers cost the others: the same client's requests alone and beside each attack, in turns."""

import argparse
import asyncio
import contextlib
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from tests.support.platform import Platform

from aurum.security.api_keys import KeyFile, make_key, write_keys
from benchmarks.harness import Goal, report, spread

CROWD = 5000
_REQUESTS = 400
_RATE = 20  # requests/s of the healthy client
_MOST = 2.0  # times its p99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    rounds = 1 if parser.parse_args().quick else 3
    with tempfile.TemporaryDirectory() as state:
        folder = Path(state)
        healthy, record = make_key("healthy", ("viewer",))
        noisy, other = make_key("noisy", ("viewer",))
        write_keys(folder / "keys.yaml", KeyFile(keys=(record, other)))
        extra = {
            "AURUM_AUTH_KEYS_FILE": str(folder / "keys.yaml"),
            "AURUM_FEATURE_PREDICTIVE": "false",
            "AURUM_API_RATE": "100",
        }
        platform = Platform(folder, extra=extra)
        try:
            platform.start("ingestion")
            platform.start("api")
            attacks: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
                "crowd": lambda: _crowd(platform.port("api")),
                "noisy": lambda: _noisy(platform.api, noisy),
                "guesses": lambda: _noisy(platform.api, "aurum_aaaaaaaaaa_" + "b" * 43),
            }
            _seconds(platform.api, healthy)
            found: dict[str, list[dict[str, float]]] = {name: [] for name in attacks}
            for _ in range(rounds):
                for name, attack in attacks.items():
                    alone = _seconds(platform.api, healthy)
                    with attack():
                        beside = _seconds(platform.api, healthy)
                    p99 = [statistics.quantiles(each, n=100)[98] for each in (alone, beside)]
                    found[name].append({"alone_ms": 1e3 * p99[0], "beside_ms": 1e3 * p99[1], "ratio": p99[1] / p99[0]})
        finally:
            platform.stop()
    report(
        "security",
        {
            f"{name}_p99_ratio": Goal(statistics.median(each["ratio"] for each in rounds_), _MOST, at_most=True)
            for name, rounds_ in found.items()
        },
        {name: {key: spread([each[key] for each in rounds_]) for key in rounds_[0]} for name, rounds_ in found.items()},
    )


def _seconds(api: str, key: str) -> list[float]:
    """Of requests at a steady rate."""
    found = []
    with httpx.Client(base_url=api, headers={"X-API-Key": key}, timeout=10) as client:
        begun = time.perf_counter()
        for number in range(_REQUESTS):
            time.sleep(max(0.0, begun + number / _RATE - time.perf_counter()))
            started = time.perf_counter()
            client.get("/api/machines").raise_for_status()
            found.append(time.perf_counter() - started)
    return found


@contextlib.contextmanager
def _crowd(port: int) -> Iterator[None]:
    """Connections that never finish their headers."""
    with contextlib.ExitStack() as stack:
        for number in range(CROWD):
            each = socket.socket()
            stack.callback(each.close)
            each.bind((f"127.0.1.{1 + number % 20}", 0))
            each.connect(("127.0.0.1", port))
            each.send(b"GET / HTTP/1.1\r\n")
        yield


@contextlib.contextmanager
def _noisy(api: str, key: str) -> Iterator[None]:
    """One identity that asks for 500 requests a second."""
    stop = threading.Event()

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=api, headers={"X-API-Key": key}, timeout=10) as client:
            tasks: set[asyncio.Task[object]] = set()
            while not stop.is_set():
                task: asyncio.Task[object] = asyncio.create_task(_quietly(client))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                await asyncio.sleep(0.002)
            await asyncio.gather(*tasks)

    thread = threading.Thread(target=lambda: asyncio.run(ask()), name="noisy")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def _quietly(client: httpx.AsyncClient) -> None:
    with contextlib.suppress(httpx.HTTPError):
        await client.get("/api/machines")


if __name__ == "__main__":
    main()
