"""`aurum train`: a model for each machine type in the data."""

import time
from collections.abc import Sequence
from pathlib import Path

from aurum.commands.histories import HistoryError, digest, from_cmapss, from_csv, from_plant, from_store
from aurum.commands.importing import CMAPSS_TYPE
from aurum.commands.progress import progress_bar
from aurum.prediction.training import TrainingOptions, save, train
from aurum.readings.history import Run
from aurum.readings.tables import TableError


def train_all(
    form: str,
    files: Sequence[Path],
    out: Path,
    types: Sequence[str],
    run_to_failure: bool,
    machines: int,
    options: TrainingOptions,
) -> None:
    """Trains and saves. Raises HistoryError, TableError, TrainingDataError."""
    histories, source = _histories(form, files, types, run_to_failure, machines, options.seed)
    for machine_type, runs in histories.items():
        started = time.monotonic()
        with progress_bar(f"Training {machine_type}") as update:
            model, contents = train(machine_type, runs, source, options, update)
        folder = save(out, model, contents)
        card, measured = model.card, model.card.metrics
        print(
            f"{machine_type}: {card.data.failures} failures, RUL within {measured.rul_mae:.3g} {card.unit} on average "
            f"(up to {card.rul_cap:g}), {measured.interval_coverage:.0%} of intervals hold, risk within "
            f"{card.horizon:g} {card.unit} off by {measured.risk_ece:.1%}; {folder} "
            f"({time.monotonic() - started:.1f} s)"
        )


def _histories(
    form: str, files: Sequence[Path], types: Sequence[str], run_to_failure: bool, machines: int, seed: int
) -> tuple[dict[str, list[Run]], str]:
    if form == "plant":
        return from_plant(types, machines, seed), f"plant model, {machines} machines a type, seed {seed}"
    if form != "store" and len(types) > 1:
        raise HistoryError("one --machine-type is for all machines of these files")
    try:
        match form:
            case "cmapss":
                return from_cmapss(files, types[0] if types else CMAPSS_TYPE), f"C-MAPSS: {digest(files)}"
            case "csv":
                if not types:
                    raise HistoryError("say with --machine-type what machines these are")
                return from_csv(files, types[0], run_to_failure), f"CSV: {digest(files)}"
            case _:
                only = types[0] if len(types) == 1 else None
                return from_store(files, only, run_to_failure), f"store: {', '.join(map(str, files))}"
    except TableError as error:
        raise TableError(error.row, error.column, f"{error.description} (in {', '.join(map(str, files))})") from error
