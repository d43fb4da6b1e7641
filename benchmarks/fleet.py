"""Continuous scoring: what it costs over all services, how old risks are, and how soon an alarm is visible.

Each machine has ten sensors and a life counter, and each of them has one new reading a second (the wide shape). Batches
of 2,000 readings are made beforehand and sent when they are due. The cost of scoring is the difference within one run
between the same load with and without the prediction service. Windows of all steps are filled before.

With --scorers, the same load is scored again, by several scorers that share the machines, and the costs are compared.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from tests.support.http import http
from tests.support.platform import Platform

from aurum.prediction.model.features import WINDOW
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from benchmarks.fleet_load import ALARM_SENSOR, Load, model
from benchmarks.harness import Goal, report, spread

LONGEST_FILL = 900  # seconds
SETTLED = 5  # seconds until the load has settled
RULES = {"rules": [{"name": "hot", "text": "Too hot", "sensor": {"sensor": ALARM_SENSOR, "above": 500}}]}


@dataclass
class Cost:
    """CPU seconds of each service, and what was done meanwhile."""

    seconds: float
    cpu: dict[str, float]
    scored: float = 0.0


@dataclass
class Observed:
    """ages: of risks in seconds. alarms: seconds from acceptance until the API shows them."""

    ages: list[float] = field(default_factory=list)
    alarms: list[float] = field(default_factory=list)


class Scorers:
    """Scorers that share the machines. One alone is not told of peers."""

    def __init__(self, first: Platform, count: int) -> None:
        self.platforms = [first]
        for number in range(1, count):
            other = Platform(first.folder / f"scorer-{number}", extra=dict(first.extra))
            other.extra["AURUM_MODEL_DIR"] = str(first.folder / "models")
            other.ports["ingestion"] = first.port("ingestion")
            self.platforms.append(other)
        self._addresses = [f"127.0.0.1:{each.port('prediction')}" for each in self.platforms]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Starts them, and stops them at the end."""
        try:
            for platform, own in zip(self.platforms, self._addresses, strict=True):
                if len(self.platforms) > 1:
                    peers = {"AURUM_PREDICTION_PEERS": ",".join(self._addresses), "AURUM_PREDICTION_OWN_ADDRESS": own}
                    platform.extra |= peers
                platform.start("prediction")
            yield
        finally:
            for platform in self.platforms:
                if scorer := platform.processes.pop("prediction", None):
                    scorer.kill(signal.SIGTERM)

    def metric(self, series: str) -> float:
        """The sum of a metric over all scorers."""
        return sum(each.metric("prediction", series) for each in self.platforms if "prediction" in each.processes)

    def wait_until_filled(self, machines: int) -> float:
        """Waits for all windows. Returns the seconds that it took."""
        started = time.time()
        while self.metric('prediction_fleet_machines{by="model"}') < machines:
            if time.time() > started + LONGEST_FILL:
                raise SystemExit(f"fleet: windows were not filled within {LONGEST_FILL} s")
            time.sleep(1)  # a scrape takes time too
        return time.time() - started

    def megabytes(self) -> float:
        """The memory of the largest one."""
        pids = [each.processes["prediction"].popen.pid for each in self.platforms]
        return float(max(psutil.Process(pid).memory_info().rss for pid in pids)) / 1e6


def cpu(platforms: Sequence[Platform]) -> dict[str, float]:
    """CPU seconds of each service, over its processes."""
    found: dict[str, float] = {}
    for platform in platforms:
        for service, process in platform.processes.items():
            used = psutil.Process(process.popen.pid).cpu_times()
            found[service] = found.get(service, 0.0) + used.user + used.system
    return found


async def measured(scorers: Scorers, load: Load, seconds: int, hot_each: int) -> tuple[Cost, Observed, float]:
    """Runs the load, and observes risks and alarms meanwhile."""
    platform = scorers.platforms[0]
    observed = Observed()
    done = asyncio.Event()
    # The observers run without scoring too, so that what they cost is not counted
    watching = asyncio.create_task(watch(load, observed, done))
    asking = asyncio.create_task(ask(platform, load, observed, done))
    sending = asyncio.create_task(load.live(seconds, hot_each))
    await asyncio.sleep(1)
    await asyncio.sleep(load.begin + SETTLED - time.time())
    before, started = cpu(scorers.platforms), time.time()
    scored = scorers.metric("prediction_fleet_scored_total ")
    observed.ages.clear()
    await asyncio.sleep(seconds - SETTLED - 1)
    after = cpu(scorers.platforms)
    cost = Cost(time.time() - started, {each: after[each] - before[each] for each in after})
    cost.scored = scorers.metric("prediction_fleet_scored_total ") - scored
    ages = list(observed.ages)
    longest = await sending
    await asyncio.sleep(3)
    done.set()
    await asking
    watching.cancel()  # nothing changes any more
    await asyncio.gather(watching, return_exceptions=True)
    observed.ages = ages
    return cost, observed, longest


async def watch(load: Load, observed: Observed, done: asyncio.Event) -> None:
    """Notes every second how old the latest published prediction of each machine is."""
    latest: dict[str, int] = {}

    async def sample() -> None:
        while not done.is_set():
            await asyncio.sleep(1)
            now = time.time()
            observed.ages += [now - at / 1e6 for at in list(latest.values())]

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sample())
        tasks.create_task(receive(load, latest))


