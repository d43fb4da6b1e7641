"""Operating regimes of machines that run at changing settings.

The readings of such machines depend on the setting as well as on wear. Sensors are therefore expressed in standard
deviations from their mean in the regime (Peel, 2008, on varying operating conditions).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Regimes:
    """The operating regimes of a machine type.

    Attributes:
        columns: The settings.
        centers: centers[regime, column], in the units of the settings.
        scale: scale[column], by which distances to the centers are divided.
        sensors: The sensors that are expressed relative to their regime.
        mean: mean[regime, sensor].
        deviation: deviation[regime, sensor]; infinite for a sensor that is constant in the regime.
    """

    columns: tuple[str, ...]
    centers: Floats
    scale: Floats
    sensors: tuple[str, ...]
    mean: Floats
    deviation: Floats

    def nearest(self, settings: Floats) -> Indices:
        """Returns the index of the nearest regime for settings[reading, column]; -1 if one of its settings is NaN."""
        complete = ~np.isnan(settings).any(axis=1)
        distances = (((settings[:, None, :] - self.centers[None, :, :]) / self.scale) ** 2).sum(axis=2)
        return np.where(complete, np.nan_to_num(distances, nan=np.inf).argmin(axis=1), -1)

    def relative(self, sensor: str, values: Floats, regimes: Indices) -> Floats:
        """Returns values in standard deviations from the mean of their regime; NaN if the regime is not known."""
        index = self.sensors.index(sensor)
        scaled: Floats = (values - self.mean[regimes, index]) / self.deviation[regimes, index]
        return np.where(regimes >= 0, scaled, np.nan)


def settings_at(
    regimes: Regimes, columns: Mapping[str, tuple[npt.NDArray[np.int64], Floats]], times: npt.NDArray[np.int64]
) -> Floats:
    """Returns settings[time, column]: the last reading at or before each time, or NaN."""
    settings = np.full((len(times), len(regimes.columns)), np.nan)
    for index, name in enumerate(regimes.columns):
        if name not in columns:
            continue
        at, values = columns[name]
        present = ~np.isnan(values)
        at, values = at[present], values[present]
        if len(at):
            latest = np.searchsorted(at, times, side="right") - 1
            settings[:, index] = np.where(latest >= 0, values[np.maximum(latest, 0)], np.nan)
    return settings
