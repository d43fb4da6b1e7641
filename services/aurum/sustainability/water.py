"""Water: what meters say, and how much of it a kWh takes."""


def water_usage_effectiveness(litres: float, kwh: float) -> float | None:
    """Litres per kWh (The Green Grid's WUE, 2011, with the machines' energy in place of a data centre's); None without
    energy."""
    return litres / kwh if kwh > 0 else None
