"""Callers that misbehave, each in a way of its own: what a platform is exposed to while its users go on working.

An attack is a function of a `Target` and a source of chance. It yields what it was answered: HTTP statuses, with
"declared" where a 503 says when to try again, and names of gRPC statuses. `harmful` tells which of them must not occur.
"""

import contextlib
import json
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from aurum.readings.batch import Series, encode, now_us
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.http import http
from tests.support.issuer import TestIssuer
from tests.support.platform import Platform

VICTIM = "victim"  # the machine whose stored segments are damaged
_HARMFUL = frozenset({"500", "502", "503", "504", "UNKNOWN", "INTERNAL", "DATA_LOSS", "no answer"})
_REFUSED_BY_NETWORK = (OSError, TimeoutError)


@dataclass
class Target:
    """headers: of an admin, and of an engineer bound to each site. numbers: sequences that were used, by source."""

    platform: Platform
    issuer: TestIssuer
    headers: dict[str, dict[str, str]]
    numbers: dict[str, int] = field(default_factory=dict)

    def channel(self, service: str) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", 64_000_000)]
        return grpc.insecure_channel(f"127.0.0.1:{self.platform.port(service)}", options=options)

    def http(self, method: str, path: str, body: Any = None, who: str = "admin", **headers: str) -> str:
        """One request; the status, and whether a 503 is declared."""
        try:
            answer = http(method, f"{self.platform.api}{path}", body, self.headers[who] | headers, 60)
        except _REFUSED_BY_NETWORK:
            return "no answer"
        if answer.status == 503 and "Retry-After" in answer.headers:
            return "503 declared"
        return str(answer.status)

    def next(self, source: str) -> int:
        self.numbers[source] = self.numbers.get(source, 0) + 1
        return self.numbers[source]


Attack = Callable[[Target, random.Random], Iterator[str]]


def harmful(outcome: str) -> bool:
    """Whether no caller, however wrong its request, may be answered so."""
    return outcome in _HARMFUL


def call(method: Callable[..., Any], request: Any, timeout: float = 20) -> str:
    """The status of one RPC; a stream is read to its end."""
    try:
        answer = method(request, timeout=timeout)
        if isinstance(answer, Iterator):
            for _ in answer:
                pass
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def _write(target: Target, service: str, source: str, sequence: int, *series: Series) -> str:
    with target.channel(service) as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        return call(stub.Write, ingestion_pb2.WriteRequest(batch=encode(source, sequence, series)))


def _reading(machine: str, sensor: str = "s", at_us: int | None = None, value: float = 1.0) -> Series:
    return Series(machine, sensor, np.array([at_us or now_us()], np.int64), np.array([value]))


def abandoned_registrations(target: Target, chance: random.Random) -> Iterator[str]:
    """RPCs and requests that register a machine, and whose caller is gone before the answer."""
    machine = f"ghost-{chance.randrange(40)}"
    with target.channel("ingestion") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        request = ingestion_pb2.RegisterMachineRequest(machine_id=machine, machine_type="pump", site="north")
        yield call(stub.RegisterMachine, request, chance.uniform(0.001, 0.02))
        yield call(stub.GetMachine, ingestion_pb2.GetMachineRequest(machine_id=machine))
    for path in (f"/api/machines/{VICTIM}/maintenance", f"/api/alarms/{VICTIM}~stopped/ack"):
        body = json.dumps({"text": "hung up"}).encode()
        _send(target, f"POST {path} HTTP/1.1", body, {"Content-Type": "application/json"}, chance.uniform(0, 0.02))


def _send(target: Target, line: str, body: bytes, headers: dict[str, str], linger: float) -> None:
    """One request over a connection that is closed after so many seconds, whether it was answered or not."""
    fields = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **target.headers["admin"], **headers}
    head = "\r\n".join([line, *(f"{name}: {value}" for name, value in fields.items()), "", ""]).encode()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target.platform.port("api")), 5) as peer:
        peer.sendall(head + body)
        time.sleep(linger)


def crossed_idempotency_keys(target: Target, chance: random.Random) -> Iterator[str]:
    """Two tenants with the same keys, and one that uses its key for other readings."""
    key = f"2026-{chance.randrange(10_000)}"
    for site in ("north", "south", "north"):
        reading = {"machine_id": f"pump-{site}", "sensor": "s", "timestamp": time.time(), "value": 1}
        yield target.http("POST", "/api/readings", {"readings": [reading]}, site, **{"Idempotency-Key": key})


def keyed_readings(target: Target, _: random.Random) -> Iterator[str]:
    """One reading in each request, each with a key of its own: a source for every reading."""
    for _ in range(20):
        reading = {"machine_id": "keyed", "sensor": "s", "timestamp": time.time(), "value": 1}
        yield target.http("POST", "/api/readings", {"readings": [reading]}, **{"Idempotency-Key": str(uuid.uuid4())})


