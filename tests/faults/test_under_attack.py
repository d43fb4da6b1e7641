"""Users go on working while others attack: nothing acknowledged is lost, and nobody is answered by an error of ours."""

import collections
import contextlib
import itertools
import math
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psutil
import pytest

from aurum.security.api_keys import KeyFile, make_key, write_keys
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure
from tests.support.attacks import COSTLY, FREQUENT, VICTIM, Attack, Target, harmful
from tests.support.device import READINGS, last_acknowledged
from tests.support.issuer import TestIssuer
from tests.support.ledger import stored_readings
from tests.support.platform import Platform
from tests.support.waiting import wait_for

SECONDS = float(os.environ.get("AURUM_SOAK_SECONDS", "600"))
RATE = 20  # requests a second of the users
DEVICES = 2
SERVICES = ("ingestion", "prediction", "api", "edge")
CALLERS = {"admin": ("admin", ()), "north": ("admin", ("north",)), "south": ("admin", ("south",))}
MEMORY = 1.10  # of a service at the end, as a share of what it was after a third of the time
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Target]:
    """A platform with keys and tokens, small limits and frequent flushing, and a pump at each of two sites."""
    folder = tmp_path_factory.mktemp("attacked")
    issuer = TestIssuer()
    made = {name: make_key(name, (role,), sites) for name, (role, sites) in CALLERS.items()}
    write_keys(folder / "keys.yaml", KeyFile(keys=tuple(record for _, record in made.values())))
    running = Platform(
        folder,
        extra={
            "AURUM_AUTH_KEYS_FILE": str(folder / "keys.yaml"),
            "AURUM_AUDIT_FILE": str(folder / "audit.log"),
            "AURUM_MODEL_DIR": str(models),
            "AURUM_INGESTION_MAX_MACHINES": "100",
            "AURUM_INGESTION_MAX_SENSORS_PER_MACHINE": "2000",
            "AURUM_INGESTION_RECENT_BYTES": "300000",
            "AURUM_INGESTION_FLUSH_SECONDS": "5",
            "AURUM_RPC_MAX_STREAMS": "50",
            "AURUM_RETRY_BASE_DELAY": "0.05",
            "AURUM_RETRY_MAX_DELAY": "0.2",
            **issuer.settings,
        },
    )
    for service in SERVICES:
        running.start(service)
    target = Target(running, issuer, {name: {"X-API-Key": key} for name, (key, _) in made.items()})
    life = run_to_failure(PUMP, 1, seed=42)[0]
    times = life.timestamps[-100:] / 1e6 - float(life.timestamps[-1]) / 1e6 + time.time()
    for site in ("north", "south"):
        machine = {"machine_id": f"pump-{site}", "machine_type": "pump", "site": site}
        assert target.http("POST", "/api/machines", machine) == "201"
        readings = [
            {"machine_id": f"pump-{site}", "sensor": sensor, "timestamp": at, "value": value}
            for sensor, column in life.columns.items()
            for at, value in zip(times.tolist(), column[-100:].tolist(), strict=True)
            if not math.isnan(value)
        ]
        assert target.http("POST", "/api/readings", {"readings": readings}) == "200"
    victim = {"machine_id": VICTIM, "machine_type": "pump", "site": "north"}
    assert target.http("POST", "/api/machines", victim) == "201"
    yield target
    running.stop()
    issuer.stop()


@pytest.fixture(autouse=True)
def no_service_ended(target: Target) -> Iterator[None]:
    yield
    alive = {name: target.platform.processes[name].popen.poll() for name in SERVICES}
    assert set(alive.values()) <= {None, 0}, alive


@contextlib.contextmanager
def devices(target: Target) -> Iterator[None]:
    """Devices that send through the gateway and keep a ledger, until they are killed at the end of the block."""
    address = f"127.0.0.1:{target.platform.port('edge')}"
    command = [sys.executable, "-m", "tests.support.device", address]
    ledgers = {name: str(target.platform.folder / f"{name}.ledger") for name in device_names()}
    running = [subprocess.Popen([*command, name, ledger, "0.1"], cwd=ROOT) for name, ledger in ledgers.items()]
    try:
        yield
    finally:
        for device in running:
            device.kill()
            device.wait(10)


def device_names() -> list[str]:
    return [f"ledger-{number}" for number in range(DEVICES)]


