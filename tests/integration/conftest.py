from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mosquitto import Mosquitto


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    running = Mosquitto(tmp_path / "broker")
    yield running
    running.close()


@pytest.fixture
def fast_broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """Keeps nothing on a disk."""
    running = Mosquitto(tmp_path / "broker", persistent=False)
    yield running
    running.close()
