"""The `aurum` command. Each command imports its modules only when it is called."""

import sys
import traceback
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from aurum import __version__
from aurum.commands import dead_letters, keys, models, tables

if TYPE_CHECKING:
    from aurum.commands.migrating import Migrated
    from aurum.ingestion.sqlite.blocks import DamagedPart
    from aurum.runtime.service import Body
    from aurum.runtime.settings import Settings

    S = TypeVar("S", bound=Settings)

app = typer.Typer(
    name="aurum",
    help="Predictive maintenance, energy and carbon for industrial machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_SERVICES = "Services"
_SIMULATORS = "Simulators"
_HERE = "On this machine"
_DATA = "Data and models"
_RESILIENCE = "Resilience"


class ImportFormat(StrEnum):
    """The formats of files to import."""

    cmapss = "cmapss"
    csv = "csv"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aurum {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Sets the options that precede the command."""
    _state["debug"] = debug


_state = {"debug": False}


def _serve(name: str, body: "Body[S]", settings: "S") -> None:
    from aurum.platform_settings import setting_names
    from aurum.runtime.service import run_service

    raise typer.Exit(run_service(name, body, settings, setting_names()))


@app.command(rich_help_panel=_SERVICES)
def ingestion() -> None:
    """Run the ingestion service, which stores readings and answers queries."""
    from aurum.ingestion.service import ingestion as body
    from aurum.ingestion.settings import IngestionSettings
    from aurum.runtime.settings import load_settings

    _serve("ingestion", body, load_settings(IngestionSettings))


@app.command(rich_help_panel=_SERVICES)
def prediction() -> None:
    """Run the prediction service, which predicts failures and explains its predictions."""
    from aurum.prediction.service import prediction as body
    from aurum.prediction.settings import PredictionSettings
    from aurum.runtime.settings import load_settings

    _serve("prediction", body, load_settings(PredictionSettings))


@app.command(rich_help_panel=_SERVICES)
def api() -> None:
    """Run the API: HTTP for scripts, Grafana and browsers, with the console."""
    from aurum.api.service import api as body
    from aurum.api.settings import ApiSettings
    from aurum.runtime.settings import load_settings

    _serve("api", body, load_settings(ApiSettings))


edge_app = typer.Typer(invoke_without_command=True)
app.add_typer(edge_app, name="edge", rich_help_panel=_SERVICES)


@edge_app.callback()
def edge(context: typer.Context) -> None:
    """Run an edge gateway, which accepts readings from devices, spools them and forwards them to ingestion."""
    if context.invoked_subcommand is not None:
        return
    from aurum.edge.gateway import edge as body
    from aurum.edge.settings import EdgeSettings
    from aurum.runtime.settings import load_settings

    _serve("edge", body, load_settings(EdgeSettings))


@edge_app.command("check")
def edge_check(
    file: Annotated[Path, typer.Argument(help="A file of inputs (AURUM_EDGE_INPUTS).", dir_okay=False, exists=True)],
) -> None:
    """Check a file of inputs and list the inputs in it. Refuses one that would lose or mix data by itself."""
    from aurum.edge.inputs.common.configuration import InputsError, load_inputs
    from aurum.edge.inputs.common.deadband_check import describe_warnings
    from aurum.edge.inputs.common.loss_check import check_losses

    try:
        content = load_inputs(file)
        check_losses(file, content)
        inputs = content.inputs
    except InputsError as error:
        _fail(str(error), 1)
    for warning in describe_warnings(file, content):
        typer.echo(f"warning: {warning}", err=True)
    for each in inputs:
        typer.echo(f"{each.name}: {each.protocol} {each.summary}, {len(each.rules)} rules")


@edge_app.command("status")
def edge_status(
    address: Annotated[
        str | None, typer.Option(help="host:port of the gateway's admin server; that of this machine by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer of the gateway.")] = False,
) -> None:
    """Show what each input and device sends, what is not stored, and the spool. Exit code 1 if an input is away."""
    from aurum.commands import edge_status as status
    from aurum.platform_settings import PlatformSettings
    from aurum.runtime.settings import load_settings

    try:
        overview = status.read_overview(address or load_settings(PlatformSettings).admin_addresses["edge"])
    except status.StatusError as error:
        _fail(str(error), 2)
    if not status.show(overview, as_json=as_json):
        raise typer.Exit(1)


@edge_app.command("schema")
def edge_schema() -> None:
    """Print the JSON schema of a file of inputs."""
    import json

    from aurum.edge.inputs.common.configuration import InputsFile

    typer.echo(json.dumps(InputsFile.model_json_schema(), indent=1))


edge_app.add_typer(dead_letters.app, name="dead-letters")


@app.command(rich_help_panel=_SERVICES)
def operator() -> None:
    """Run the Kubernetes operator, which rolls out policy resources to the pods and reports their status."""
    from aurum.operator.service import operator as body
    from aurum.operator.settings import OperatorSettings
    from aurum.runtime.settings import load_settings

    _serve("operator", body, load_settings(OperatorSettings))


def _machines(variable: str) -> Any:
    return typer.Option(min=1, max=100_000, envvar=variable, help="Number of machines, spread over the types.")


def _speed_up(variable: str) -> Any:
    return typer.Option(min=0.1, max=100_000, envvar=variable, help="Seconds of machine life per second.")


Rate = Annotated[float, typer.Option(min=0.01, max=1000, help="Readings per second of each sensor.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same fleet.")]
PastDays = Annotated[
    float,
    typer.Option(min=0, max=31, help="Days of past readings, alarms and maintenance in an empty store; 0 for none."),
]
Backfill = Annotated[
    int, typer.Option(min=0, max=100_000, help="Number of past readings sent for each sensor of a new machine.")
]


@app.command("iot-sim", rich_help_panel=_SIMULATORS)
def iot_sim(
    machines: Annotated[int, _machines("AURUM_IOT_MACHINES")] = 40,
    rate: Rate = 1.0,
    speed_up: Annotated[float, _speed_up("AURUM_IOT_SPEED_UP")] = 600.0,
    seed: Seed = 7,
    site: Annotated[str, typer.Option(help="Site of the machines.")] = "plant-a",
    machine_type: Annotated[list[str] | None, typer.Option(help="Only these types; may be repeated.")] = None,
    backfill: Backfill = 120,
    past_days: PastDays = 0.0,
    to: Annotated[
        str, typer.Option(help="Where to send readings: edge, ingestion, or the host:port of either.")
    ] = "edge",
    protocol: Annotated[
        str, typer.Option(help="grpc, or for inputs of a gateway mqtt, sparkplug, opcua or modbus.")
    ] = "grpc",
    at: Annotated[
        str, typer.Option(help="host:port of the broker, or that an OPC UA or Modbus server listens on.")
    ] = "",
    write_inputs: Annotated[
        Path | None, typer.Option(help="File to write the gateway's configuration of these inputs to.", dir_okay=False)
    ] = None,
) -> None:
    """Simulate the devices of a plant, with machines that wear, fail and are repaired."""
    from aurum.alarms.settings import AlarmSettings
    from aurum.runtime.settings import load_settings
    from aurum_sim.iot import FleetOptions, PeerOptions
    from aurum_sim.iot import iot_sim as body
    from aurum_sim.past_import import PastOptions
    from aurum_sim.peers import PeerKind, make_peer

    settings = load_settings(AlarmSettings)
    address = {"edge": settings.edge_target, "ingestion": settings.ingestion_target}.get(to, to)
    if ":" not in address:
        raise typer.BadParameter(f"{to!r} is neither edge, ingestion nor host:port", param_hint="--to")
    past = PastOptions(past_days, failures=1, rules=settings.alarm_rules) if past_days else None
    types = tuple(machine_type or ())
    fleet = FleetOptions(machines, rate, speed_up, seed, site, backfill=backfill, types=types, past=past)
    if protocol not in (protocols := [kind.value for kind in PeerKind]):
        raise typer.BadParameter(f"{protocol!r} is none of {', '.join(protocols)}", param_hint="--protocol")
    peer = make_peer(PeerKind(protocol), at)
    peer_options = PeerOptions(peer, write_inputs) if peer else None
    _serve("iot-sim", body(fleet, "ingestion" if to == "ingestion" else "edge", address, peer_options), settings)


@app.command("edge-sim", rich_help_panel=_SIMULATORS)
def edge_sim(
    machines: Annotated[int, _machines("AURUM_EDGE_SIM_MACHINES")] = 10,
    rate: Rate = 1.0,
    speed_up: Annotated[float, _speed_up("AURUM_EDGE_SIM_SPEED_UP")] = 600.0,
    seed: Seed = 11,
    site: Annotated[str, typer.Option(help="Site of the machines.")] = "plant-b",
    backfill: Backfill = 120,
    past_days: PastDays = 0.0,
    port: Annotated[
        int, typer.Option(envvar="AURUM_EDGE_SIM_PORT", help="Port of the simulated gateway (gRPC).")
    ] = 50054,
    up: Annotated[float, typer.Option(min=1, help="Seconds for which the uplink works.")] = 90.0,
    down: Annotated[
        float, typer.Option(min=0, help="Seconds for which the uplink then fails; 0 for no failures.")
    ] = 15.0,
) -> None:
    """Simulate a gateway with machines of its own, whose uplink fails periodically."""
    from aurum.alarms.settings import AlarmSettings
    from aurum.edge.settings import EdgeSettings
    from aurum.runtime.settings import load_settings
    from aurum_sim.edge import OutageOptions
    from aurum_sim.edge import edge_sim as body
    from aurum_sim.iot import FleetOptions
    from aurum_sim.past_import import PastOptions

    settings = load_settings(EdgeSettings)
    settings = settings.model_copy(update={"edge_port": port, "edge_spool_path": settings.state_dir / "edge-sim-spool"})
    rules = load_settings(AlarmSettings).alarm_rules
    past = PastOptions(past_days, failures=0, rules=rules) if past_days else None
    fleet = FleetOptions(machines, rate, speed_up, seed, site, prefix="b-", backfill=backfill, past=past)
    _serve("edge-sim", body(fleet, OutageOptions(up, down)), settings)


@app.command(rich_help_panel=_HERE)
def up(
    procfile: Annotated[Path, typer.Option(help="The processes to run.")] = Path("Procfile"),
) -> None:
    """Run the whole platform on this machine, as `make run` does."""
    import asyncio

    from aurum.commands.up import Supervisor
    from aurum.platform_settings import PlatformSettings
    from aurum.runtime.settings import load_settings

    async def run() -> None:
        await Supervisor(load_settings(PlatformSettings), procfile).run()

    asyncio.run(run())


@app.command(rich_help_panel=_HERE)
def doctor() -> None:
    """Show the state of each service, what it is missing, and where to look."""
    from aurum.commands.doctor import examine, show
    from aurum.platform_settings import PlatformSettings
    from aurum.runtime.settings import load_settings

    settings = load_settings(PlatformSettings)
    raise typer.Exit(0 if show(examine(settings), settings) else 1)


@app.command("import", rich_help_panel=_DATA)
def import_(
    file: Annotated[Path, typer.Argument(help="The file to import.", exists=True, dir_okay=False, readable=True)],
    format_: Annotated[ImportFormat, typer.Option("--format", help="Format of the file.")],
    machine_type: Annotated[str | None, typer.Option(help="Register the machines with this type.")] = None,
    site: Annotated[str, typer.Option(help="Site to register the machines with.")] = "",
    prefix: Annotated[
        str | None, typer.Option(help="cmapss: beginning of the machine ids; the file's name if absent.")
    ] = None,
    time_format: tables.TimeFormat = None,
    timezone: tables.Timezone = None,
    encoding: tables.Encoding = None,
    delimiter: tables.Delimiter = None,
    decimal: tables.Decimal = tables.DecimalSign.auto,
    absent: tables.Absent = None,
    api: Annotated[str | None, typer.Option(help="URL of the API to send readings to.")] = None,
    ingestion: Annotated[
        str | None, typer.Option(help="host:port of the ingestion service to send readings to; the default.")
    ] = None,
) -> None:
    """Import readings from a file. When repeated, readings that are already stored are skipped."""
    import asyncio

    from aurum.commands.importing import FileForm, grpc_target, http_target, import_file
    from aurum.platform_settings import CommandSettings
    from aurum.runtime.settings import load_settings

    if api and ingestion:
        raise typer.BadParameter("give either --api or --ingestion, not both")
    settings = load_settings(CommandSettings)
    options = tables.table_options(time_format, timezone, delimiter, decimal, absent)
    form = FileForm(format_.value, prefix, tables.text_encoding(encoding), options)

    async def run() -> None:
        opened = http_target(api, settings) if api else grpc_target(ingestion or settings.ingestion_target, settings)
        async with opened as target:
            result = await import_file(file, form, target, machine_type=machine_type, site=site)
        duplicates = f", {result.duplicates:,} already stored" if result.duplicates else ""
        machines = "1 machine" if result.machines == 1 else f"{result.machines} machines"
        typer.echo(f"{file.name}: {result.stored:,} readings of {machines} imported{duplicates}")
        for note in result.notes:
            typer.echo(f"  {note}")

    asyncio.run(run())


for command in (models.train, models.learn, models.evaluate, models.predict, models.explain):
    app.command(rich_help_panel=_DATA)(command)
app.add_typer(models.registry, name="models", rich_help_panel=_DATA)
app.add_typer(keys.keys, name="key", rich_help_panel=_HERE)


StorePath = Annotated[Path, typer.Argument(help="The store's file, such as .aurum/store.db.")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], metavar="YYYY-MM-DD")]


@app.command(rich_help_panel=_DATA)
def export(store: StorePath, folder: Annotated[Path, typer.Argument()], since: Day = None, until: Day = None) -> None:
    """Write a store's readings as Parquet, one file per machine and day, also while the service runs.

    --since is the first day, --until the day after the last (UTC).
    """
    from aurum.commands.exporting import export as run
    from aurum.ingestion.sqlite.snapshot import open_snapshot

    if since and until and until <= since:
        _fail("--until must be after --since", 2)
    if store.parts and store.parts[0] == "cassandra:":
        _fail(
            "only the file of a store on one machine is exported, and this is Cassandra; train on it with "
            "`aurum train --format store` (AURUM_STORE_URL names it, --scheduler uses a cluster), or query the API",
            2,
        )
    with open_snapshot(store) as snapshot:
        done = run(snapshot, folder, since, until)
    typer.echo(f"{done.readings:,} readings in {done.files:,} files below {folder}, {done.bytes:,} bytes")
    _report_damaged(snapshot.damaged)


class ReportLanguage(StrEnum):
    """The languages of reports."""

    en = "en"
    es = "es"


report_app = typer.Typer(help="Write reports of a running platform to files.", no_args_is_help=True)
app.add_typer(report_app, name="report", rich_help_panel=_DATA)


@report_app.callback()
def report_options() -> None:
    """Keep `energy` a command of its own, also while it is the only one."""


@report_app.command("energy")
def report_energy(
    month: Annotated[str, typer.Option(help="The month, such as 2026-10.")],
    out: Annotated[Path, typer.Option(help="The file to write; its name ends in .pdf, .xlsx or .json.")],
    site: Annotated[str, typer.Option(help="Only machines of this site.")] = "",
    language: Annotated[ReportLanguage, typer.Option(help="Language of the texts.")] = ReportLanguage.en,
    api: Annotated[str | None, typer.Option(help="URL of the API; by default AURUM_API_PORT on this machine.")] = None,
) -> None:
    """Write the energy, cost, emissions and water of a month, with AURUM_API_KEY if the API requires authentication."""
    from aurum.commands.reporting import report_format, write_energy_report
    from aurum.platform_settings import PlatformSettings
    from aurum.runtime.settings import load_settings

    form = report_format(out)
    if form is None:
        raise typer.BadParameter(f"must end in .pdf, .xlsx or .json, and {out} does not", param_hint="--out")
    settings = load_settings(PlatformSettings)
    url = api or f"http://127.0.0.1:{settings.api_port}"
    query = {"month": month, "site": site, "language": language.value, "format": form}
    written = write_energy_report(url, query, out, settings)
    typer.echo(f"{written:,} bytes written to {out}")


@app.command(rich_help_panel=_DATA)
def migrate(
    store: StorePath, target: Annotated[str, typer.Argument(help="cassandra://HOST,HOST/KEYSPACE?replication=3")]
) -> None:
    """Copy a store into Cassandra, also while its service runs. Repeat it to copy newer readings."""
    import asyncio

    from aurum.commands.migrating import migrate as run
    from aurum.ingestion.service import open_store
    from aurum.ingestion.settings import IngestionSettings
    from aurum.runtime.settings import load_settings

    if not target.startswith("cassandra://"):
        _fail(f"{target!r} is not cassandra://HOST,HOST/KEYSPACE", 2)
    settings = load_settings(IngestionSettings).model_copy(update={"store_url": target})

    async def copy() -> "Migrated":
        opened = await asyncio.to_thread(open_store, settings)
        await opened.start()
        try:
            return await run(store, opened)
        finally:
            await opened.close()

    done = asyncio.run(copy())
    typer.echo(
        f"{done.readings:,} readings copied, {done.duplicates:,} already stored; {done.machines:,} machines and "
        f"{done.events:,} events"
    )
    _report_damaged(done.damaged)


def _report_damaged(damaged: "Mapping[DamagedPart, str]") -> None:
    """Prints the damaged segments and blocks that were left out. Exits with code 1 if there are any."""
    for part, problem in damaged.items():
        typer.echo(f"{part} is damaged and was left out: {problem}", err=True)
    if damaged:
        raise typer.Exit(1)


store_app = typer.Typer(help="Check, repair and back up the store of readings.", no_args_is_help=True)
app.add_typer(store_app, name="store", rich_help_panel=_DATA)


@store_app.command("check")
def store_check(
    store: StorePath,
    repair: Annotated[
        bool, typer.Option("--repair", help="First move damaged segments and blocks to STORE-damaged/.")
    ] = False,
) -> None:
    """Verify every checksum in a store, also while the service runs. Exit code 1 if anything is damaged."""
    from aurum.ingestion.sqlite import snapshot

    if repair:
        moved = snapshot.repair(store)
        typer.echo(f"{moved} damaged segments and blocks moved to {store}-damaged" if moved else "nothing is damaged")
    result = snapshot.check(store)
    for problem in result.problems:
        typer.echo(problem)
    typer.echo(
        f"{result.segments:,} segments and {result.blocks:,} blocks with {result.readings:,} readings, and "
        f"{result.log_records:,} batches in the log: "
        + (f"{len(result.problems)} damaged" if result.problems else "none damaged")
    )
    if result.problems:
        raise typer.Exit(1)


@store_app.command("backup")
def store_backup(
    store: StorePath, target: Annotated[Path, typer.Argument(help="Path of the copy, which must not exist.")]
) -> None:
    """Copy a store, also while its service runs. The copy contains all readings acknowledged before."""
    from aurum.ingestion.sqlite.snapshot import backup

    typer.echo(f"{backup(store, target):,} bytes copied to {target}")


policy_app = typer.Typer(help="Check, show, compare and simulate resilience policies.", no_args_is_help=True)
app.add_typer(policy_app, name="policy", rich_help_panel=_RESILIENCE)
PolicyFile = Annotated[Path, typer.Argument(help="The policy document.", exists=True, dir_okay=False, readable=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@policy_app.command("check")
def policy_check(file: PolicyFile) -> None:
    """Check a policy document. Errors name the field."""
    from aurum.commands.policy import check

    document = check(file)
    count = f"{len(document.policies)} " + ("policy" if len(document.policies) == 1 else "policies")
    typer.echo(f"{file}: {count}, uid {document.uid}, generation {document.generation}, hash {document.content_hash}")


@policy_app.command("show")
def policy_show(
    services: Annotated[list[str] | None, typer.Argument(help="Only these services.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the policies in force in running services, with the state of each breaker, budget and limit."""
    from aurum.commands.policy import show
    from aurum.runtime.settings import Settings, load_settings

    raise typer.Exit(0 if show(load_settings(Settings), services or [], as_json) else 1)


FromCluster = Annotated[
    bool,
    typer.Option("--from-cluster", help="Use the resources in the current kube-context, merged as by the operator."),
]
OptionalPolicyFile = Annotated[
    Path | None,
    typer.Argument(
        help="A policy document; with --from-cluster, resources.", exists=True, dir_okay=False, readable=True
    ),
]


@policy_app.command("get")
def policy_get(
    services: Annotated[list[str] | None, typer.Argument(help="Only the calls of these services.")] = None,
    from_cluster: FromCluster = False,
) -> None:
    """Show the policy of each call. For a cluster, also show the status of each policy and its pods."""
    from aurum.commands import effective
    from aurum.operator.settings import OperatorSettings
    from aurum.runtime.settings import load_settings

    settings = load_settings(OperatorSettings)
    if from_cluster:
        cluster = effective.read_cluster(settings)
        effective.show_cluster(cluster)
        typer.echo()
        effective.show_calls(effective.policies_of_cluster(cluster), settings, services or [])
    else:
        effective.show_calls(effective.policies_of_document(settings, None), settings, services or [])


@policy_app.command("explain")
def policy_explain(
    client: Annotated[str, typer.Argument(help="The calling service, such as api.")],
    server: Annotated[str, typer.Argument(help="The called service, such as prediction.")],
    method: Annotated[str | None, typer.Argument(help="One method, such as Predict.")] = None,
    from_cluster: FromCluster = False,
) -> None:
    """Show every value of the policy of a call, and its origin."""
    from aurum.commands import effective
    from aurum.operator.merging import PolicyTarget
    from aurum.operator.settings import OperatorSettings
    from aurum.runtime.policy.call_catalog import CALLS
    from aurum.runtime.settings import load_settings

    if not any(each.client == client and each.server == server for each in CALLS):
        _fail(f"{client} does not call {server}", 2)
    settings = load_settings(OperatorSettings)
    policies = (
        effective.policies_of_cluster(effective.read_cluster(settings))
        if from_cluster
        else effective.policies_of_document(settings, None)
    )
    effective.explain(policies, settings, PolicyTarget(client, server, method))


@policy_app.command("diff")
def policy_diff(file: PolicyFile, from_cluster: FromCluster = False) -> None:
    """Show what a policy document, or a file of resources, would change. Exit code 1 if there are changes."""
    from aurum.commands import effective
    from aurum.operator.settings import OperatorSettings
    from aurum.runtime.settings import load_settings

    settings = load_settings(OperatorSettings)
    if from_cluster:
        cluster = effective.read_cluster(settings)
        before, after = (
            effective.policies_of_cluster(cluster),
            effective.policies_of_cluster(effective.with_proposed_resources(cluster, file)),
        )
    else:
        before, after = effective.policies_of_document(settings, None), effective.policies_of_document(settings, file)
    changes = effective.difference(before, after)
    if changes:
        typer.echo(changes)
    for problem in after.problems:
        typer.echo(f"without effect: {problem}", err=True)
    raise typer.Exit(1 if changes else 0)


@policy_app.command("simulate")
def policy_simulate(
    file: OptionalPolicyFile = None,
    *,
    trace: Annotated[
        Path, typer.Option(help="Recorded outcomes (JSON lines, also gzipped; - for stdin).", exists=False)
    ],
    from_cluster: FromCluster = False,
    as_json: AsJson = False,
) -> None:
    """Replay recorded calls against a policy document, in virtual time, and show what it would have done.

    With --from-cluster, use the policies of the cluster, and the resources in the file if one is given.
    """
    from aurum.commands.policy import replay
    from aurum.operator.settings import OperatorSettings
    from aurum.runtime.policy.document import load_platform_document
    from aurum.runtime.settings import load_settings

    settings = load_settings(OperatorSettings)
    if from_cluster:
        from aurum.commands import effective

        cluster = effective.read_cluster(settings)
        documents = effective.policies_of_cluster(
            effective.with_proposed_resources(cluster, file) if file else cluster
        ).documents
        replay(settings, effective.merge_documents(documents), trace, as_json)
    elif file is None:
        _fail("a policy document is needed, or --from-cluster", 2)
    else:
        replay(settings, load_platform_document(file), trace, as_json)


@policy_app.command("reference")
def policy_reference(
    write: Annotated[Path | None, typer.Option(help="Write the page to this file.")] = None,
    check: Annotated[Path | None, typer.Option(help="Fail if this file differs from the page.")] = None,
) -> None:
    """Show every field of a policy document with its default, the status codes and the calls."""
    from aurum.runtime.policy.call_catalog import calls_reference
    from aurum.runtime.policy.reference import policy_reference as reference

    _page(reference() + calls_reference(), write, check)


fault_app = typer.Typer(help="Inject faults into running services, for tests and demonstrations.", no_args_is_help=True)
app.add_typer(fault_app, name="fault", rich_help_panel=_RESILIENCE)


class FaultKind(StrEnum):
    """The kinds of faults that can be injected."""

    delay = "delay"
    error = "error"
    drip = "drip"
    abort = "abort"


@fault_app.command("add")
def fault_add(
    service: Annotated[str, typer.Argument(help="The service to inject the fault into, such as prediction.")],
    kind: Annotated[
        FaultKind,
        typer.Argument(help="delay: wait first; error: fail; drip: answer slowly; abort: end the process immediately."),
    ],
    method: Annotated[
        str, typer.Option(help="Only this method, such as Predict, /api/predict or store/read; a shell pattern.")
    ] = "*",
    percentage: Annotated[float, typer.Option(help="Percentage of the calls that are affected.")] = 100.0,
    delay: Annotated[str, typer.Option(help="Duration of a delay (delay, drip).")] = "1s",
    code: Annotated[str, typer.Option(help="Status code (error).")] = "UNAVAILABLE",
    duration: Annotated[str, typer.Option(help="Duration of the fault.")] = "60s",
) -> None:
    """Inject a fault into a service."""
    from aurum.commands.fault import add
    from aurum.runtime.settings import Settings, load_settings

    fault = {
        "kind": kind.value,
        "method": method,
        "percentage": percentage,
        "delay": delay,
        "code": code,
        "duration": duration,
    }
    add(load_settings(Settings), service, fault)


Services = Annotated[list[str] | None, typer.Argument(help="Only these services.")]


@fault_app.command("list")
def fault_list(services: Services = None) -> None:
    """List the active faults."""
    from aurum.commands.fault import show
    from aurum.runtime.settings import Settings, load_settings

    show(load_settings(Settings), services or [])


@fault_app.command("clear")
def fault_clear(services: Services = None) -> None:
    """End all faults."""
    from aurum.commands.fault import clear
    from aurum.runtime.settings import Settings, load_settings

    clear(load_settings(Settings), services or [])


@app.command()
def settings(
    write: Annotated[Path | None, typer.Option(help="Write the table to this file.")] = None,
    check: Annotated[Path | None, typer.Option(help="Fail if this file differs from the table.")] = None,
) -> None:
    """Show every setting with its default."""
    from aurum.platform_settings import settings_table

    _page(settings_table(), write, check)


def _page(page: str, write: Path | None, check: Path | None) -> None:
    """Prints a generated page, writes it, or fails if a file is not the same."""
    if write:
        write.write_text(page, encoding="utf-8")
    elif check:
        if not check.exists() or check.read_text(encoding="utf-8") != page:
            _fail(f"{check} is not current; run `make docs`", 1)
    else:
        typer.echo(page)


def _fail(sentence: str, code: int) -> None:
    """Prints an error and exits with a code."""
    typer.echo(f"aurum: {sentence}", err=True)
    raise typer.Exit(code)


def main() -> None:
    """Runs the command. Errors are printed to stderr as one line; exit code 1 for failure, 2 for usage or settings."""
    try:
        app()
    except Exception as error:
        if _state["debug"]:
            traceback.print_exc()
        sentence, code = _message_and_code(error)
        print(f"aurum: {sentence}", file=sys.stderr)  # noqa: T201
        sys.exit(code)


def _message_and_code(error: Exception) -> tuple[str, int]:
    """Returns the message and the exit code of an error."""
    from aurum.resilience import PolicyError
    from aurum.resilience.outcomes import OutcomeError
    from aurum.runtime.settings import SettingsError

    if isinstance(error, (SettingsError, PolicyError, OutcomeError)):
        return str(error), 2
    sentence = " ".join(str(error).split()) or type(error).__name__
    if not _state["debug"] and not type(error).__module__.startswith("aurum") and not isinstance(error, OSError):
        sentence += " (run with `aurum --debug` for the traceback)"
    return sentence, 1


if __name__ == "__main__":
    main()