def poison_batches(target: Target, chance: random.Random) -> Iterator[str]:
    """Batches that a gateway takes and ingestion refuses: too many machines, and another's source."""
    source = f"poison-{chance.randrange(5)}"
    machine = f"crowd-{chance.randrange(100_000)}"
    yield _write(target, "edge", source, target.next(source), _reading(machine))
    yield _write(target, "edge", source, target.next(source), _reading(VICTIM))


def very_many_sensors(target: Target, chance: random.Random) -> Iterator[str]:
    """A machine that has more sensors with every batch."""
    series = [_reading("wide", f"{'s' * 40}{chance.randrange(100_000)}") for _ in range(500)]
    unique = {each.sensor: each for each in series}
    yield _write(target, "ingestion", "wide", target.next("wide"), *unique.values())
    yield target.http("GET", "/api/machines/wide")


def lost_clock(target: Target, _: random.Random) -> Iterator[str]:
    """A reading of 1970, and the usual question for that machine."""
    yield _write(target, "ingestion", "lost-clock", target.next("lost-clock"), _reading("lost-clock", at_us=5_000_000))
    yield _write(target, "ingestion", "lost-clock", target.next("lost-clock"), _reading("lost-clock"))
    yield target.http("GET", "/api/machines/lost-clock/metrics?points=500")
    yield target.http("GET", "/api/machines/lost-clock/metrics?points=0&start=0")


def wrong_batches(target: Target, chance: random.Random) -> Iterator[str]:
    """Batches with a wrong time, value, name or sequence, repeated, in the wrong order and with gaps."""
    good = _reading("odd")
    wrong = [
        Series("odd", "s", np.array([2**62]), np.ones(1)),
        Series("odd", "s", np.array([-1]), np.ones(1)),
        Series("odd", "s", good.timestamps, np.array([np.inf])),
        Series("odd", "s", good.timestamps, np.array([np.nan])),
        Series("odd\x1b[31m", "s", good.timestamps, good.values),
        Series("odd", "s" * 200, good.timestamps, good.values),
        Series("odd", "s", good.timestamps, np.ones(0)),
    ]
    yield _write(target, "edge", "odd", target.next("odd"), chance.choice(wrong))
    yield _write(target, "ingestion", "odd", target.next("odd"), chance.choice(wrong))
    for sequence in (0, 2**63, chance.randrange(1, 2**40), chance.randrange(1, 1000), 1):
        yield _write(target, "ingestion", "gaps", sequence, good)


def damaged_messages(target: Target, chance: random.Random) -> Iterator[str]:
    """Random bytes to each method, and to the HTTP port."""
    with target.channel("ingestion") as channel:
        for method in ("Write", "RegisterMachine", "GetMachine", "ListMachines", "RecordEvents", "ListEvents"):
            raw = channel.unary_unary(f"/aurum.v1.IngestionService/{method}")
            yield call(raw, chance.randbytes(chance.randrange(200)))
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target.platform.port("api")), 5) as peer:
        peer.sendall(chance.randbytes(500))


def odd_requests(target: Target, chance: random.Random) -> Iterator[str]:
    """Methods, paths, headers and bodies that no route knows."""
    yield target.http(chance.choice(["PUT", "PATCH", "DELETE", "TRACE"]), "/livez")
    yield target.http("GET", f"/api/machines/{'a' * chance.randrange(1, 60_000)}")
    yield target.http("GET", f"/nothing/{chance.randrange(10**9)}")
    yield target.http("GET", f"/api/machines?limit={chance.choice(['-1', '1e9', 'x', '1000'])}")
    yield target.http("POST", "/api/predict", chance.choice([b"{", b"[]", b"null", b'{"machine_id": 1}', b"\xff"]))
    note = {"text": "=cmd()\n2026-01-01 INFO all is well \x1b[2J", "at": chance.choice([1e300, -5, "x", None])}
    yield target.http("POST", f"/api/machines/{VICTIM}/maintenance", note)


def large_bodies(target: Target, chance: random.Random) -> Iterator[str]:
    """The largest bodies that are allowed, and one that is larger."""
    one = b'{"machine_id":"large","sensor":"s","timestamp":1700000000,"value":1.5}'
    count = chance.choice([50_000, 200_000, 230_000])
    yield target.http("POST", "/api/readings", b'{"readings":[' + b",".join([one] * count) + b"]}")
    yield target.http("POST", "/api/readings", b"x" * 17_000_000, **{"Content-Type": "text/csv"})


