"""Tables in memory that execute the store's own statements, for tests of what happens between two of them."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from aurum.ingestion.cassandra import schema

Row = dict[str, Any]
_CONDITION = re.compile(r"\(?(\w+)\)? (=|>=|<=|<|>) \(?(\?|0)\)?")


def _primary_keys() -> dict[str, list[str]]:
    """The columns of the primary key of each table."""
    keys: dict[str, list[str]] = {}
    for step in (step for steps in schema.STEPS.values() for step in steps if step.startswith("CREATE TABLE")):
        name = step.split()[5]
        found = re.search(r"PRIMARY KEY \((.*?)\)(?: WITH|$|\))", step)
        inline = re.search(r"\((\w+) \w+ PRIMARY KEY", step)
        keys[name] = [inline.group(1)] if inline else re.findall(r"\w+", found.group(1) if found else "")
    return keys


_KEYS = _primary_keys()
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda value, other: value == other,
    ">=": lambda value, other: value >= other,
    "<=": lambda value, other: value <= other,
    "<": lambda value, other: value < other,
    ">": lambda value, other: value > other,
}


class Tables:
    """The rows of all tables, by primary key. Times to live and write times are ignored."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[tuple[Any, ...], Row]] = defaultdict(dict)

    def execute(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        text = schema.STATEMENTS[name]
        if text.startswith("INSERT"):
            return self._insert(text, parameters)
        table = re.search(r"FROM (\w+)", text)
        assert table
        where = text.partition(" WHERE ")[2]
        waiting = list(parameters)[1 if "USING TIMESTAMP" in text else 0 :]
        conditions = [
            (column, compare, waiting.pop(0) if value == "?" else int(value))
            for column, compare, value in _CONDITION.findall(where)
        ]
        rows = self.rows[table.group(1)]
        found = [
            key
            for key in sorted(rows)
            if all(_COMPARE[compare](rows[key][column], value) for column, compare, value in conditions)
        ]
        if text.startswith("DELETE"):
            for key in found:
                del rows[key]
            return []
        columns = [each.strip() for each in text[len("SELECT ") : text.index(" FROM")].split(",")]
        if "ORDER BY" in text:
            found.reverse()
        if "LIMIT 1" in text:
            found = found[:1]
        return [_Row({column: rows[key].get(column) for column in columns}) for key in found]

    def _insert(self, text: str, parameters: Sequence[Any]) -> list[Any]:
        table, names, values = re.match(r"INSERT INTO (\w+) \((.*?)\) VALUES \((.*?)\)", text).groups()  # type: ignore[union-attr]
        waiting = list(parameters)
        row = {
            name: waiting.pop(0) if value == "?" else int(value)
            for name, value in zip(names.split(", "), values.split(", "), strict=True)
        }
        key = tuple(row[name] for name in _KEYS[table])
        applied = "IF NOT EXISTS" not in text or key not in self.rows[table]
        if applied:
            self.rows[table].setdefault(key, {}).update(row)
        return [_Row({"applied": applied} | self.rows[table][key])] if "IF NOT" in text else []


class _Row(SimpleNamespace):
    """A row, which is also a sequence of its columns, as those of the driver are."""

    def __init__(self, columns: Row) -> None:
        super().__init__(**columns)

    def __iter__(self) -> Any:
        return iter(vars(self).values())


class Session:
    """What threads use of a CassandraSession. before: called with the name of each statement before it is executed."""

    def __init__(self, tables: Tables, before: Callable[[str], None] = lambda name: None) -> None:
        self._tables, self._before = tables, before

    def rows(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        return self.rows_for_each(name, [parameters])[0]

    def rows_for_each(self, name: str, parameters: Sequence[Sequence[Any]]) -> list[list[Any]]:
        return [self._execute(name, each) for each in parameters]

    def write_all(self, rows: Iterable[tuple[str, Sequence[Any]]]) -> None:
        for name, parameters in rows:
            self._execute(name, parameters)

    def write_partition(self, name: str, parameters: Sequence[Sequence[Any]]) -> None:
        for each in parameters:
            self._execute(name, each)

    def _execute(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        self._before(name)
        return self._tables.execute(name, parameters)
