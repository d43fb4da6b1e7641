"""RUL on NASA's C-MAPSS turbofan data: error, NASA's asymmetric score and coverage of the intervals on the test
engines.

Protocol: `aurum train`'s own path with its defaults and a cap of 125 cycles, as the literature has it; everything
that was chosen, was by cross-validation over the training engines. Each test engine is used once, at its last cycle.
Truths above the cap count as the cap, for nothing above it is predicted; the error against the truths as published
stands beside it. Score: sum of exp(-d/13) - 1 for early and exp(d/10) - 1 for late predictions (Saxena et al., 2008).
"""

import argparse
import lzma
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from aurum.commands.histories import from_cmapss
from aurum.prediction.model.features import features_of_windows, steps_of, window_of
from aurum.prediction.training.evaluation import nasa_score
from aurum.prediction.training.train import TrainingOptions, train
from aurum.prediction.training.validation import within
from benchmarks.harness import Goal, report

CAP = 125.0
SEED = 7
GOALS = {"FD001": 10.3, "FD002": 9.9}  # RMSE
MOST_SECONDS = 30.0  # of the training, on two cores


def judge(folder: Path, name: str) -> dict[str, float]:
    """Trains on the training engines and predicts the test engines."""
    started, used = time.perf_counter(), time.process_time()
    runs = from_cmapss([folder / f"train_{name}.txt"], "turbofan")["turbofan"]
    model, _ = train("turbofan", runs, f"C-MAPSS {name}", TrainingOptions(seed=SEED, rul_cap=CAP))
    seconds, processor_seconds = time.perf_counter() - started, time.process_time() - used
    engines = from_cmapss([folder / f"test_{name}.txt"], "turbofan")["turbofan"]
    truths = np.loadtxt(folder / f"RUL_{name}.txt")
    windows = [
        window_of(steps_of({each: (run.timestamps, run.columns[each]) for each in model.spec.queried}, model.spec))
        for run in engines
    ]
    told = model.predict(features_of_windows(windows))
    assert told.rul is not None
    assert told.quantiles is not None
    assert model.card.evaluation is not None
    capped = np.minimum(truths, CAP)
    errors = told.rul - capped
    inside = within(capped, told.quantiles[:, 0], told.quantiles[:, -1])
    crosswise = model.card.evaluation.metrics
    return {
        "rmse": float(np.sqrt((errors**2).mean())),
        "rmse_uncapped_truth": float(np.sqrt(((told.rul - truths) ** 2).mean())),
        "score": nasa_score(errors),
        "score_uncapped_truth": nasa_score(told.rul - truths),
        "coverage": float(inside.mean()),
        "interval_width": float((told.quantiles[:, -1] - told.quantiles[:, 0]).mean()),
        "engines": len(engines),
        "training_rmse_crosswise": crosswise.rul_rmse or 0.0,
        "training_coverage_crosswise": crosswise.interval_coverage or 0.0,
        "training_ece_crosswise": crosswise.risk_ece,
        "training_seconds": seconds,
        "training_processor_seconds": processor_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the first set")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AURUM_CMAPSS", "../shared/data/cmapss")))
    arguments = parser.parse_args()
    names = sorted(
        {path.name.partition(".")[0].removeprefix("train_") for path in arguments.data.glob("train_FD*.txt*")}
    )
    if not names:
        raise SystemExit(f"no train_FD*.txt in {arguments.data}; get NASA's C-MAPSS data and name its folder by --data")
    print(f"seed {SEED}, cap {CAP:g} cycles, 5 folds over the training engines, test engines at their last cycle")
    results: dict[str, dict[str, float]] = {}
    goals: dict[str, Goal] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names[:1] if arguments.quick else names:
            found = results[name] = judge(unpacked(arguments.data, name, Path(scratch)), name)
            print(name, {key: round(value, 3) for key, value in found.items()}, flush=True)
            if name in GOALS:
                goals[f"{name}_rmse"] = Goal(found["rmse"], GOALS[name], at_most=True)
            goals[f"{name}_coverage_least"] = Goal(found["coverage"], 0.87)
            goals[f"{name}_coverage_most"] = Goal(found["coverage"], 0.95, at_most=True)
            goals[f"{name}_seconds"] = Goal(found["training_seconds"], MOST_SECONDS, at_most=True)
    report("cmapss", goals, {"seed": SEED, "cap": CAP, "sets": results})


def unpacked(folder: Path, name: str, scratch: Path) -> Path:
    """Returns a folder with the files of a set, unpacked if they are packed."""
    for stem in (f"train_{name}.txt", f"test_{name}.txt", f"RUL_{name}.txt"):
        if (folder / stem).exists():
            shutil.copyfile(folder / stem, scratch / stem)
        else:
            with lzma.open(folder / f"{stem}.xz") as packed, (scratch / stem).open("wb") as written:
                shutil.copyfileobj(packed, written)
    return scratch


if __name__ == "__main__":
    main()
