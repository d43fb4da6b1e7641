"""Water usage effectiveness."""


def water_usage_effectiveness(litres: float, kwh: float) -> float | None:
    """Returns litres per kWh, or None without energy.

    This is The Green Grid's WUE (2011), with the energy of machines instead of a data centre's.
    """
    return litres / kwh if kwh > 0 else None
