"""Expected costs of maintaining now, at each planned stop or at the failure, from the distribution of the RUL.

An intervention after time t costs c(t) = C_planned · P(T > t) + C_failure · P(T ≤ t) - (C_planned / L) · E[min(T, t)],
where T is the RUL and L the usual life of a maintained machine. The last term is the value of the life that is still
used, since it postpones the next intervention (age replacement; Barlow and Hunter, 1960). The formula applies to money,
energy, emissions and water. Waiting for the failure is t = ∞.

Advice is compared with the next best option, since the failure is rarely the alternative. Maintaining now is advised
only if no wait until the next planned stop is cheaper: a machine that can wait is asked about again later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.maintenance.costs import Cost, TypeCosts

Floats = npt.NDArray[np.float64]
_WAITS = 48  # times before the next planned stop at which maintenance is considered
_LOWER_TAIL = 4.0  # how far failures occur below the lowest quantile, in distances of quantiles
RESOURCES = ("money", "kwh", "kgco2e", "litres")


@dataclass(frozen=True, slots=True)
class RulDistribution:
    """The distribution of the RUL, P(T ≤ value) = level.

    Attributes:
        levels: Probabilities, ascending.
        values: The quantiles at these levels.
        cap: The RUL above which the model makes no statement. Probability beyond it is placed at the cap, so that the
            failure is never assumed to be later than predicted, unless `longest` is given.
        longest: The longest RUL. Probability beyond the cap is spread evenly from the cap to it; None for the cap.
    """

    levels: Floats
    values: Floats
    cap: float
    longest: float | None = None

    @property
    def end(self) -> float:
        """The time by which the machine has failed with certainty."""
        return max(self.cap, self.longest or 0.0)

    def failure_probability(self, time: float) -> float:
        """Returns P(T ≤ time), interpolated linearly between the quantiles, from 0 to 1 at the end.

        The probability of quantiles that are at the cap is placed there, or spread from there to the end.
        """
        return float(self._failed(np.array([time]))[0])

    def _failed(self, times: Floats) -> Floats:
        """Returns P(T ≤ time) for each time."""
        below = self.values < self.cap
        at = np.concatenate([[self._begin(self.values[below])], self.values[below]])
        level = np.concatenate([[0.0], self.levels[below]])
        if below.all():
            at, level = np.append(at, self.cap), np.append(level, 1.0)
        failed: Floats = np.interp(times, at, level)
        before = self._before_cap()
        late = times >= self.cap
        failed[late] = before + (1 - before) * (times[late] - self.cap) / max(self.end - self.cap, 1e-12)
        failed[times >= self.end] = 1.0
        return failed

    def _begin(self, quantiles: Floats) -> float:
        """Returns the time before which no failure is expected, by the distance of the two lowest quantiles.

        Spreading the lowest probability from time 0 on would make every machine fail at once with some probability.
        """
        if len(quantiles) < 2:
            return 0.0
        share = float(self.levels[0]) / float(self.levels[1] - self.levels[0])
        return max(0.0, float(quantiles[0]) - _LOWER_TAIL * float(quantiles[1] - quantiles[0]) * share)

    def _before_cap(self) -> float:
        """Returns the probability of a failure before the cap."""
        below = self.values < self.cap
        return 1.0 if below.all() else float(self.levels[below][-1]) if below.any() else 0.0

    def life_used(self, time: float) -> float:
        """Returns E[min(T, time)], which is the integral of P(T > t) from 0 to `time`."""
        end = min(time, self.end)
        grid = np.unique(np.concatenate([[0.0, end], np.linspace(0, end, 201), self.values[self.values < end]]))
        return float(np.trapezoid(1.0 - self._failed(grid), grid))


@dataclass(frozen=True, slots=True)
class MaintenanceOption:
    """A time for the next intervention, with its expected costs.

    Attributes:
        when: now, later, planned_stop or at_failure.
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
    distribution: RulDistribution, costs: TypeCosts, planned_stops: Sequence[float]
) -> list[MaintenanceOption]:
    """Returns the options now, at each planned stop and at the failure, in this order, with their expected costs.

    If maintaining now is the cheapest of them and waiting is cheaper still, the option `later` follows now: the
    cheapest time before the first planned stop.

    Args:
        distribution: The distribution of the machine's RUL.
        costs: The costs of its machine type.
        planned_stops: Times until the planned stops, in the unit of the RUL, ascending.
    """
    now = _option("now", 0.0, distribution, costs)
    options = [
        now,
        *(_option("planned_stop", after, distribution, costs) for after in planned_stops),
        _option("at_failure", None, distribution, costs),
    ]
    if cheapest_option(options) is now:
        until = planned_stops[0] if planned_stops else distribution.end
        waits = np.linspace(0, min(until, distribution.end), _WAITS + 2)[1:-1]
        later = cheapest_option([_option("later", float(after), distribution, costs) for after in waits])
        if later.expected["money"] < now.expected["money"]:
            options.insert(1, later)
    return options


def cheapest_option(options: Sequence[MaintenanceOption]) -> MaintenanceOption:
    """Returns the option with the least expected money; of equal ones the first."""
    return min(options, key=lambda option: option.expected["money"])


def next_best_option(options: Sequence[MaintenanceOption]) -> MaintenanceOption:
    """Returns the option with the least expected money besides the cheapest. There must be at least two."""
    best = cheapest_option(options)
    return cheapest_option([option for option in options if option is not best])


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
