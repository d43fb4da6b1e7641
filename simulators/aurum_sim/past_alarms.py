"""The alarms of a simulated past, found by the rules in force as the fleet scorer does, once for each minute.

Rules on predictions are evaluated by the prediction service, when it has predicted the past. Rules on silence are not.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from aurum.alarms.lifecycle import Transition
from aurum.alarms.rules import AlarmRules
from aurum.prediction.fleet.alarm_states import AlarmStates, FleetView, watched_sensors
from aurum.prediction.fleet.array_conditions import Observations
from aurum.readings.batch import Timestamps
from aurum.readings.simulated_past import OPERATOR, acknowledged_us
from aurum_sim.past import GroupPast
from aurum_sim.plant_model import Floats


def past_alarms(groups: Sequence[tuple[str, GroupPast]], rules: AlarmRules) -> list[Transition]:
    """Returns the transitions of the alarms in a past, in their order.

    Args:
        groups: The machine type and the past of each group of machines, with the same times.
        rules: The rules in force.
    """
    wanted = AlarmRules(rules=tuple(rule for rule in rules.rules if rule.sensor or rule.rate))
    if not wanted.rules or not groups:
        return []
    states = AlarmStates(wanted)
    found: list[Transition] = []
    for view in _views(groups, watched_sensors(wanted)):
        states.evaluate(view)
        found += states.pending
        states.written(len(states.pending))
    end_us = int(groups[0][1].times[-1])
    return sorted([*found, *_acknowledgements(found, end_us)], key=lambda each: each.at_us)


def _acknowledgements(found: Sequence[Transition], end_us: int) -> Iterator[Transition]:
    for each in found:
        at_us = acknowledged_us(each.at_us, end_us)
        if each.kind == "raised" and at_us is not None:
            yield Transition("acknowledged", each.machine_id, each.rule, at_us, by=OPERATOR)


def _views(groups: Sequence[tuple[str, GroupPast]], sensors: Sequence[str]) -> Iterator[FleetView]:
    """Yields what the rules see at each time of the past."""
    pasts = [past for _, past in groups]
    ids = [machine_id for past in pasts for machine_id in past.machine_ids]
    types = np.repeat(np.arange(len(groups)), [len(past.machine_ids) for past in pasts])
    times = pasts[0].times
    readings = {sensor: _latest([_columns(past, sensor) for past in pasts], times) for sensor in sensors}
    unknown = np.full(len(ids), np.nan)
    never = np.zeros(len(ids), np.int64)
    evaluated = np.ones(len(ids), np.bool_)
    for step, at_us in enumerate(times.tolist()):
        observations = Observations(
            at_us,
            np.full(len(ids), at_us),
            {sensor: (read[step], values[step]) for sensor, (read, values) in readings.items()},
            unknown,
            unknown,
            unknown,
            never,
            np.zeros(len(ids)),
        )
        yield FleetView(ids, [machine_type for machine_type, _ in groups], types, evaluated, observations)


def _columns(past: GroupPast, sensor: str) -> Floats:
    """Returns value[time, machine] of a sensor; NaN where it was not read, or where machines do not have it."""
    if sensor not in past.sensors:
        return np.full(past.values.shape[:2], np.nan)
    column = past.sensors.index(sensor)
    return np.where(past.present[:, :, column], past.values[:, :, column], np.nan)


def _latest(columns: Sequence[Floats], times: Timestamps) -> tuple[npt.NDArray[np.int64], Floats]:
    """Returns time[step, machine] and value[step, machine] of the latest reading at each time; time 0 for none."""
    values = np.concatenate(columns, axis=1)
    steps = np.arange(len(values))[:, None]
    latest = np.maximum.accumulate(np.where(np.isnan(values), -1, steps), axis=0)
    read = np.where(latest >= 0, times[np.maximum(latest, 0)], 0)
    return read, np.take_along_axis(values, np.maximum(latest, 0), axis=0)
