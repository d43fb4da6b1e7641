"""`aurum predict`: the predictions of the machines in files at their last readings, as CSV or JSON."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from aurum.commands.model_data import Loaded, last_runs, latest_features, load_with_models
from aurum.commands.training_data import DataSelection
from aurum.readings.history import Run


@dataclass(frozen=True, slots=True)
class MachinePrediction:
    """The prediction of a machine. A value that its model does not provide is None.

    Attributes:
        machine_id: The machine.
        machine_type: Its type.
        time: The time of its last reading, RFC 3339 in UTC; empty if the data has only a count of life.
        life: Its life then, in `unit`; None if no sensor counts it.
        risk: The probability of a failure within `horizon`.
        rul: The remaining useful life, in `unit`, at most `rul_cap`.
        rul_low: Lower end of the 90 % interval.
        rul_high: Upper end.
        anomaly: The anomaly score, from 0 to 1.
        unit: The unit of life and RUL.
        horizon: The horizon of the risk, in `unit`.
        rul_cap: The cap of the RUL, in `unit`.
        model_version: The model that predicted.
        problem: Why there is no prediction; empty if there is one.
    """

    machine_id: str
    machine_type: str
    time: str
    life: float | None = None
    risk: float | None = None
    rul: float | None = None
    rul_low: float | None = None
    rul_high: float | None = None
    anomaly: float | None = None
    unit: str = ""
    horizon: float | None = None
    rul_cap: float | None = None
    model_version: str = ""
    problem: str = ""


def predict_files(given: DataSelection, root: Path, version: str | None, out: Path | None) -> None:
    """Writes the predictions of machines at their last readings.

    Args:
        given: The data.
        root: The folder of the models.
        version: The version of the model; None for the champion.
        out: The file, .csv or .json; None for CSV on stdout.

    Raises:
        ModelDataError: See `load_with_models`, whose errors of reading data are raised too.
        OSError: The file cannot be written.
    """
    found = [each for loaded in load_with_models(given, root, version).values() for each in _predictions(loaded)]
    if out is None:
        sys.stdout.write(_csv_of(found))
        return
    out.write_text(_json_of(found) if out.suffix.lower() == ".json" else _csv_of(found), encoding="utf-8")
    without = sum(1 for each in found if each.problem)
    print(
        f"{len(found) - without} predictions written to {out}{f', {without} machines without one' if without else ''}"
    )


def _predictions(loaded: Loaded) -> Iterator[MachinePrediction]:
    """Yields the prediction of each machine, in the order of the data."""
    model, card = loaded.model, loaded.model.card
    runs = last_runs(loaded.runs)
    found = [latest_features(model, run) for run in runs]
    rows = [each[0][0] for each in found if each is not None]
    predicted = model.predict(np.array(rows)) if rows else None
    lives = card.kind == "rul"
    position = 0
    for run, each in zip(runs, found, strict=True):
        time = _time_of(run) if loaded.clock else ""
        if each is None or predicted is None:
            problem = f"no reading of the model's sensors {', '.join(model.spec.queried)}"
            yield MachinePrediction(run.machine, card.machine_type, time, model_version=card.version, problem=problem)
            continue
        quantiles = predicted.quantiles
        yield MachinePrediction(
            run.machine,
            card.machine_type,
            time,
            float(each[1].ages[-1]) if each[1].counted else None,
            None if predicted.risk is None else _rounded(predicted.risk[position]),
            None if predicted.rul is None else _rounded(predicted.rul[position]),
            None if quantiles is None else _rounded(quantiles[position, 0]),
            None if quantiles is None else _rounded(quantiles[position, -1]),
            _rounded(predicted.anomaly[position]),
            card.unit,
            card.horizon if lives else None,
            card.rul_cap if lives else None,
            card.version,
        )
        position += 1


def _time_of(run: Run) -> str:
    return (
        datetime.fromtimestamp(int(run.timestamps[-1]) / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _csv_of(predictions: Sequence[MachinePrediction]) -> str:
    written = io.StringIO()
    names = list(MachinePrediction.__dataclass_fields__)
    writer = csv.DictWriter(written, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_fields(each) for each in predictions)
    return written.getvalue()


def _json_of(predictions: Sequence[MachinePrediction]) -> str:
    return json.dumps({"predictions": [_fields(each) for each in predictions]}, indent=1, allow_nan=False) + "\n"


def _fields(prediction: MachinePrediction) -> dict[str, Any]:
    return asdict(prediction)