def malformed_tokens(target: Target, chance: random.Random) -> Iterator[str]:
    """Tokens with claims that are empty, unreadable or absurd."""
    claims: list[dict[str, Any]] = [
        {"sites": []},
        {"sites": {"north": True}},
        {"exp": 10**30},
        {"exp": "never"},
        {"roles": [[["admin"]]]},
        {"sub": "x" * 5000},
    ]
    token = target.issuer.token(**{"roles": ["admin"], **chance.choice(claims)})
    target.headers["stranger"] = {"Authorization": f"Bearer {token}"}
    yield target.http("GET", "/api/machines", who="stranger")
    target.headers["stranger"] = {"Authorization": f"Bearer {'e.' * chance.randrange(3000)}", "X-API-Key": "\xff"}
    yield target.http("GET", "/api/machines", who="stranger")


def foreign_events(target: Target, chance: random.Random) -> Iterator[str]:
    """Journal entries, as a newer replica might write them, that this one does not know."""
    contents = [
        b'{"alarm_id": "x", "new_field": 1}',
        b"[]",
        b"\xff\xfe",
        b"{}",
        b'{"at": "NaN", "state": "unheard of"}',
    ]
    events = [
        ingestion_pb2.Event(
            kind=chance.choice(["alarm", "maintenance", "prediction", "unheard-of"]),
            machine_id=VICTIM,
            at_us=chance.choice([now_us(), 5_000_000]),
            id=str(uuid.uuid4()),
            content=content,
        )
        for content in contents
    ]
    with target.channel("ingestion") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        yield call(stub.RecordEvents, ingestion_pb2.RecordEventsRequest(events=events))
    yield target.http("GET", "/api/alarms/journal?limit=1000")
    yield target.http("GET", f"/api/machines/{VICTIM}/maintenance")


def crowd_of_streams(target: Target, _: random.Random) -> Iterator[str]:
    """Streams that are opened and left, at ingestion and for the events of the console."""
    with target.channel("ingestion") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        streams = [stub.Watch(ingestion_pb2.WatchRequest(interval_ms=1000), timeout=2) for _ in range(60)]
        time.sleep(0.5)
        for stream in streams:
            stream.cancel()
    peers = []
    fields = "".join(f"{name}: {value}\r\n" for name, value in target.headers["admin"].items())
    for _ in range(40):
        with contextlib.suppress(OSError):
            peer = socket.create_connection(("127.0.0.1", target.platform.port("api")), 5)
            peer.sendall(f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode())
            peers.append(peer)
    time.sleep(0.5)
    for peer in peers:
        peer.close()
    yield target.http("GET", "/api/machines")


def flipped_bits(target: Target, chance: random.Random) -> Iterator[str]:
    """A bit of one stored block of the victim is turned, and its readings are asked for."""
    yield _write(target, "ingestion", "victim", target.next("victim"), _reading(VICTIM, "rot"))
    with contextlib.closing(sqlite3.connect(target.platform.folder / "store.db", timeout=10)) as store, store:
        row = store.execute(
            "SELECT blocks.id, data FROM blocks JOIN series ON series.id / 256 = bucket "
            "WHERE sensor = 'rot' ORDER BY random() LIMIT 1"
        ).fetchone()
        if row:
            data = bytearray(row[1])
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            store.execute("UPDATE blocks SET data = ? WHERE id = ?", (bytes(data), row[0]))
    yield target.http("GET", f"/api/machines/{VICTIM}/metrics?points=100")


def backup_of_busy_store(target: Target, _: random.Random) -> Iterator[str]:
    """A backup that is taken while everybody writes."""
    folder = target.platform.folder / f"backup-{uuid.uuid4()}"
    folder.mkdir()
    command = [sys.executable, "-m", "aurum.cli", "store", "backup", str(target.platform.folder / "store.db")]
    command.append(str(folder / "store.db"))
    environment = target.platform.environment("backup")
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    shutil.rmtree(folder)
    yield "OK" if done.returncode == 0 else "INTERNAL"


def concurrent_key_commands(target: Target, chance: random.Random) -> Iterator[str]:
    """Two `aurum key` commands at once, each of which makes a key; both keys have to be there."""
    file = str(target.platform.folder / "keys.yaml")
    names = [f"soak-{chance.randrange(10**9)}" for _ in range(2)]
    environment = target.platform.environment("key")
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "aurum.cli", "key", "create", name, "--role", "viewer", "--file", file],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in names
    ]
    done = [command.wait(60) == 0 for command in commands]
    content = (target.platform.folder / "keys.yaml").read_text()
    yield "OK" if all(done) and all(name in content for name in names) else "DATA_LOSS"


FREQUENT: tuple[Attack, ...] = (
    abandoned_registrations,
    crossed_idempotency_keys,
    keyed_readings,
    poison_batches,
    lost_clock,
    wrong_batches,
    damaged_messages,
    odd_requests,
    malformed_tokens,
    foreign_events,
    flipped_bits,
)
COSTLY: tuple[Attack, ...] = (
    very_many_sensors,
    large_bodies,
    crowd_of_streams,
    backup_of_busy_store,
    concurrent_key_commands,
)
