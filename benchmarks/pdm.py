"""Skill on tables as people bring them, against naive baselines: each table of a folder, read as `aurum train` does.

Protocol: three folds of whole machines (or lives, where there are fewer machines). Each fold is predicted by a model
that `aurum train`'s own path trains on the others, and by baselines that know the same lives. Lives give the RMSE of
the RUL up to the model's cap, beside "median life minus age" and "mean RUL"; labels give Brier score and AUC, beside
the base rate and the last outcome before. The skill is 1 - error / error of the best baseline.
"""

import argparse
import lzma
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aurum.commands.histories import HistoryError
from aurum.commands.tabular_histories import DeclaredColumns, TableRoleError
from aurum.commands.training_data import DataSelection, load_histories
from aurum.prediction.training.columns import ages_of
from aurum.prediction.training.table import outcomes_of, tabulate
from aurum.prediction.training.train import TrainingDataError, TrainingOptions, train
from aurum.readings.history import Run
from aurum.readings.tables import TableError
from benchmarks.harness import Goal, report

SEED = 7
FOLDS = 3
Floats = npt.NDArray[np.float64]
DECLARED = {  # what cannot be told from the names of a table's columns
    "battery_id": DeclaredColumns(unit="battery", life="Cycle_Index", left="RUL"),
    "mill2": DeclaredColumns(unit="case", life="time"),
}


def folds_of(runs: Sequence[Run]) -> list[tuple[list[Run], list[Run]]]:
    """Returns the runs to train on and those to judge by, for each fold."""
    machines = list(dict.fromkeys(run.machine for run in runs))
    names = [run.machine for run in runs] if len(machines) >= 2 * FOLDS else [run.machine_id for run in runs]
    distinct = list(dict.fromkeys(names))
    if len(distinct) < 2 * FOLDS:
        raise TrainingDataError(f"{len(distinct)} machines or lives; at least {2 * FOLDS} are needed to judge by folds")
    order = np.random.default_rng(SEED).permutation(len(distinct))
    fold = {distinct[index]: number % FOLDS for number, index in enumerate(order)}
    return [
        (
            [run for run, name in zip(runs, names, strict=True) if fold[name] != each],
            [run for run, name in zip(runs, names, strict=True) if fold[name] == each],
        )
        for each in range(FOLDS)
    ]


def judge_lives(name: str, runs: Sequence[Run], life: str | None) -> dict[str, float | str]:
    """Returns the error of the RUL of held-out machines, and of the baselines."""
    truths: list[Floats] = []
    told: dict[str, list[Floats]] = {"model": [], "median life minus age": [], "mean RUL": []}
    for known, unseen in folds_of(runs):
        model, _ = train(name, known, name, TrainingOptions(seed=SEED, life=life))
        card = model.card
        if card.kind != "rul":
            return judge_labels(name, runs, life)
        axis = card.axis
        lives = [float(np.nanmax(ages_of(run, axis))) + run.left for run in known if run.failed]
        table = tabulate(unseen, model.spec, 1_000_000)
        left = outcomes_of(table, "rul", card.rul_cap, card.horizon).left
        predicted = model.predict(table.features).rul
        trained = tabulate(known, model.spec, 1_000_000)
        of_known = outcomes_of(trained, "rul", card.rul_cap, card.horizon).left
        assert left is not None
        assert predicted is not None
        assert of_known is not None
        ages = np.concatenate([_ages(table.run == number, table.share, run, axis) for number, run in enumerate(unseen)])
        usable = ~np.isnan(left)
        truths.append(left[usable])
        told["model"].append(predicted[usable])
        told["median life minus age"].append(np.clip(np.median(lives) - ages, 0, card.rul_cap)[usable])
        told["mean RUL"].append(np.full(int(usable.sum()), float(np.nanmean(of_known))))
    truth = np.concatenate(truths)
    errors = {each: float(np.sqrt(np.mean((np.concatenate(parts) - truth) ** 2))) for each, parts in told.items()}
    best = min(error for each, error in errors.items() if each != "model")
    return {"kind": "rul", "rows": len(truth), **errors, "skill": 1 - errors["model"] / best}


