"""The view of the plant that the API has: machines and predictions as Watch sends them."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aurum.api.machine_cache import MachineCache
from aurum.runtime.errors import UnavailableError
from aurum.v1 import columns_pb2, ingestion_pb2, prediction_pb2
from tests.support.waiting import until


class Watched:
    """An ingestion whose Watch sends these responses."""

    def __init__(self) -> None:
        self.responses: asyncio.Queue[columns_pb2.WatchedMachines] = asyncio.Queue()
        self.asked: list[bool] = []
        self.handled = 0

    async def watch_machines(
        self, interval_ms: int, *, predictions: bool
    ) -> AsyncIterator[columns_pb2.WatchedMachines]:
        self.asked.append(predictions)
        while True:
            yield await self.responses.get()
            self.handled += 1


def machine(last_seen_us: int = 5) -> ingestion_pb2.Machine:
    return ingestion_pb2.Machine(machine_id="m", last_seen_us=last_seen_us)


def prediction(as_of: int, risk: float) -> prediction_pb2.PredictResponse:
    return prediction_pb2.PredictResponse(machine_id="m", as_of_us=as_of, risk_score=risk)


class Plant:
    """A cache that follows an ingestion, and what it has been sent."""

    def __init__(self, *, predictions: bool = True) -> None:
        self.ingestion: Any = Watched()
        self.cache = MachineCache(self.ingestion, self.ingestion, 1.0, predictions=predictions)
        self.following = asyncio.create_task(self.cache.follow_machines())
        self.sent = 0

    async def send(
        self, *predictions: prediction_pb2.PredictResponse, machines: int = 0, published: float = 0.0
    ) -> None:
        """published: seconds ago."""
        message = ingestion_pb2.WatchResponse(
            machines=[machine()] * machines,
            predictions=predictions,
            published_us=[int((time.time() - published) * 1e6)] * len(predictions),
        )
        self.ingestion.responses.put_nowait(columns_pb2.WatchedMachines.FromString(message.SerializeToString()))
        self.sent += 1
        await until(lambda: self.ingestion.handled == self.sent)

    def risk(self) -> float | None:
        found = self.cache.prediction_with_age("m")
        return found and found[0].risk_score


async def test_prediction_has_the_age_since_it_was_published() -> None:
    """Also an API that has just started shows that no scorer has predicted for an hour."""
    plant = Plant()
    await plant.send(prediction(5, 0.3), machines=1, published=3600)
    found = plant.cache.prediction_with_age("m")
    assert found is not None
    assert found[1] == pytest.approx(3600, abs=60)
    plant.following.cancel()


async def test_prediction_from_older_readings_is_not_shown() -> None:
    plant = Plant()
    await plant.send(machines=1)
    plant.cache.store_prediction("m", prediction(9, 0.5))  # obtained by a request
    version = plant.cache.version
    await plant.send(prediction(8, 0.3))
    await plant.send(prediction(9, 0.4), published=60)
    assert (plant.risk(), plant.cache.version) == (0.5, version)
    await plant.send(prediction(9, 0.6), published=-60)
    assert plant.risk() == 0.6
    await plant.send(prediction(10, 0.7), published=60)
    assert plant.risk() == 0.7
    assert plant.cache.version > version
    plant.following.cancel()


async def test_new_api_waits_for_predictions_a_limited_time() -> None:
    plant = Plant()
    assert plant.cache.readiness_problem(60) == "the machines are not loaded yet"
    await plant.send(machines=1)
    assert plant.cache.readiness_problem(60) == "the machines have no predictions yet"
    assert plant.cache.readiness_problem(0) is None
    await plant.send(prediction(5, 0.3))
    assert plant.cache.readiness_problem(60) is None
    plant.following.cancel()


async def test_plant_without_predictions_does_not_delay_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aurum.api.machine_cache._WAIT_FOR_PREDICTIONS", 0.0)
    plant = Plant()
    await plant.send(machines=1)
    assert plant.cache.readiness_problem(60) is None
    plant.following.cancel()


async def test_api_without_predictions_does_not_ask_for_them() -> None:
    plant = Plant(predictions=False)
    await plant.send(machines=1)
    assert plant.ingestion.asked == [False]
    assert plant.cache.readiness_problem(60) is None
    plant.following.cancel()


class Checked:
    """A service whose health check fails until it is told otherwise."""

    def __init__(self) -> None:
        self.checks = 0
        self.healthy = False

    async def check_health(self) -> None:
        self.checks += 1
        if not self.healthy:
            raise UnavailableError("the connection is refused")


async def test_failed_health_checks_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """An API without a prediction service would otherwise write two lines a second."""
    caplog.set_level("INFO", "aurum.api.machine_cache")
    ingestion, prediction_service = Checked(), Checked()
    ingestion.healthy = True
    cache = MachineCache(ingestion, prediction_service, 1.0)  # type: ignore[arg-type]
    probing = asyncio.create_task(cache.probe_services())
    await until(lambda: prediction_service.checks >= 3)
    prediction_service.healthy = True
    await until(lambda: "prediction" not in cache.unreachable_services())
    probing.cancel()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "the health check of prediction failed: the connection is refused" in caplog.records[0].message
    assert caplog.records[1].message == "prediction answers its health check again"
