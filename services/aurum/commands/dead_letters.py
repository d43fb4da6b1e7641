"""`aurum edge dead-letters`: lists, resends or deletes the batches that ingestion permanently refused."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from aurum.edge.settings import EdgeSettings

app = typer.Typer(
    help="Manage the batches that ingestion permanently refused, also while the gateway runs.", no_args_is_help=True
)

Spool = Annotated[Path | None, typer.Option(help="Folder of the spool (AURUM_EDGE_SPOOL_PATH by default).")]
Names = Annotated[list[str] | None, typer.Argument(help="Names of dead letters; all if none is given.")]


def _folder(spool: Path | None) -> Path:
    from aurum.edge import dead_letters
    from aurum.edge.settings import EdgeSettings
    from aurum.runtime.settings import load_settings

    return dead_letters.dead_letter_folder(spool or load_settings(EdgeSettings).spool_path)


@app.command("list")
def list_(spool: Spool = None) -> None:
    """List the dead letters with the reason of the refusal, oldest first. Exit code 1 if a file is damaged."""
    from aurum.edge import dead_letters

    folder = _folder(spool)
    damaged = 0
    names = dead_letters.names(folder)
    for name in names:
        try:
            letter = dead_letters.read(folder, name)
        except dead_letters.DeadLetterError as error:
            damaged += 1
            typer.echo(f"{name}  {error}")
            continue
        typer.echo(
            f"{name}  {letter.reason}  source {letter.source_id or 'unknown'}, sequence {letter.sequence}, "
            f"{letter.readings} readings: {letter.message}"
        )
    if not names:
        typer.echo(f"there are no dead letters in {folder}")
    if damaged:
        raise typer.Exit(1)


@app.command("replay")
def replay(names: Names = None, spool: Spool = None) -> None:
    """Send dead letters again, and delete those that ingestion accepts. Exit code 1 if some are refused again."""
    from aurum.edge import dead_letters
    from aurum.edge.settings import EdgeSettings
    from aurum.runtime.settings import load_settings

    folder = _folder(spool)
    remaining = asyncio.run(_replay(folder, names or dead_letters.names(folder), load_settings(EdgeSettings)))
    if remaining:
        typer.echo(f"{remaining} dead letters remain in {folder}")
        raise typer.Exit(1)


@app.command("delete")
def delete(names: Annotated[list[str], typer.Argument(help="Names of dead letters.")], spool: Spool = None) -> None:
    """Delete dead letters permanently."""
    from aurum.edge import dead_letters

    folder = _folder(spool)
    try:
        for name in names:
            dead_letters.delete(folder, name)
    except dead_letters.DeadLetterError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


async def _replay(folder: Path, names: Sequence[str], settings: "EdgeSettings") -> int:
    """Sends dead letters again. Returns how many remain."""
    from aurum.edge import dead_letters
    from aurum.runtime.errors import FAILURES, AurumError
    from aurum.runtime.grpc.client import Dependency
    from aurum.runtime.grpc.tls import certificate_folder
    from aurum.runtime.policy.policies import Policies
    from aurum.runtime.rpc_methods import INGESTION_SERVICE
    from aurum.v1 import ingestion_pb2

    dependency = Dependency(
        "edge",
        "ingestion",
        settings.uplink_target,
        Policies("edge", settings),
        settings.rpc_max_message_bytes,
        certificate_folder(settings),
    )
    # The stored request is already serialized
    write: Any = dependency.channel.unary_unary(
        f"/{INGESTION_SERVICE}/Write",
        request_serializer=None,
        response_deserializer=ingestion_pb2.WriteResponse.FromString,
    )
    remaining = 0
    try:
        for name in names:
            try:
                letter = dead_letters.read(folder, name)
                written = await dependency.unary(write, letter.request)
            except dead_letters.DeadLetterError as error:
                remaining += 1
                typer.echo(f"{name}: {error}")
            except FAILURES as error:
                typer.echo(f"{name}: {error.message}; the replay stops here")
                return len(dead_letters.names(folder))
            except AurumError as error:
                remaining += 1
                typer.echo(f"{name}: refused again: {error.message}")
            else:
                with suppress(dead_letters.DeadLetterError):  # the gateway may have deleted it meanwhile
                    dead_letters.delete(folder, name)
                typer.echo(f"{name}: {written.accepted} readings stored, {written.duplicate} already stored")
    finally:
        await dependency.close()
    return remaining
