"""Expected costs of three decisions, from the distribution of the remaining useful life.

An intervention after time t costs c(t) = C_planned · P(T > t) + C_failure · P(T ≤ t) - (C_planned / L) · E[min(T, t)],
where T is the RUL and L the usual life of a maintained machine. The last term is the value of the life that is still
used, since it postpones the next intervention (age replacement; Barlow and Hunter, 1960). The formula applies to money,
energy, emissions and water. Waiting for the failure is t = ∞.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.maintenance.costs import Cost, TypeCosts

Floats = npt.NDArray[np.float64]
RESOURCES = ("money", "kwh", "kgco2e", "litres")


@dataclass(frozen=True, slots=True)
class RulDistribution:
    """The distribution of the RUL, P(T ≤ value) = level.

    Attributes:
        levels: Probabilities, ascending.
        values: The quantiles at these levels.
        cap: The RUL above which the model makes no statement. Probability beyond it is placed at the cap, so that the
            failure is never assumed to be later than predicted.
    """

    levels: Floats
    values: Floats
    cap: float

    def failure_probability(self, time: float) -> float:
        """Returns P(T ≤ time), interpolated linearly between the quantiles, from 0 at time 0 to 1 at the cap.

        The probability of quantiles that are at the cap is placed there.
        """
        if time >= self.cap:
            return 1.0
        below = self.values < self.cap
        at = np.concatenate([[0.0], self.values[below]])
        level = np.concatenate([[0.0], self.levels[below]])
        if below.all() and time > at[-1]:
            return float(level[-1] + (1 - level[-1]) * (time - at[-1]) / (self.cap - at[-1]))
        return float(np.interp(time, at, level))

    def life_used(self, time: float) -> float:
        """Returns E[min(T, time)], which is the integral of P(T > t) from 0 to `time`."""
        end = min(time, self.cap)
        grid = np.unique(np.concatenate([[0.0, end], np.linspace(0, end, 201), self.values[self.values < end]]))
        running = np.array([1.0 - self.failure_probability(float(point)) for point in grid])
        return float(np.trapezoid(running, grid))


@dataclass(frozen=True, slots=True)
class MaintenanceOption:
    """A time for the next intervention, with its expected costs.

    Attributes:
        when: now, planned_stop or at_failure.
        after: Time until the intervention in the unit of the RUL; None for at_failure.
        failure_probability: Probability of a failure before the intervention.
        life_used: Expected life until the intervention or the failure.
        expected: Expected cost of each of RESOURCES.
    """

    when: str
    after: float | None
    failure_probability: float
    life_used: float
    expected: dict[str, float]


def maintenance_options(
    distribution: RulDistribution, costs: TypeCosts, planned_stop: float
) -> list[MaintenanceOption]:
    """Returns the options now, at the planned stop and at the failure, in this order, with their expected costs.

    Args:
        distribution: The distribution of the machine's RUL.
        costs: The costs of its machine type.
        planned_stop: Time until the next planned stop, in the unit of the RUL.
    """
    return [
        _option("now", 0.0, distribution, costs),
        _option("planned_stop", planned_stop, distribution, costs),
        _option("at_failure", None, distribution, costs),
    ]


def cheapest_option(options: Sequence[MaintenanceOption]) -> MaintenanceOption:
    """Returns the option with the least expected money; of equal ones the first."""
    return min(options, key=lambda option: option.expected["money"])


def _option(when: str, after: float | None, distribution: RulDistribution, costs: TypeCosts) -> MaintenanceOption:
    failed = 1.0 if after is None else 0.0 if after == 0 else distribution.failure_probability(after)
    life_used = 0.0 if after == 0 else distribution.life_used(np.inf if after is None else after)
    expected = {
        name: _cost_in(costs.planned, name) * (1 - failed)
        + _cost_in(costs.failure, name) * failed
        - _cost_in(costs.planned, name) * life_used / costs.life
        for name in RESOURCES
    }
    return MaintenanceOption(when, after, failed, life_used, expected)


def _cost_in(cost: Cost, resource: str) -> float:
    value: float = getattr(cost, resource)
    return value
