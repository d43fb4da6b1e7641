"""The options by which commands are told which histories to read, and what the columns and words of tables mean."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from aurum.commands import tables

if TYPE_CHECKING:
    from aurum.commands.table_roles import DeclaredColumns
    from aurum.commands.training_data import DataSelection

P = ParamSpec("P")
_TABLES = (".csv", ".tsv", ".csv.gz", ".parquet", ".pq")


class DataFormat(StrEnum):
    """The formats of histories."""

    plant = "plant"
    cmapss = "cmapss"
    csv = "csv"
    store = "store"


class DuplicateRows(StrEnum):
    """What is done with rows of the same machine and time."""

    refuse = "refuse"
    first = "first"
    last = "last"
    mean = "mean"


Column = str | None


@dataclass(kw_only=True)
class HistoryOptions:
    """The options of the commands that read histories, with their help texts."""

    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Tables (CSV, Parquet), folders or patterns of tables, C-MAPSS files or stores; `train` simulates "
            "histories if absent."
        ),
    ] = None
    format_: Annotated[DataFormat | None, typer.Option("--format", help="Format of the files; detected if absent.")] = (
        None
    )
    machine_type: Annotated[
        list[str] | None,
        typer.Option(
            help="Type of the machines; for simulated histories and stores only these types, may be repeated."
        ),
    ] = None
    run_to_failure: Annotated[
        bool, typer.Option("--run-to-failure", help="Take each machine's last reading as its failure.")
    ] = False
    unit: Annotated[
        Column, typer.Option(help="Column that names the machine; recognized by common names if absent.")
    ] = None
    machine_by_file: Annotated[
        bool,
        typer.Option(
            "--machine-by-file",
            help="Each file has one machine, named as the file. So it is too if no column of several files names one.",
        ),
    ] = False
    time: Annotated[Column, typer.Option(help="Column with the time; recognized likewise.")] = None
    life: Annotated[
        Column, typer.Option(help="Column that counts life, such as operating hours; recognized likewise.")
    ] = None
    failure: Annotated[
        Column, typer.Option(help="Column that is set, or has a word, at failures; recognized likewise.")
    ] = None
    healthy: Annotated[
        list[str] | None,
        typer.Option(help="Word of the column of failures for a machine that works; may be repeated."),
    ] = None
    failure_value: Annotated[
        list[str] | None, typer.Option(help="Word of the column of failures for a failure; may be repeated.")
    ] = None
    ignore: Annotated[
        list[str] | None,
        typer.Option(help="Word of the column of failures for rows to leave out, such as a repair; may be repeated."),
    ] = None
    left: Annotated[Column, typer.Option(help="Column with the remaining life; recognized likewise.")] = None
    run: Annotated[
        Column,
        typer.Option(
            help="Column whose value changes where a new life begins, such as the number of a run or the serial number "
            "of the part that wears; recognized likewise."
        ),
    ] = None
    left_file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="File with the remaining life at each machine's last reading: a line for each machine in the numeric "
            "order of their ids, or lines with a machine and a number.",
        ),
    ] = None
    failures: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Table with a row for each failure: the machine and the time (or the life), named as in FILES or "
            "commonly.",
        ),
    ] = None
    maintenance: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Table with a row for each overhaul or repair, after which a new life begins; as --failures.",
        ),
    ] = None
    exclude: Annotated[list[str] | None, typer.Option(help="Column to leave out entirely; may be repeated.")] = None
    duplicates: Annotated[
        DuplicateRows,
        typer.Option(
            help="Of rows with the same machine and time that differ, use the first or the last one, or their mean; "
            "equal rows count once."
        ),
    ] = DuplicateRows.refuse
    time_format: tables.TimeFormat = None
    timezone: tables.Timezone = None
    encoding: tables.Encoding = None
    delimiter: tables.Delimiter = None
    decimal: tables.Decimal = tables.DecimalSign.auto
    absent: tables.Absent = None

    def require_files(self) -> None:
        """Raises typer.BadParameter without any file."""
        if not self.files:
            raise typer.BadParameter("name at least one file", param_hint="FILES")

    def selection(
        self, *, machines: int = 50, seed: int = 7, sensors: list[str] | None = None, all_words: bool = False
    ) -> "DataSelection":
        """Returns the data that the options select. Raises typer.BadParameter.

        Args:
            machines: Simulated machines of each type.
            seed: Seed of the simulation.
            sensors: The sensors to use; all if absent.
            all_words: See `DeclaredColumns`.
        """
        from aurum.commands.training_data import DataSelection  # noqa: PLC0415

        if self.format_ in (DataFormat.cmapss, DataFormat.csv) and not self.files:
            raise typer.BadParameter(f"--format {self.format_.value} needs at least one file", param_hint="FILES")
        return DataSelection(
            self.format_.value if self.format_ else None,
            [file for given in self.files or () for file in _files_of(given)],
            self.machine_type or [],
            self.run_to_failure,
            self._declared(all_words),
            machines,
            seed,
            self.left_file,
            sensors or (),
        )

    def _declared(self, all_words: bool) -> "DeclaredColumns":
        from aurum.commands.state_words import StateWords  # noqa: PLC0415
        from aurum.commands.table_roles import DeclaredColumns  # noqa: PLC0415

        written = tables.table_options(self.time_format, self.timezone, self.delimiter, self.decimal, self.absent)
        return DeclaredColumns(
            unit=self.unit,
            time=self.time,
            life=self.life,
            failure=self.failure,
            left=self.left,
            run=self.run,
            written=written,
            encoding=tables.text_encoding(self.encoding),
            failures=self.failures,
            maintenance=self.maintenance,
            states=StateWords(self.healthy or (), self.failure_value or (), self.ignore or ()),
            excluded=self.exclude or (),
            machine_by_file=self.machine_by_file,
            duplicates=self.duplicates.value,
            all_words=all_words,
        )


def takes_histories(command: Callable[Concatenate[HistoryOptions, P], None]) -> Callable[..., None]:
    """Gives a command the options of `HistoryOptions` in place of its first parameter.

    Typer reads the options of a command from its signature, so they are written once and put into each signature.
    """
    hints = get_type_hints(HistoryOptions, include_extras=True)
    given = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(HistoryOptions)
    ]
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        options = HistoryOptions(**{each.name: values.pop(each.name) for each in given})
        command(options, **values)  # type: ignore[call-arg]

    parameters = [*given, *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    del run.__wrapped__  # else Typer looks at the command itself
    return run


def _files_of(given: Path) -> list[Path]:
    """Returns the files that an argument names: a file, the tables in a folder, or what a pattern matches."""
    if given.is_dir():
        inside = sorted(each for each in given.rglob("*") if each.name.lower().endswith(_TABLES))
        if not inside:
            raise typer.BadParameter(f"{given} contains no {' or '.join(_TABLES)} file", param_hint="FILES")
        return inside
    if given.exists():
        return [given]
    if has_magic(str(given)):
        matching = sorted(Path(each) for each in glob(str(given), recursive=True) if Path(each).is_file())
        if not matching:
            raise typer.BadParameter(f"no file matches the pattern {given}", param_hint="FILES")
        return matching
    raise typer.BadParameter(f"{given} does not exist", param_hint="FILES")
