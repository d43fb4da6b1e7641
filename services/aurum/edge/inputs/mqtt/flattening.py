"""Finds values in nested JSON, by path or all of them.

The parts of a path are joined by points, and the elements of an array are numbered from 0, as in `ENERGY.Power` and
`phases.2.u`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

MAX_DEPTH: Final = 8  # parts of a path
MAX_ELEMENTS: Final = 100  # of one array
_MAX_DIGITS = 10  # of an index


class Unflattened:
    """A part of a message that is not taken apart, because it is too large.

    Attributes:
        reason: What is too large.
        count: The number of its direct members.
    """

    def __init__(self, reason: str, count: int) -> None:
        self.reason = reason
        self.count = count


def leaves(content: Mapping[str, Any] | list[Any], path: str = "", depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Yields the path and value of everything in an object or array that is neither.

    An array or object beyond the limits is yielded as Unflattened.
    """
    members = content.items() if isinstance(content, Mapping) else enumerate(content)
    for name, value in members:
        inner = f"{path}.{name}" if path else str(name)
        if not isinstance(value, (dict, list)):
            yield inner, value
        elif depth >= MAX_DEPTH:
            yield inner, Unflattened(f"is nested in more than {MAX_DEPTH} levels", len(value))
        elif isinstance(value, list) and len(value) > MAX_ELEMENTS:
            yield inner, Unflattened(f"is an array of {len(value)}; at most {MAX_ELEMENTS} are read", len(value))
        else:
            yield from leaves(value, inner, depth + 1)


def value_at(content: Any, path: str, missing: Any) -> Any:
    """Returns the value at a path; `missing` if there is none. A name may itself contain points."""
    if isinstance(content, dict) and path in content:
        return content[path]
    name, _, rest = path.partition(".")
    if isinstance(content, dict) and name in content:
        inner = content[name]
    elif isinstance(content, list) and name.isdecimal() and len(name) < _MAX_DIGITS and int(name) < len(content):
        inner = content[int(name)]
    else:
        return missing
    return value_at(inner, rest, missing) if rest else inner
