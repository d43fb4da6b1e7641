"""A wear index: one number that summarises how worn a machine looks, by all of its sensors together.

Trees compare one noisy sensor at a time with thresholds. A weighted sum over sensors averages their noise before that
(a health index by linear regression; Wang, Yu, Siegel and Lee, 2008, on similarity-based prognostics).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
WEAR_INDEX = "wear_index"
_LEAST_WEIGHT = 0.5  # share of the weights whose sensors must have a value


@dataclass(frozen=True, slots=True)
class WearIndex:
    """The weighted sum of the differences of sensors from their means.

    Attributes:
        mean: Mean of each sensor.
        weight: Weight of each sensor, per unit of the sensor.
        share: Share of each sensor in the index; the shares add up to 1.
    """

    mean: Floats
    weight: Floats
    share: Floats

    def __call__(self, values: Floats) -> Floats:
        """Returns the index of values[..., sensor]; NaN if sensors with half of the weight have no value.

        A sensor without a value counts as average. Sensors are added one by one, so that the result for a step does not
        depend, in any bit, on how many steps are computed together.
        """
        total = np.zeros(values.shape[:-1])
        present = np.zeros(values.shape[:-1])
        for sensor in range(len(self.weight)):
            if self.share[sensor] == 0.0:
                continue
            off = (values[..., sensor] - self.mean[sensor]) * self.weight[sensor]
            missing = np.isnan(off)
            total += np.where(missing, 0.0, off)
            present += np.where(missing, 0.0, self.share[sensor])
        index: Floats = np.where(present >= _LEAST_WEIGHT, total, np.nan)
        return index
