"""Joins the files of one table: their columns, the names of machines that files stand for, and the rows of errors."""

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aurum.commands.table_columns import FIRST_ROW, is_text, read_columns
from aurum.commands.table_names import find_name, slug
from aurum.commands.table_roles import DeclaredColumns, TableRoleError
from aurum.readings.tables import TableError

_SUFFIXES = frozenset({".gz", ".csv", ".tsv", ".txt", ".parquet", ".pq"})
_NUMBER_AT_END = re.compile(r"[\W_]*\d+$")


def read_files(files: Sequence[Path], declared: DeclaredColumns) -> tuple[dict[str, Any], list[int]]:
    """Returns the rows of all files as one table, and the number of rows of each file.

    Columns are the same if their names differ only in capitals and signs. The names are those of the first file.

    Raises:
        TableError: A file cannot be read.
        TableRoleError: The columns of the files differ, or an excluded one does not exist.
    """
    parts = []
    for file in files:
        try:
            columns = read_columns(file, declared.written, declared.encoding)
        except TableError as error:
            raise _in_file(error, file) from error
        parts.append(_without(columns, declared.excluded, file))
    return _concatenate(files, parts), [len(next(iter(part.values()))) for part in parts]


def file_names(files: Sequence[Path]) -> list[str]:
    """Returns the name of the machine that each file stands for: its stem, with its folders if stems repeat."""
    stems = [_stem(file.name) for file in files]
    if len(set(stems)) == len(stems):
        return stems
    common = Path(os.path.commonpath([file.resolve().parent for file in files]))
    return ["-".join((*file.resolve().relative_to(common).parts[:-1], _stem(file.name))) for file in files]


def type_by_files(files: Sequence[Path], machine_by_file: bool) -> str:
    """Returns the machine type that the name of the files tells; empty if it tells none."""
    stem = _stem(files[0].name)
    if machine_by_file and len(files) > 1:
        stems = sorted(_stem(file.name) for file in files)  # what all begin with, the first and the last begin with
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(stems[0], stems[-1], strict=False))
        stem = _NUMBER_AT_END.sub("", "".join(letter for letter, _ in alike)).rstrip("-_. ")
        stem = stem or files[0].resolve().parent.name
    return slug(stem)


def error_in_file(error: TableError, files: Sequence[Path], lengths: Sequence[int]) -> TableError:
    """Returns an error about the joined table with the row number within its own file, and the name of the file."""
    row = error.row - FIRST_ROW
    if row < 0:
        return error if len(files) > 1 else _in_file(error, files[0])
    for file, length in zip(files, lengths, strict=True):
        if row < length:
            here = TableError(row + FIRST_ROW, error.column, f"{error.description} (in {file.name})")
            return here.with_others([error_in_file(each, files, lengths) for each in error.others])
        row -= length
    return error


def _in_file(error: TableError, file: Path) -> TableError:
    here = TableError(error.row, error.column, f"{error.description} (in {file.name})")
    return here.with_others([_in_file(each, file) for each in error.others])


def _without(columns: dict[str, Any], excluded: Sequence[str], file: Path) -> dict[str, Any]:
    """Returns the columns without the excluded ones."""
    left_out = set()
    for name in excluded:
        found = find_name(name, columns)
        if found is None:
            raise TableRoleError(f"--exclude names {name!r}, but the columns of {file} are {', '.join(columns)}")
        left_out.add(found)
    if len(left_out) == len(columns):
        raise TableRoleError(f"--exclude names all columns of {file}; leave at least one")
    return {name: array for name, array in columns.items() if name not in left_out}


def _concatenate(files: Sequence[Path], parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    import pyarrow as pa  # noqa: PLC0415

    if len(parts) == 1:
        return dict(parts[0])
    first = parts[0]
    renamed: list[dict[str, Any]] = []
    for file, part in zip(files, parts, strict=True):
        names = {find_name(name, first) or name: array for name, array in part.items()}
        other = set(names) ^ set(first) if len(names) == len(part) else set(part) - set(first)
        if other:
            raise TableRoleError(
                f"{file} and {files[0]} have different columns: only one of them has the column {min(other)!r}; give "
                f"it to both, or leave it out with --exclude"
            )
        renamed.append(names)
    # A numeric column with a wrong cell in one file is text there; the wrong cell is reported later
    text = {name for part in renamed for name, array in part.items() if is_text(array)}
    tables = [
        pa.table({name: part[name].cast(pa.string()) if name in text else part[name] for name in first})
        for part in renamed
    ]
    merged = pa.concat_tables(tables, promote_options="permissive")
    return {name: merged.column(name).combine_chunks() for name in merged.column_names}


def _stem(name: str) -> str:
    """Returns the name of a file without the suffixes of tables."""
    stem, suffix = os.path.splitext(name)
    return _stem(stem) if suffix.lower() in _SUFFIXES else name
