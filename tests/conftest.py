"""What all tests share: the tier they belong to, the order in which workers take them, and running services."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.support.cassandra.cluster import Cluster, what_is_missing
from tests.support.models import pump_model
from tests.support.platform import Platform

pytest_plugins = ["tests.support.proof"]
settings.register_profile("patient", deadline=None)  # a machine that is busy fails no property
settings.load_profile("patient")

_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_UNIT = Path(__file__).parent / "unit"
_LONG = {"test_operator_model.py"}  # of these, files that take as long as those that start services


class ByFile(LoadScopeScheduling):
    """A worker takes a whole file, so that its tests share the file's services."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first where several workers run tests."""
    if _WORKERS > 1:
        items.sort(key=lambda item: _UNIT in item.path.parents and item.path.name not in _LONG)


def pytest_collection_finish() -> None:
    """Keeps the modules and tests out of later garbage collections, some of which tests ask for: there are a million
    objects, which take a quarter of a second each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Writes what `make coverage` has measured in this process: xdist kills workers that take 10 seconds to end."""
    measuring = sys.modules.get("coverage")
    current = measuring.Coverage.current() if measuring else None
    if current is not None:
        current.save()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """An empty platform; a test starts the services that it needs."""
    running = Platform(tmp_path)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of a pump."""
    folder = tmp_path_factory.mktemp("models")
    pump_model(folder)
    return folder


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Platform]:
    """Ingestion, prediction and API, shared by tests that only ask and add."""
    running = Platform(tmp_path_factory.mktemp("serving"), extra={"AURUM_MODEL_DIR": str(models)})
    for service in ("ingestion", "prediction", "api"):
        running.start(service)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def cassandra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three real Cassandra nodes."""
    if missing := what_is_missing():
        pytest.skip(missing)
    cluster = Cluster(tmp_path_factory.mktemp("cassandra"))
    try:
        cluster.start(3)
        yield cluster
    finally:
        cluster.stop()
