"""Names in tables: how they are compared, shown as sensors, and put in order."""

import re
from collections.abc import Iterable, Sequence

from aurum.readings.batch import sensor_problem

_DIGITS = re.compile(r"(\d+)")
_WHOLE = re.compile(r"0*(\d+)(\.0+)?")


def slug(name: str) -> str:
    """Returns a name in lower case with only letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def key_of(name: str) -> str:
    """Returns what is compared of a name: `Machine ID`, `machine_id` and `machineID` are the same."""
    return slug(name).replace("_", "") or name.strip().casefold()


def sensor_name(name: str) -> str:
    """Returns a column's name as it is if it is a valid sensor name, so that it fits readings; else its slug."""
    return name if sensor_problem(name) is None else slug(name)


def find_name(name: str, names: Iterable[str]) -> str | None:
    """Returns the one of `names` that is meant by `name`, whatever its capitals and signs; None if no single one is."""
    present = list(names)
    if name in present:
        return name
    for form in (str.casefold, key_of):
        same = [each for each in present if form(each) == form(name)]
        if len(same) == 1:
            return same[0]
    return None


def natural_order(text: str) -> tuple[tuple[int, int, str], ...]:
    """Returns a sort key by which numbers within texts are in numeric order: m2 before m10."""
    parts = _DIGITS.split(text)
    return tuple((0, int(part), "") if index % 2 else (1, 0, part) for index, part in enumerate(parts) if part)


def machine_key(text: str) -> str:
    """Returns what is compared of a machine's id between tables: 7, 07 and 7.0 are the same, and so are a1 and A1."""
    text = text.strip()
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text.casefold()


def listed(names: Sequence[str], most: int = 5) -> str:
    """Returns the first names as text, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
