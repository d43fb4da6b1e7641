"""Tells what became of the events of a table, such as failures, that were joined to the readings of machines.

Readings that are divided into parts are joined part by part. An event of a machine of another part then matches nothing
in this one, so what is told of the events, and whether they can be used, follows from all parts together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aurum.commands.table_names import listed, machine_key
from aurum.commands.table_roles import TableRoleError


@dataclass(frozen=True, slots=True)
class JoinedEvents:
    """What became of the events of a table.

    Attributes:
        place: The file of the table.
        what: What the events are, in the plural.
        events: The number of events.
        machines: The machines that the events name; empty if the table has no column of machines.
        units: The machines of the readings.
        known: The events of machines that have readings.
        early: The known events before the first reading of their machine, which are not used.
        late: The known events after the last reading of their machine, which are not used.
        marked: The readings at which an event counts.
        begins_life: Whether each event begins a new life.
    """

    place: str
    what: str
    events: int
    machines: Sequence[str]
    units: Sequence[str]
    known: int
    early: int
    late: int
    marked: int
    begins_life: bool = False


def together(joined: Sequence[JoinedEvents]) -> list[JoinedEvents]:
    """Returns for each table what became of its events in all parts of the readings.

    Raises:
        TableRoleError: Two parts have machines that the table does not tell apart, or it names no machines and there
            are several.
    """
    by_table: dict[tuple[str, str], list[JoinedEvents]] = {}
    for each in joined:
        by_table.setdefault((each.what, each.place), []).append(each)
    return [_sum(parts) for parts in by_table.values()]


def _sum(parts: Sequence[JoinedEvents]) -> JoinedEvents:
    first = parts[0]
    named: dict[str, str] = {}
    for part in parts:
        of_part = {machine_key(unit): unit for unit in part.units}
        for same in of_part.keys() & named.keys():
            raise TableRoleError(
                f"the machines {named[same]} and {of_part[same]} are in different files, and {first.place} does not "
                f"tell them apart; rename one of them, or train without --scheduler"
            )
        named |= of_part
    units = sorted(unit for part in parts for unit in part.units)
    if len(units) > 1 and not first.machines:
        raise TableRoleError(
            f"{first.place} must have a column with the machine, since the readings are of {listed(units)}"
        )
    return JoinedEvents(
        first.place,
        first.what,
        first.events,
        first.machines,
        units,
        sum(part.known for part in parts),
        sum(part.early for part in parts),
        sum(part.late for part in parts),
        sum(part.marked for part in parts),
        first.begins_life,
    )


def notes_on(joined: Sequence[JoinedEvents]) -> list[str]:
    """Returns which events are not used, and why, as text.

    Raises:
        TableRoleError: No machine of a table has readings.
    """
    return [note for each in joined for note in _notes(each)]


def _notes(joined: JoinedEvents) -> Iterator[str]:
    if not joined.known:
        raise TableRoleError(
            f"{joined.place}: no {joined.what} are joined, since none of its machines has readings: it names "
            f"{listed(joined.machines)}, and the readings are of {listed(joined.units)}"
        )
    for count, why in (
        (joined.events - joined.known, "of machines without readings"),
        (joined.early, "before the first reading of their machine"),
        (joined.late, "after the last reading of their machine"),
    ):
        if count:
            yield f"{count} {joined.what} {why} are not used"
    if joined.begins_life:
        yield f"{joined.marked} lives begin at maintenance in {joined.place.rpartition('/')[2]}"
