"""The commands that train models, evaluate them and choose which serve. Each imports its modules when it is called."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aurum.commands import tables

if TYPE_CHECKING:
    from aurum.commands.training_data import DataSelection
    from aurum.prediction.serving.registry import ModelRegistry
    from aurum.readings.times import TimeOptions


_TABLES = frozenset({".csv", ".parquet", ".pq"})


class DataFormat(StrEnum):
    """The formats of histories."""

    plant = "plant"
    cmapss = "cmapss"
    csv = "csv"
    store = "store"


Files = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Tables (CSV, Parquet), folders of tables, C-MAPSS files or stores; `train` simulates histories if absent."
    ),
]
Format = Annotated[DataFormat | None, typer.Option("--format", help="Format of the files; detected if absent.")]
Types = Annotated[
    list[str] | None,
    typer.Option(help="Type of the machines; for simulated histories and stores only these types, may be repeated."),
]
RunToFailure = Annotated[
    bool, typer.Option("--run-to-failure", help="Take each machine's last reading as its failure.")
]
Unit = Annotated[str | None, typer.Option(help="Column that names the machine; recognized by common names if absent.")]
Time = Annotated[str | None, typer.Option(help="Column with the time; recognized likewise.")]
Life = Annotated[
    str | None, typer.Option(help="Column that counts life, such as operating hours; recognized likewise.")
]
Failure = Annotated[str | None, typer.Option(help="Column that is set at failures; recognized likewise.")]
Left = Annotated[str | None, typer.Option(help="Column with the remaining life; recognized likewise.")]
Failures = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="Table with a row for each failure: the machine and the time, named as in FILES.",
    ),
]
Sensors = Annotated[
    list[str] | None, typer.Option("--sensor", help="Use only this column as a sensor; may be repeated; all if absent.")
]
LeftFile = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="File with the remaining life at each machine's last reading, one number per line.",
    ),
]
Models = Annotated[
    Path | None, typer.Option("--models", help="Folder of the models; by default that of the prediction service.")
]
Version = Annotated[str | None, typer.Option(help="Version of the model; the champion if absent.")]


def train(
    files: Files = None,
    format_: Format = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the models; by default that of the prediction service.")
    ] = None,
    machine_type: Types = None,
    run_to_failure: RunToFailure = False,
    unit: Unit = None,
    time: Time = None,
    life: Life = None,
    failure: Failure = None,
    left: Left = None,
    left_file: LeftFile = None,
    failures: Failures = None,
    time_format: tables.TimeFormat = None,
    timezone: tables.Timezone = None,
    sensor: Sensors = None,
    horizon: Annotated[
        float | None, typer.Option(min=0, help="risk_score is the probability of a failure within this amount of life.")
    ] = None,
    rul_cap: Annotated[
        float | None, typer.Option(min=0, help="Cap of the RUL; a greater RUL is reported as the cap.")
    ] = None,
    machines: Annotated[int, typer.Option(min=6, max=1000, help="Simulated machines of each type.")] = 50,
    rows: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="Approximate maximum number of training rows.")
    ] = 20_000,
    rounds: Annotated[
        int, typer.Option(min=10, max=2000, help="Trees of each model; fewer train faster and predict less accurately.")
    ] = 140,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and data give the same model.")] = 7,
    licence: Annotated[str, typer.Option(help="Licence of the data, for the model card.")] = "not declared",
    with_report: Annotated[
        bool, typer.Option("--report", help="Write report.html with plots beside each model.")
    ] = False,
    activate: Annotated[bool, typer.Option(help="Make the new model the champion, if it has skill.")] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Make it the champion even without skill; its answers are labelled.")
    ] = False,
) -> None:
    """Train a model for each machine type, on lives until a failure, labelled failures, or healthy machines."""
    from aurum.commands.training import train_all
    from aurum.platform_settings import PlatformSettings
    from aurum.prediction.training.train import TrainingOptions
    from aurum.runtime.settings import load_settings

    settings = load_settings(PlatformSettings)
    stored = [settings.store_path] if format_ is DataFormat.store and not files else files
    given = _data_selection(
        format_,
        stored,
        machine_type,
        run_to_failure,
        (unit, time, life, failure, left),
        machines,
        seed,
        left_file,
        sensor,
        failures=failures,
        times=tables.time_options(time_format, timezone),
    )
    train_all(
        given,
        out or settings.models_path,
        TrainingOptions(seed, horizon, rul_cap, rows=rows, rounds=rounds, licence=licence),
        with_report=with_report,
        activate=activate,
        force=force,
    )


def evaluate(
    files: Files = None,
    format_: Format = None,
    models: Models = None,
    version: Version = None,
    machine_type: Types = None,
    run_to_failure: RunToFailure = False,
    unit: Unit = None,
    time: Time = None,
    life: Life = None,
    failure: Failure = None,
    left: Left = None,
    left_file: LeftFile = None,
    failures: Failures = None,
    time_format: tables.TimeFormat = None,
    timezone: tables.Timezone = None,
    anomaly_label: Annotated[
        str | None,
        typer.Option(
            help="Column that is 1 while a machine is not healthy, to evaluate alarms; `anomaly` if it exists."
        ),
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            min=0.0001,
            help="Allowed false alarms for each machine and month; by default AURUM_PREDICTION_FALSE_ALARMS.",
        ),
    ] = None,
) -> None:
    """Evaluate a model on histories that it was not trained on."""
    from aurum.commands.evaluation import AnomalyLabels, evaluate_files
    from aurum.prediction.settings import PredictionSettings
    from aurum.runtime.settings import load_settings

    given = _data_selection(
        format_,
        _require_files(files),
        machine_type,
        run_to_failure,
        (unit, time, life, failure, left),
        left_file=left_file,
        failures=failures,
        times=tables.time_options(time_format, timezone),
    )
    settings = load_settings(PredictionSettings)
    allowed = false_alarms or settings.prediction_false_alarms
    evaluate_files(given, models or settings.models_path, version, AnomalyLabels(anomaly_label, allowed))


def explain(
    files: Files = None,
    format_: Format = None,
    models: Models = None,
    version: Version = None,
    machine_type: Types = None,
    machine: Annotated[str | None, typer.Option(help="Only this machine.")] = None,
    top: Annotated[int, typer.Option(min=1, max=50, help="Number of factors, strongest first.")] = 5,
    unit: Unit = None,
    time: Time = None,
    life: Life = None,
    time_format: tables.TimeFormat = None,
    timezone: tables.Timezone = None,
) -> None:
    """Explain the predictions of machines at their last readings by their strongest factors."""
    from aurum.commands.evaluation import explain_files
    from aurum.prediction.settings import PredictionSettings
    from aurum.runtime.settings import load_settings

    given = _data_selection(
        format_,
        _require_files(files),
        machine_type,
        False,
        (unit, time, life, None, None),
        times=tables.time_options(time_format, timezone),
    )
    explain_files(given, models or load_settings(PredictionSettings).models_path, version, machine, top)


def _require_files(files: list[Path] | None) -> list[Path]:
    if not files:
        raise typer.BadParameter("name at least one file", param_hint="FILES")
    return files


def _data_selection(
    format_: DataFormat | None,
    files: list[Path] | None,
    machine_type: list[str] | None,
    run_to_failure: bool,
    columns: tuple[str | None, str | None, str | None, str | None, str | None],
    machines: int = 50,
    seed: int = 7,
    left_file: Path | None = None,
    sensors: list[str] | None = None,
    *,
    failures: Path | None = None,
    times: "TimeOptions",
) -> "DataSelection":
    from aurum.commands.tabular_histories import DeclaredColumns
    from aurum.commands.training_data import DataSelection

    if format_ in (DataFormat.cmapss, DataFormat.csv) and not files:
        raise typer.BadParameter(f"--format {format_.value} needs at least one file", param_hint="FILES")
    found: list[Path] = []
    for file in files or ():
        if not file.exists():
            raise typer.BadParameter(f"{file} does not exist", param_hint="FILES")
        inside = sorted(each for each in file.rglob("*") if each.suffix in _TABLES) if file.is_dir() else [file]
        if not inside:
            raise typer.BadParameter(f"{file} contains no {' or '.join(sorted(_TABLES))} file", param_hint="FILES")
        found += inside
    unit, time, life, failure, left = columns
    return DataSelection(
        format_.value if format_ else None,
        found,
        machine_type or [],
        run_to_failure,
        DeclaredColumns(unit=unit, time=time, life=life, failure=failure, left=left, times=times, failures=failures),
        machines,
        seed,
        left_file,
        sensors or (),
    )


registry = typer.Typer(help="List the models and choose which of them serve.", no_args_is_help=True)


@registry.command("list")
def list_models(models: Models = None) -> None:
    """List the models. c marks the champion, s the shadow model, p the previous champion."""
    from aurum.prediction.model.skill import refusal

    for entry in _registry(models).list():
        card = entry.card
        mark = "c" if entry.active else "s" if entry.shadow else "p" if entry.previous else " "
        measured = card.evaluation.metrics if card.evaluation else None
        error = f"RUL ± {measured.rul_mae:.3g} {card.unit}" if measured and measured.rul_mae is not None else card.kind
        skill = f"; no skill{', activated by force' if entry.forced else ''}" if refusal(card) else ""
        print(f"{mark} {card.machine_type:16} {card.version:24} {error}{skill}")


@registry.command()
def activate(
    machine_type: str,
    version: str,
    models: Models = None,
    force: Annotated[
        bool, typer.Option("--force", help="Activate a version without skill; its answers are labelled.")
    ] = False,
) -> None:
    """Make a version the champion of its machine type. A running service loads it within seconds."""
    entry = _registry(models).activate(machine_type, version, force=force)
    print(f"{machine_type}: {version} is the champion{', by force and without skill' if entry.forced else ''}")


@registry.command()
def shadow(
    machine_type: str,
    version: Annotated[str, typer.Argument(help="The version; without one, the shadow model is removed.")] = "",
    models: Models = None,
) -> None:
    """Make a version the shadow model, which scores the champion's requests; a metric shows the difference in risk."""
    _registry(models).set_shadow(machine_type, version)
    print(f"{machine_type}: {version or 'no model'} is the shadow model")


@registry.command()
def rollback(machine_type: str, models: Models = None) -> None:
    """Make the previous champion the champion again."""
    print(f"{machine_type}: {_registry(models).roll_back(machine_type).card.version} is the champion")


def _registry(models: Path | None) -> "ModelRegistry":
    from aurum.prediction.serving.registry import ModelRegistry
    from aurum.prediction.settings import PredictionSettings
    from aurum.runtime.settings import load_settings

    return ModelRegistry(models or load_settings(PredictionSettings).models_path)
