"""Unit conversions by pint. Each is a factor and an offset."""

from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pint import UnitRegistry


class UnitError(ValueError):
    """The units are unknown, or cannot be converted by a factor and an offset."""


@lru_cache(maxsize=1000)
def conversion(unit: str, to: str) -> tuple[float, float]:
    """Returns factor and offset for the conversion from one unit to another. Raises UnitError."""
    try:
        if _angle(unit) != _angle(to):  # pint treats a revolution as a dimensionless 2π, so 60 rpm would become 6.28 Hz
            raise UnitError("one is a unit of angle and the other is not; set scale instead")
        at_0, at_1 = (float(_registry().Quantity(value, unit).to(to).magnitude) for value in (0.0, 1.0))
        at_100 = float(_registry().Quantity(100.0, unit).to(to).magnitude)
    except Exception as error:  # pint's errors have no common base class, and its parser raises others
        raise UnitError(f"{unit!r} cannot be converted to {to!r}: {error}") from error
    factor = at_1 - at_0
    if abs(at_0 + 100 * factor - at_100) > 1e-9 * max(1.0, abs(at_100)):
        raise UnitError(f"the conversion from {unit!r} to {to!r} is not a factor and an offset")
    return factor, at_0


def _angle(unit: str) -> float:
    """Returns the exponent of angle in a unit."""
    return float(dict(_registry().get_root_units(unit)[1]._units).get("radian", 0))  # type: ignore[arg-type]


@cache
def _registry() -> "UnitRegistry[float]":
    """Returns pint's registry. It is slow to load, so it is loaded only when a conversion is needed."""
    from pint import UnitRegistry  # noqa: PLC0415

    return UnitRegistry(cache_folder=None)
