"""Reads files with the remaining life of each machine at its last reading, and joins them to histories by machine."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aurum.commands.histories import HistoryError
from aurum.commands.table_names import listed, machine_key
from aurum.readings.history import Run
from aurum.readings.number_text import parse_number
from aurum.readings.table_text import TextError, open_table

_NUMBERED = re.compile(r"(.*?)(\d+)")
_PAIR = re.compile(r"(.+?)\s*[;,\t ]\s*([^;,\s]+)")


def with_remaining_lives(by_type: dict[str, list[Run]], file: Path) -> tuple[dict[str, list[Run]], str]:
    """Returns the runs with the remaining lives in a file, and how its lines were matched to machines, as text.

    The file has a line for each machine: a number, in the numeric order of the machines' ids, or the machine's id and
    the number. The number holds at the machine's last reading.

    Raises:
        HistoryError: A line cannot be read, or the lines cannot be matched to the machines without doubt.
    """
    machines = list(dict.fromkeys(run.machine for runs in by_type.values() for run in runs))
    lines = _read_lines(file)
    if all(machine is None for machine, _ in lines):
        left = _by_order(machines, [number for _, number in lines], file)
        how = "in the numeric order of the machines' ids"
    else:
        left = _by_machine(machines, lines, file)
        how = "by the machines' ids"
    last = {run.machine: run.machine_id for runs in by_type.values() for run in runs}
    joined = {
        machine_type: [
            replace(run, failed=True, left=left[run.machine]) if last[run.machine] == run.machine_id else run
            for run in runs
        ]
        for machine_type, runs in by_type.items()
    }
    return joined, f"remaining life at the last readings by {file.name}, {how}"


def _read_lines(file: Path) -> list[tuple[str | None, float]]:
    """Returns the machine, if it is named, and the number of each line."""
    found: list[tuple[str | None, float]] = []
    try:
        with open_table(file) as text:
            lines = [(number, line.strip()) for number, line in enumerate(text, start=1) if line.strip()]
    except TextError as error:
        raise HistoryError(f"{file} {error}") from error
    for position, (number, line) in enumerate(lines):
        pair = _PAIR.fullmatch(line)
        machine, value = (pair[1].strip('" '), _number(pair[2])) if pair else (None, _number(line))
        if value is None or value < 0:
            if position == 0 and value is None:  # a header
                continue
            raise HistoryError(
                f"{file}, row {number}: {line[:40]!r} must have one number per line, 0 or greater, or a machine and a "
                f"number"
            )
        found.append((machine, value))
    if len({machine is None for machine, _ in found}) > 1:
        raise HistoryError(f"{file} has lines with a machine and lines without; name the machine in each of them")
    return found


def _number(text: str) -> float | None:
    try:
        return parse_number(text.strip('"'))
    except ValueError:
        return None


def _by_order(machines: Sequence[str], left: Sequence[float], file: Path) -> dict[str, float]:
    """Returns the remaining life of each machine, by the numeric order of their ids."""
    if len(left) != len(machines):
        raise HistoryError(
            f"{file} has {len(left)} numbers for {len(machines)} machines; one number per machine is required, or "
            f"lines with a machine and a number"
        )
    if len(machines) == 1:
        return {machines[0]: left[0]}
    matched = [_NUMBERED.fullmatch(machine) for machine in machines]
    numbers = {machine: (each[1], int(each[2])) for machine, each in zip(machines, matched, strict=True) if each}
    without = [machine for machine in machines if machine not in numbers]
    prefixes = sorted({prefix for prefix, _ in numbers.values()})
    if without or len(prefixes) > 1 or len(set(numbers.values())) < len(numbers):
        doubt = f"{listed(without)} without a number" if without else f"with several beginnings: {listed(prefixes)}"
        raise HistoryError(
            f"{file} names no machines, and the ids of the machines have no numeric order ({doubt}); write lines with "
            f"a machine and its remaining life, such as {machines[0]},{left[0]:g}"
        )
    return dict(zip(sorted(machines, key=lambda machine: numbers[machine]), left, strict=True))


def _by_machine(machines: Sequence[str], lines: Sequence[tuple[str | None, float]], file: Path) -> dict[str, float]:
    """Returns the remaining life of each machine, by their ids."""
    given: dict[str, float] = {}
    for machine, number in lines:
        key = machine_key(machine or "")
        if key in given:
            raise HistoryError(f"{file} names the machine {machine} twice; keep one of the lines")
        given[key] = number
    lacking = [machine for machine in machines if machine_key(machine) not in given]
    known = {machine_key(machine) for machine in machines}
    others = [str(machine) for machine, _ in lines if machine_key(machine or "") not in known]
    if lacking or others:
        problem = (
            f"lacks the machines {listed(lacking)}" if lacking else f"names {listed(others)}, which the data lacks"
        )
        raise HistoryError(f"{file} {problem}; it must have a line for each machine of the data and for no other")
    return {machine: given[machine_key(machine)] for machine in machines}
