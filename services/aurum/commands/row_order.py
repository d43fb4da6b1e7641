"""Puts the rows of a machine in the order of time, and treats rows with the same time by a stated policy."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from aurum.commands.table_columns import FIRST_ROW
from aurum.readings.batch import Timestamps, Values
from aurum.readings.history import FAULT
from aurum.readings.tables import TableError

Rows = npt.NDArray[np.intp]
Duplicates = Literal["refuse", "first", "last", "mean"]
_DONE = {"first": "the first one is used", "last": "the last one is used", "mean": "their mean is used"}


class RowOrder:
    """Orders rows by time.

    Args:
        columns: The values of each column by row. The policy `mean` replaces those of rows that stand for several.
        policy: What is done with rows of the same machine and time that differ: refuse; use the first or last one of
            the table; or use one row with the mean of each column.
        column: The column of times, or of life, for messages.
        exclusive: Columns of which the last value is used instead of the mean, such as codes of words.
    """

    def __init__(
        self, columns: Mapping[str, Values], policy: Duplicates, column: str, exclusive: frozenset[str] = frozenset()
    ) -> None:
        self._columns = columns
        self._policy = policy
        self._column = column
        self._exclusive = exclusive
        self._same = 0
        self._different = 0

    def sort(self, unit: str, rows: Rows, at: Timestamps) -> tuple[Rows, Timestamps]:
        """Returns the rows of a machine in the order of time, each time once.

        Args:
            unit: The machine, for messages.
            rows: The indices of its rows.
            at: Their times in µs.

        Raises:
            TableError: Two rows have the same time and differ, and the policy is to refuse this.
        """
        order = np.argsort(at, kind="stable")
        rows, at = rows[order], at[order]
        begins = np.flatnonzero(np.diff(at, prepend=at[0] - 1 if len(at) else 0))
        if len(begins) == len(at):
            return rows, at
        kept = rows[begins].copy()
        for index, group in enumerate(np.split(rows, begins[1:])):
            if len(group) > 1:
                kept[index] = self._one_of(unit, np.sort(group), rows, at)
        return kept, at[begins]

    def note(self) -> str | None:
        """Returns what was done with rows of the same machine and time, or None if there were none."""
        parts = []
        if self._same:
            parts.append(f"{self._same} rows repeat another row and are not used")
        if self._different:
            parts.append(
                f"{self._different} rows have the machine and {self._column!r} of another: {_DONE[self._policy]}"
            )
        return "; ".join(parts) or None

    def _one_of(self, unit: str, group: Rows, rows: Rows, at: Timestamps) -> int:
        """Returns the row that stands for rows with the same time."""
        alike = all(
            bool(np.isnan(values[group]).all()) or bool((values[group] == values[group[0]]).all())
            for values in self._columns.values()
        )
        if alike:
            self._same += len(group) - 1
            return int(group[0])
        self._different += len(group) - 1
        if self._policy == "refuse":
            pairs = int((np.diff(at) == 0).sum())
            raise TableError(
                int(group[1]) + FIRST_ROW,
                self._column,
                f"machine {unit} already has a row with this time, row {int(group[0]) + FIRST_ROW} ({pairs} such pairs "
                f"in all); say which of them to use by --duplicates first, last or mean, or name other columns with "
                f"--unit and --time",
            )
        if self._policy == "mean":
            for name, values in self._columns.items():
                present = values[group][~np.isnan(values[group])]
                if len(present):
                    values[group[-1]] = self._joined(name, present)
        return int(group[0] if self._policy == "first" else group[-1])

    def _joined(self, name: str, present: Values) -> float:
        if name == FAULT:
            return float(present.max())
        return float(present[-1] if name in self._exclusive else present.mean())
