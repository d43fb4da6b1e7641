"""A plant without fault sensors, whose failures and overhauls are recorded through the API, learns from them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aurum.commands.histories import from_store
from aurum.prediction.learning.comparison import compare, trained_until
from aurum.prediction.model.model import load_model
from aurum.prediction.model.model_files import read_serving, write_model
from aurum.prediction.training.train import TrainingOptions, train
from aurum_sim.machine_types import PUMP
from tests.support.commands import command
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.recorded_plant import RecordedPlant, recorded_plant

BEGIN, ROWS = 1_700_000_000_000_000, 1000


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    running = Platform(tmp_path, extra={"AURUM_FEATURE_PREDICTIVE": "false", "AURUM_LEARN_DAYS": "36500"})
    for service in ("ingestion", "api"):
        running.start(service)
    yield running
    running.stop()


def send(platform: Platform, plant: RecordedPlant, rows: slice) -> None:
    """Sends the readings of some rows, and records through the API what happened meanwhile."""
    times = plant.timestamps[rows]
    for machine, columns in plant.columns.items():
        lines = [",".join(["machine_id", "timestamp", *columns])]
        for row, at in zip(range(rows.start, rows.stop), times.tolist(), strict=True):
            cells = ("" if np.isnan(values[row]) else repr(float(values[row])) for values in columns.values())
            lines.append(",".join([machine, str(at), *cells]))
        answer = http("POST", f"{platform.api}/api/readings", "\n".join(lines).encode(), {"Content-Type": "text/csv"})
        assert answer.status == 200, answer.body
        if rows.start == 0:
            body = {"machine_id": machine, "machine_type": "pump"}
            assert http("POST", f"{platform.api}/api/machines", body).status == 201
        for stop in plant.stops[machine]:
            if not times[0] <= (stop.to_us or 0) <= times[-1]:
                continue
            record = {
                "text": "Stopped" if stop.failed else "Overhauled",
                "kind": "failure" if stop.failed else "overhaul",
                "from": str(stop.from_us),
                "to": str(stop.to_us),
            }
            answer = http("POST", f"{platform.api}/api/machines/{machine}/maintenance", record)
            assert answer.status == 201, answer.body


def learn(platform: Platform, *arguments: str) -> str:
    done = command("learn", "--rows", "2000", "--rounds", "30", *arguments, environment=platform.environment("learn"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_recorded_failures_make_a_model_with_skill(platform: Platform) -> None:
    plant = recorded_plant(PUMP, 14, ROWS * 2.0, 2.0, 3, BEGIN)
    send(platform, plant, slice(0, ROWS // 2))
    assert "first champion" in learn(platform)
    models = platform.folder / "models"
    serving = read_serving(models, "pump")
    assert serving is not None
    first = load_model(models / "pump" / serving.version)
    assert first.card.data.failures >= 6

    send(platform, plant, slice(ROWS // 2, ROWS))
    runs = from_store([platform.folder / "store.db"], "pump", False)["pump"]
    later = compare(first, None, runs, trained_until(first))
    assert later is not None
    assert later.failures >= 5
    assert later.candidate.skill > 0.3

    # A bad model, which was told every life backwards, is not promoted
    early = [run for run in runs if run.timestamps[-1] <= trained_until(first)]
    changed = [replace(run, columns={k: v[::-1].copy() for k, v in run.columns.items()}) for run in early]
    for run, original in zip(changed, early, strict=True):
        run.columns["operating_hours"] = original.columns["operating_hours"]
    bad, contents = train("pump", changed, "test", TrainingOptions(rows=2000, rounds=30))
    write_model(models, "pump", bad.card.version, contents)
    environment = platform.environment("models")
    assert command("models", "shadow", "pump", bad.card.version, environment=environment).returncode == 0
    target = f"127.0.0.1:{platform.port('ingestion')}"
    assert f"{bad.card.version} is withdrawn" in learn(platform, "--ingestion", target)
    now = read_serving(models, "pump")
    assert now is not None
    assert now.version == serving.version
    assert now.shadow not in (None, bad.card.version)
