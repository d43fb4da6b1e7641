"""`aurum key`: makes, lists and revokes API keys in the file that the API reads."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
File = Annotated[
    Path,
    typer.Option(
        "--file", envvar="AURUM_AUTH_KEYS_FILE", help="The key file, which the API must be configured to use."
    ),
]
_DEFAULT = Path("keys.yaml")


class KeyFailedError(Exception):
    """A key cannot be created or found. The message says why."""


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Name of the owner or purpose, which appears in logs.")],
    role: Annotated[list[str], typer.Option(help="viewer, operator, engineer, ingest or admin; may be repeated.")],
    site: Annotated[list[str] | None, typer.Option(help="Only for this site; may be repeated.")] = None,
    days: Annotated[
        float | None, typer.Option(min=0.01, max=36_500, help="Days until the key expires; never if absent.")
    ] = None,
    file: File = _DEFAULT,
) -> None:
    """Create a key and print it. Only a hash of it is stored."""
    from pydantic import ValidationError

    from aurum.security.api_keys import KeyFile, locked_key_file, make_key, read_keys, write_keys

    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days) if days else None
    try:
        key, record = make_key(name, tuple(role), tuple(site or ()), expires)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise KeyFailedError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ValueError as error:
        raise KeyFailedError(str(error)) from error
    with locked_key_file(file):
        present = read_keys(file)
        if any(each.name == name for each in present.keys):
            raise KeyFailedError(f"{file} has a key named {name!r} already; revoke it first, or choose another name")
        write_keys(file, KeyFile(keys=(*present.keys, record)))
    typer.echo(key)


@keys.command("list")
def show(file: File = _DEFAULT) -> None:
    """List the ids, names, roles and sites of the keys."""
    from aurum.security.api_keys import read_keys

    for each in read_keys(file).keys:
        until = f"expires {each.expires:%Y-%m-%d %H:%M} UTC" if each.expires else "never expires"
        sites = f" of {', '.join(each.sites)}" if each.sites else ""
        typer.echo(f"{each.id}  {each.name}: {', '.join(each.roles)}{sites}, {until}")


@keys.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="Name or id of the key.")], file: File = _DEFAULT) -> None:
    """Revoke a key. The API refuses it within seconds."""
    from aurum.security.api_keys import KeyFile, locked_key_file, read_keys, write_keys

    with locked_key_file(file):
        present = read_keys(file).keys
        remaining = tuple(each for each in present if name not in (each.name, each.id))
        if len(remaining) == len(present):
            raise KeyFailedError(f"{file} has no key named {name!r}")
        write_keys(file, KeyFile(keys=remaining))
    typer.echo(f"{name} is revoked")
