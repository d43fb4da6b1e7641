"""Blends the RUL of the trees with that by age alone, which is better where wear hardly shows in the sensors."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AgeBlend:
    """A weighted mean of two estimates of the RUL.

    Attributes:
        weight: Weight of the estimate by age, from 0 to 1.
        ages: Ages, rising.
        left: The RUL at each of them. Between them it is linear.
    """

    weight: float
    ages: Floats
    left: Floats

    def __call__(self, rul: Floats, ages: Floats) -> Floats:
        """Returns the blended RUL for estimates of the trees and ages. Where the age is NaN, only the trees count."""
        by_age = np.interp(ages, self.ages, self.left)
        blended: Floats = np.where(np.isnan(ages), rul, (1 - self.weight) * rul + self.weight * by_age)
        return blended
