"""Conversions between units, by pint: all of them are a factor and an offset."""

from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pint import UnitRegistry


class UnitError(ValueError):
    """Units that are unknown or of different kinds."""


@lru_cache(maxsize=1000)
def conversion(unit: str, to: str) -> tuple[float, float]:
    """Factor and offset that turn values of one unit into another's. Raises UnitError."""
    try:
        if _angle(unit) != _angle(to):  # pint takes a revolution for 2π of nothing, so that 60 rpm would be 6.28 Hz
            raise UnitError("one is of angles and the other is not; say by how much with scale")
        at_0, at_1 = (float(_registry().Quantity(value, unit).to(to).magnitude) for value in (0.0, 1.0))
        at_100 = float(_registry().Quantity(100.0, unit).to(to).magnitude)
    except Exception as error:  # pint's own errors have no common root, and its parser raises more
        raise UnitError(f"{unit!r} cannot be turned into {to!r}: {error}") from error
    factor = at_1 - at_0
    if abs(at_0 + 100 * factor - at_100) > 1e-9 * max(1.0, abs(at_100)):
        raise UnitError(f"{unit!r} is not turned into {to!r} by a factor and an offset")
    return factor, at_0


def _angle(unit: str) -> float:
    """The exponent of angle in a unit."""
    return float(dict(_registry().get_root_units(unit)[1]._units).get("radian", 0))  # type: ignore[arg-type]


@cache
def _registry() -> "UnitRegistry[float]":
    """Its own file of all units takes long to read: only for those who convert one."""
    from pint import UnitRegistry  # noqa: PLC0415

    return UnitRegistry(cache_folder=None)