class Users:
    """RATE requests a second of people who do their work. problems: what they were answered that they must not be."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.answered: collections.Counter[str] = collections.Counter()
        self.problems: list[str] = []
        self.stored: list[tuple[int, float]] = []
        self._start_ms = time.time_ns() // 1_000_000 - 3_600_000

    def work(self, over: threading.Event) -> None:
        due = time.monotonic()
        with ThreadPoolExecutor(8, "user") as people:
            for number in itertools.count(1):
                due += 1 / RATE
                if over.wait(max(0.0, due - time.monotonic())):
                    return
                people.submit(self._ask, number).add_done_callback(self._done)

    def _done(self, asked: Future[None]) -> None:
        if error := asked.exception():
            self.problems.append(repr(error))

    def _ask(self, number: int) -> None:
        if number % 4 == 0:
            self._store(number)
            return
        questions = (
            "/api/machines",
            "/api/machines/pump-north/metrics?points=100",
            "/api/alarms",
            "/api/machines/pump-south",
        )
        path = questions[number % len(questions)] if number % 7 else "/api/machines/pump-south/predict"
        outcome = self._target.http("GET" if number % 7 else "POST", path)
        self._note(path, outcome)

    def _store(self, number: int) -> None:
        at = self._start_ms + number
        reading = {"machine_id": "pump-north", "sensor": "written", "timestamp": at, "value": float(number)}
        outcome = self._target.http("POST", "/api/readings", {"readings": [reading]})
        self._note("/api/readings", outcome)
        if outcome == "200":
            self.stored.append((at * 1000, float(number)))

    def _note(self, path: str, outcome: str) -> None:
        self.answered[outcome] += 1
        if outcome not in ("200", "429", "503 declared"):
            self.problems.append(f"{path}: {outcome}")


class Attackers:
    """Run attacks one after another, frequent ones in turn with costly ones. outcomes: by attack."""

    def __init__(self, target: Target, seed: int) -> None:
        self._target, self._chance = target, random.Random(seed)
        self.outcomes: collections.Counter[tuple[str, str]] = collections.Counter()

    def attack_in_turn(self, attacks: tuple[Attack, ...], pause: float, over: threading.Event) -> None:
        """pause: seconds between two attacks."""
        for attack in itertools.cycle(attacks):
            self.attack_once(attack)
            if over.wait(pause):
                return

    def attack_once(self, attack: Attack) -> None:
        for outcome in attack(self._target, self._chance):
            self.outcomes[attack.__name__, outcome] += 1

    def harmful(self) -> dict[tuple[str, str], int]:
        return {key: count for key, count in self.outcomes.items() if harmful(key[1])}


class Memory:
    """Resident bytes of each service, taken every second."""

    def __init__(self, platform: Platform) -> None:
        self._processes = {name: psutil.Process(platform.processes[name].popen.pid) for name in SERVICES}
        self.samples: dict[str, list[int]] = {name: [] for name in SERVICES}

    def follow(self, over: threading.Event) -> None:
        while not over.wait(1):
            for name, process in self._processes.items():
                self.samples[name].append(process.memory_info().rss)

    def growth(self) -> dict[str, float]:
        """Median of the last sixth of the time, as a share of that of the sixth after the first third."""
        found = {}
        for name, samples in self.samples.items():
            sixth = len(samples) // 6
            found[name] = statistics.median(samples[-sixth:]) / statistics.median(samples[2 * sixth : 3 * sixth])
        return found


def survey(target: Target) -> dict[str, Any]:
    """What is stored, once everything has arrived and the services have ended."""
    platform = target.platform
    wait_for(lambda: platform.metric("edge", "edge_spool_batches") == 0, 120, "the spool is empty")
    assert [name for name in SERVICES if not platform.is_ready(name)] == []
    platform.stop()
    store = platform.folder / "store.db"
    return {sensor: stored_readings(store, sensor) for sensor in ("written", *device_names())}


def check_devices(target: Target, stored: dict[str, Any]) -> int:
    """How many batches the devices know to be acknowledged; fails if one is lost, is there twice or in part."""
    batches = 0
    for name in device_names():
        _, last = last_acknowledged(target.platform.folder / f"{name}.ledger")
        counts = collections.Counter(int(value) for _, value in stored[name])
        assert len({at for at, _ in stored[name]}) == len(stored[name]), f"{name}: a reading is stored twice"
        assert set(counts.values()) <= {READINGS}, f"{name}: a batch is stored in part"
        assert not (lost := set(range(1, last + 1)) - counts.keys()), (
            f"{name}: acknowledged and lost: {sorted(lost)[:5]}"
        )
        batches += last
    return batches


@pytest.mark.proof("attacks")
@pytest.mark.parametrize("attack", FREQUENT + COSTLY, ids=lambda attack: attack.__name__)
def test_attack_is_answered_by_refusals(target: Target, attack: Attack) -> None:
    """An attack, made five times, is answered by a result or a declared refusal, and leaves every service ready."""
    attackers = Attackers(target, seed=7)
    for _ in range(5):
        attackers.attack_once(attack)
    assert attackers.outcomes
    assert attackers.harmful() == {}
    for name in SERVICES:
        wait_for(lambda name=name: target.platform.is_ready(name), 20, f"{name} is ready")  # type: ignore[misc]


@pytest.mark.proof("attacks")
def test_users_work_on_while_all_attacks_run(target: Target) -> None:
    """Ten minutes of all attacks lose no acknowledged reading, store none twice, fail no user and leak nothing."""
    users, memory = Users(target), Memory(target.platform)
    attackers = [Attackers(target, seed) for seed in (1, 2)]
    over = threading.Event()
    with devices(target), ThreadPoolExecutor(4, "soak") as threads:
        running = [
            threads.submit(users.work, over),
            threads.submit(memory.follow, over),
            threads.submit(attackers[0].attack_in_turn, FREQUENT, 0.3, over),
            threads.submit(attackers[1].attack_in_turn, COSTLY, 5.0, over),
        ]
        wait(running, SECONDS, FIRST_EXCEPTION)
        over.set()
        for each in running:
            each.result()
    outcomes = attackers[0].outcomes + attackers[1].outcomes
    print(f"users: {dict(users.answered)}; attacks: {dict(sorted(outcomes.items()))}; memory: {memory.growth()}")  # noqa: T201
    assert users.problems == []
    assert {attack for attack, _ in outcomes} == {each.__name__ for each in FREQUENT + COSTLY}
    assert [each.harmful() for each in attackers] == [{}, {}]
    stored = survey(target)
    assert len({at for at, _ in stored["written"]}) == len(stored["written"]), "a reading is stored twice"
    assert set(users.stored) - set(stored["written"]) == set(), "acknowledged and lost"
    assert check_devices(target, stored) > 5 * SECONDS
    assert {name: share for name, share in memory.growth().items() if share > MEMORY} == {}