def _ages(rows: npt.NDArray[np.bool_], share: Floats, run: Run, axis: str) -> Floats:
    """Returns the ages at the rows of a run, by the elapsed share of its life."""
    ages = ages_of(run, axis)
    first, last = float(np.nanmin(ages)), float(np.nanmax(ages)) + run.left
    aged: Floats = first + share[rows] * (last - first)
    return aged


def judge_labels(name: str, runs: Sequence[Run], life: str | None) -> dict[str, float | str]:
    """Returns the Brier score of the risk of held-out machines, its AUC, and the scores of the baselines."""
    outcomes: list[npt.NDArray[np.bool_]] = []
    told: dict[str, list[Floats]] = {"model": [], "base rate": [], "last outcome": []}
    for known, unseen in folds_of(runs):
        model, _ = train(name, known, name, TrainingOptions(seed=SEED, life=life))
        card = model.card
        if card.kind == "anomaly":
            return {"kind": "anomaly", "reason": "no failures are declared, so nothing can be judged"}
        table = tabulate(unseen, model.spec, 1_000_000)
        target = outcomes_of(table, card.kind, card.rul_cap, card.horizon)
        risk = model.predict(table.features).risk
        assert risk is not None
        assert card.evaluation is not None
        soon = target.soon[target.known]
        outcomes.append(soon)
        told["model"].append(risk[target.known])
        told["base rate"].append(np.full(len(soon), card.evaluation.metrics.risk_base_rate))
        told["last outcome"].append(np.append(0.0, soon[:-1].astype(float)))
    soon = np.concatenate(outcomes)
    errors = {each: float(np.mean((np.concatenate(parts) - soon) ** 2)) for each, parts in told.items()}
    best = min(error for each, error in errors.items() if each != "model")
    scores = np.concatenate(told["model"])
    return {
        "kind": "labels",
        "rows": len(soon),
        "failures": int(soon.sum()),
        **errors,
        "auc": auc(scores, soon),
        "skill": 1 - errors["model"] / best,
    }


def auc(scores: Floats, outcomes: npt.NDArray[np.bool_]) -> float:
    """Returns the chance that a positive row has a greater score than a negative one; ties count half."""
    positive, negative = np.sort(scores[outcomes]), np.sort(scores[~outcomes])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, side="left") + np.searchsorted(negative, positive, side="right")
    return float(below.mean() / 2 / len(negative))


def judge(path: Path) -> dict[str, dict[str, float | str]]:
    """Judges each machine type of a table. A table that cannot be used is reported with the reason."""
    name = path.name.partition(".")[0]
    with tempfile.TemporaryDirectory() as scratch:
        table = path
        if path.suffix == ".xz":
            table = Path(scratch) / path.stem
            with lzma.open(path) as packed, table.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        try:
            histories = load_histories(DataSelection(None, [table], [], declared=DECLARED.get(name, DeclaredColumns())))
        except (HistoryError, TableError, TableRoleError) as error:
            return {name: {"kind": "refused", "reason": str(error)}}
    judged: dict[str, dict[str, float | str]] = {}
    for machine_type, runs in histories.by_type.items():
        started = time.perf_counter()
        try:
            judged[machine_type] = judge_lives(machine_type, runs, histories.life)
        except TrainingDataError as error:
            judged[machine_type] = {"kind": "refused", "reason": str(error)}
        judged[machine_type]["seconds"] = round(time.perf_counter() - started, 1)
    return judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the first table")
    parser.add_argument("--data", type=Path, default=os.environ.get("AURUM_PDM"), help="folder of tables")
    arguments = parser.parse_args()
    tables = sorted(arguments.data.glob("*.csv*")) if arguments.data else []
    if not tables:
        raise SystemExit("name a folder with tables (.csv or .csv.xz) by --data")
    results: dict[str, dict[str, float | str]] = {}
    for path in tables[:1] if arguments.quick else tables:
        results |= judge(path)
    goals = {}
    for name, found in results.items():
        print(name, {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()})
        if isinstance(skill := found.get("skill"), float):
            goals[f"{name}_skill"] = Goal(skill, 0.0)
    report("pdm", goals, {"seed": SEED, "folds": FOLDS, "tables": results})


if __name__ == "__main__":
    main()
