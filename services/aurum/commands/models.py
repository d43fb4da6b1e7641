"""The commands that train models, evaluate them and choose which serve. Each imports its modules when it is called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aurum.commands.history_options import DataFormat, HistoryOptions, takes_histories

if TYPE_CHECKING:
    from aurum.prediction.serving.registry import ModelRegistry


Models = Annotated[
    Path | None, typer.Option("--models", help="Folder of the models; by default that of the prediction service.")
]
Version = Annotated[str | None, typer.Option(help="Version of the model; the champion if absent.")]


@takes_histories
def train(
    given: HistoryOptions,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the models; by default that of the prediction service.")
    ] = None,
    sensor: Annotated[
        list[str] | None,
        typer.Option("--sensor", help="Use only this column as a sensor; may be repeated; all if absent."),
    ] = None,
    horizon: Annotated[
        float | None, typer.Option(min=0, help="risk_score is the probability of a failure within this amount of life.")
    ] = None,
    rul_cap: Annotated[
        float | None, typer.Option(min=0, help="Cap of the RUL; a greater RUL is reported as the cap.")
    ] = None,
    machines: Annotated[int, typer.Option(min=6, max=1000, help="Simulated machines of each type.")] = 50,
    rows: Annotated[
        int | None,
        typer.Option(min=100, help="Greatest number of training rows; as many as fit into --memory if absent."),
    ] = None,
    memory: Annotated[
        int, typer.Option(min=64, help="Memory for training rows, in MB. Longer histories are thinned out evenly.")
    ] = 2048,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds in which to choose how to train; more is tried than without, but not the same each time.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Folds that are trained at a time.")] = 2,
    rounds: Annotated[
        int, typer.Option(min=10, max=2000, help="Most trees of each model; fewer train faster and predict worse.")
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
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Dask scheduler whose workers read tables or a store and compute the features, for histories larger "
            "than memory, such as tls://HOST:8786. If not all machines fit into --memory and --rows, a sample of them "
            "is used. Needs aurumai[dask].",
        ),
    ] = None,
) -> None:
    """Train a model for each machine type, on lives until a failure, labelled failures, or healthy machines."""
    from aurum.commands.training import train_all
    from aurum.platform_settings import PlatformSettings
    from aurum.prediction.training.train import TrainingOptions
    from aurum.runtime.settings import load_settings

    settings = load_settings(PlatformSettings)
    if given.format_ is DataFormat.store and not given.files:
        cassandra = (settings.store_url or "").startswith("cassandra://")
        given.files = [] if cassandra else [settings.store_path]
    train_all(
        given.selection(machines=machines, seed=seed, sensors=sensor),
        out or settings.models_path,
        TrainingOptions(
            seed,
            horizon,
            rul_cap,
            rows=rows,
            rounds=rounds,
            licence=licence,
            memory=memory,
            budget=budget,
            threads=threads,
        ),
        with_report=with_report,
        activate=activate,
        force=force,
        scheduler=scheduler,
    )


def learn(
    files: Annotated[list[Path] | None, typer.Argument(help="Stores; by default that of ingestion.")] = None,
    models: Models = None,
    ingestion: Annotated[
        str | None, typer.Option(help="host:port of a running ingestion service to read from, instead of stores.")
    ] = None,
    machine_type: Annotated[str | None, typer.Option(help="Only this machine type; all if absent.")] = None,
    rows: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="Approximate maximum number of training rows.")
    ] = 20_000,
    rounds: Annotated[
        int, typer.Option(min=10, max=2000, help="Trees of each model; fewer train faster and predict less accurately.")
    ] = 140,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and data give the same model.")] = 7,
) -> None:
    """Train again when enough lives have ended, compare in the shadow on later lives, and promote what is better."""
    from aurum.commands.learning import learn_from_ingestion, learn_from_stores, learning_options
    from aurum.platform_settings import PlatformSettings
    from aurum.prediction.training.train import TrainingOptions
    from aurum.runtime.settings import load_settings

    settings = load_settings(PlatformSettings)
    options = learning_options(settings, TrainingOptions(seed, rows=rows, rounds=rounds))
    root = models or settings.models_path
    if ingestion:
        if files:
            raise typer.BadParameter("give either stores or --ingestion, not both", param_hint="FILES")
        learn_from_ingestion(ingestion, machine_type, root, options, settings)
    else:
        learn_from_stores(files or [settings.store_path], machine_type, root, options, settings.audit_file)


@takes_histories
def evaluate(
    given: HistoryOptions,
    models: Models = None,
    version: Version = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
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

    given.require_files()
    settings = load_settings(PredictionSettings)
    labels = AnomalyLabels(anomaly_label, false_alarms or settings.prediction_false_alarms)
    root = models or settings.models_path
    evaluate_files(given.selection(all_words=True), root, version, labels, as_json=as_json)


@takes_histories
def predict(
    given: HistoryOptions,
    models: Models = None,
    version: Version = None,
    out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File for the predictions, .csv or .json; CSV to the terminal if absent."),
    ] = None,
) -> None:
    """Predict risk, remaining life and anomaly of each machine at its last reading."""
    from aurum.commands.predicting import predict_files
    from aurum.prediction.settings import PredictionSettings
    from aurum.runtime.settings import load_settings

    given.require_files()
    if out is not None and out.suffix.lower() not in (".csv", ".json"):
        raise typer.BadParameter(f"{out} must end in .csv or .json", param_hint="--out")
    root = models or load_settings(PredictionSettings).models_path
    predict_files(given.selection(all_words=True), root, version, out)


@takes_histories
def explain(
    given: HistoryOptions,
    models: Models = None,
    version: Version = None,
    machine: Annotated[str | None, typer.Option(help="Only this machine.")] = None,
    top: Annotated[int, typer.Option(min=1, max=50, help="Number of factors, strongest first.")] = 5,
) -> None:
    """Explain the predictions of machines at their last readings by their strongest factors."""
    from aurum.commands.evaluation import explain_files
    from aurum.prediction.settings import PredictionSettings
    from aurum.runtime.settings import load_settings

    given.require_files()
    root = models or load_settings(PredictionSettings).models_path
    explain_files(given.selection(all_words=True), root, version, machine, top)


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