async def receive(load: Load, latest: dict[str, int]) -> None:
    """Keeps the time of the readings of the latest published predictions."""
    async with grpc.aio.insecure_channel(load.address, [("grpc.max_receive_message_length", 64_000_000)]) as channel:
        call = ingestion_pb2_grpc.IngestionServiceStub(channel).Watch(
            ingestion_pb2.WatchRequest(predictions=True, interval_ms=500)
        )
        async for response in call:
            for prediction in response.predictions:
                latest[prediction.machine_id] = prediction.as_of_us


async def ask(platform: Platform, load: Load, observed: Observed, done: asyncio.Event) -> None:
    """Notes when the API first shows the alarm of each hot machine."""
    seen: dict[str, float] = {}
    while not done.is_set():
        answer = await asyncio.to_thread(http, "GET", f"{platform.api}/api/alarms?limit=1000")
        now = time.time()
        for alarm in answer.json.get("items", ()):
            seen.setdefault(alarm["id"].partition("~")[0], now)
        await asyncio.sleep(0.1)
    observed.alarms = [seen.get(machine, time.time()) - at for machine, at in load.accepted.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 machines for a short time")
    parser.add_argument("--machines", type=int)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--scorers", type=int, default=1, help="compare this number of scorers with one")
    arguments = parser.parse_args()
    machines = arguments.machines or (1000 if arguments.quick else 10_000)
    seconds = arguments.seconds or (20 if arguments.quick else 60)
    with tempfile.TemporaryDirectory() as state:
        folder = Path(state)
        sensors = model(folder / "models")
        (folder / "rules.yaml").write_text(json.dumps(RULES))
        # With a PYTHONPATH, processes are started by the interpreter, so that their memory is their own
        extra = {"AURUM_ALARM_RULES": str(folder / "rules.yaml"), "PYTHONPATH": str(folder)}
        platform = Platform(folder, extra=extra)
        one = Scorers(platform, 1)
        try:
            platform.start("ingestion")
            load = Load(f"127.0.0.1:{platform.port('ingestion')}", machines, sensors)
            asyncio.run(load.register())
            asyncio.run(load.history(WINDOW))
            platform.start("api")
            idle, _, _ = asyncio.run(measured(one, load, seconds, 0))
            with one.running():
                fill_seconds = one.wait_until_filled(machines)
                busy, observed, longest = asyncio.run(measured(one, load, seconds, 2))
                memory = one.megabytes()
                late = one.metric('prediction_fleet_filled_total{reason="late"}')
            shared = None
            if arguments.scorers > 1:
                several = Scorers(platform, arguments.scorers)
                with several.running():
                    several.wait_until_filled(machines)
                    shared, _, _ = asyncio.run(measured(several, load, seconds, 2))
        finally:
            platform.stop()
    ages, alarms = sorted(observed.ages), sorted(observed.alarms)
    goals = {
        "scoring_cpu_ms_per_machine": Goal(1e3 * per_machine(busy, idle), 0.2, at_most=True),
        "risk_age_p99_seconds": Goal(centile(ages, 0.99), 5, at_most=True),
        "alarm_p99_seconds": Goal(centile(alarms, 0.99), 2, at_most=True),
        "scorer_mb": Goal(memory, 300, at_most=True),
    }
    if shared:
        ratio = per_machine(shared, idle) / per_machine(busy, idle)
        goals[f"work_of_{arguments.scorers}_scorers_over_one"] = Goal(ratio, 1.1, at_most=True)
    report(
        "fleet",
        goals,
        {
            "machines": machines,
            "sensors": len(sensors),
            "scored_per_second": busy.scored / busy.seconds,
            "cpu_share_with_scoring": shares(busy),
            "cpu_share_without": shares(idle),
            "cpu_share_with_several_scorers": shares(shared) if shared else {},
            "work_with_ingestion_over_one": work(shared) / work(busy) if shared else None,
            "risk_age_seconds": {"p50": centile(ages, 0.5), "p95": centile(ages, 0.95), "samples": len(ages)},
            "alarm_seconds": {**spread(alarms), "p95": centile(alarms, 0.95)} if alarms else {},
            "longest_acknowledgement_seconds": longest,
            "fill_seconds": fill_seconds,
            "filled_again": late,
            "protocol": "one reading per series and second, batches of 2,000 series, stored by SQLite; the CPU of "
            "scoring is the difference from the same load without the prediction service, also for several scorers",
        },
    )


def shares(cost: Cost) -> dict[str, float]:
    """The share of a core that each service took."""
    return {each: value / cost.seconds for each, value in cost.cpu.items()}


def work(cost: Cost) -> float:
    """CPU seconds of all services for each scored machine."""
    return sum(cost.cpu.values()) / max(1.0, cost.scored)


def per_machine(busy: Cost, idle: Cost) -> float:
    """CPU seconds of scoring over all services for each scored machine."""
    without = shares(idle)
    rates = {each: share - without.get(each, 0.0) for each, share in shares(busy).items()}
    return sum(rates.values()) * busy.seconds / max(1.0, busy.scored)


def centile(values: Sequence[float], share: float) -> float:
    """The value below which this share of sorted values is; 999 without any."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 999.0


if __name__ == "__main__":
    main()
