"""One sensor of one machine, as a device names it and as it is stored, and how a rule treats its values."""

import fnmatch
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from aurum.edge.inputs.common.configuration import TagRule
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.common.units import conversion
from aurum.readings.batch import machine_id_problem, sensor_problem
from aurum.readings.names import stored_machine, stored_sensor

LARGEST = sys.float_info.max
"""So that infinity and NaN are outside the range of every tag."""


class TagKind(IntEnum):
    """How the values of a tag are treated.

    Attributes:
        PLAIN: They are converted and stored.
        BANDED: They are converted, and left out while they stay within the deadband.
        INVALID: They cannot be stored, because a name cannot be used.
        DROPPED: A rule drops them.
    """

    PLAIN = 0
    BANDED = 1
    INVALID = 2
    DROPPED = 3


@dataclass(frozen=True, slots=True)
class TagSource:
    """What a device sends a tag by, if it may send several tags with the same names, such as a topic.

    Attributes:
        name: Its name; empty if a device has no two tags with the same names.
        shares: Whether its tags may store series that other tags store.
    """

    name: str = ""
    shares: bool = False


ONLY_SOURCE = TagSource()


@dataclass(slots=True)
class Tag:
    """One sensor of one machine, with its stored names.

    Attributes:
        index: Identifies the tag in arrays.
        machine: The machine, as the device names it.
        name: The sensor, as the device names it.
        machine_id: The stored machine.
        sensor: The stored sensor.
        kind: How its values are treated.
        factor: Factor of the conversion.
        offset: Added after the factor.
        minimum: The lowest valid value, in the stored unit.
        maximum: The greatest valid value, in the stored unit.
        absent: Values of the device, before the conversion, in place of an absent one.
        deadband: Change in the stored unit up to which a value is left out.
        deadband_us: Time in µs after which an unchanged value is stored anyway.
        problem: Why it is INVALID.
        had_number: Whether a value of it was stored, so that a text in its place is a fault.
        used_us: When a value was stored, or the tag got its series, in µs since the epoch; 0 if it is gone.
        held: Whether the tag is in use although no value arrives, because its device sends changes only.
        last_value: The value that was stored last, if it is BANDED.
        last_us: The time of that value.
        source: What the device sends it by.
    """

    index: int
    machine: str
    name: str
    machine_id: str
    sensor: str
    kind: TagKind = TagKind.PLAIN
    factor: float = 1.0
    offset: float = 0.0
    minimum: float = -LARGEST
    maximum: float = LARGEST
    absent: tuple[float, ...] = ()
    deadband: float = 0.0
    deadband_us: int = 0
    problem: str | None = None
    had_number: bool = False
    used_us: int = 0
    held: bool = False
    last_value: float = float("nan")
    last_us: int = -1
    source: TagSource = ONLY_SOURCE

    def passes(self, at_us: int, value: float) -> bool:
        """Returns whether a converted value of a BANDED tag is outside the deadband. Remembers it in that case."""
        near = abs(value - self.last_value) <= self.deadband
        if near and 0 <= at_us - self.last_us < self.deadband_us:
            return False
        self.last_value, self.last_us = value, at_us
        return True

    def refusal(self, value: float, *, good: bool) -> tuple[Reason, str]:
        """Returns why a value of the device is not stored, with an example for the log.

        Args:
            value: A value that is not good or not usable.
            good: Whether the device marks it as good.
        """
        if not good:
            return Reason.BAD_QUALITY, str(self)
        if math.isnan(value) or value in self.absent:
            return Reason.ABSENT, f"{self}: {value:g}"
        if math.isinf(value):
            return Reason.NOT_A_NUMBER, f"{self}: {value:g}"
        converted = self.factor * value + self.offset
        limit = f"less than {self.minimum:g}" if converted < self.minimum else f"greater than {self.maximum:g}"
        return Reason.OUT_OF_RANGE, f"{self}: {converted:g} is {limit}"

    def __str__(self) -> str:
        """Returns the names that the device uses."""
        return f"{self.machine} {self.name}"


def rule_for(rules: Sequence[TagRule], machine: str, sensor: str) -> tuple[int, TagRule | None]:
    """Returns the rule that applies to the names that a device uses, and its position."""
    return next(
        ((position, rule) for position, rule in enumerate(rules) if _matches(rule, machine, sensor)), (-1, None)
    )


def stored_names(rule: TagRule | None, machines: Mapping[str, str], machine: str, sensor: str) -> tuple[str, str]:
    """Returns the stored names of a machine and sensor, which may be unusable.

    Args:
        rule: The rule that applies.
        machines: The machine ids by the names that the device uses.
        machine: The machine, as the device names it.
        sensor: The sensor, as the device names it.
    """
    machine_id = rule.machine_becomes if rule is not None else None
    name = rule.becomes if rule is not None else None
    return machine_id or machines.get(machine) or stored_machine(machine), name or stored_sensor(sensor)


def _matches(rule: TagRule, machine: str, sensor: str) -> bool:
    """Returns whether a rule applies. A name also matches itself, although brackets have a meaning in patterns."""
    return (rule.sensor == sensor or fnmatch.fnmatchcase(sensor, rule.sensor)) and (
        rule.machine == machine or fnmatch.fnmatchcase(machine, rule.machine)
    )


def apply_rule(tag: Tag, rule: TagRule) -> None:
    """Sets how the values of a tag are treated, except for `drop`."""
    factor, offset = conversion(rule.unit, rule.to) if rule.unit and rule.to else (1.0, 0.0)
    tag.factor, tag.offset = rule.scale * factor, rule.offset * factor + offset
    tag.deadband, tag.deadband_us = rule.deadband, int(rule.deadband_seconds * 1e6)
    if rule.minimum is not None:
        tag.minimum = rule.minimum
    if rule.maximum is not None:
        tag.maximum = rule.maximum
    with np.errstate(over="ignore"):  # a float of 32 bits holds a decimal number only approximately
        rounded = [float(value) for value in np.array(rule.absent, np.float32) if np.isfinite(value)]
    tag.absent = tuple(dict.fromkeys([*rule.absent, *rounded]))
    if rule.deadband:
        tag.kind = TagKind.BANDED


def names_problem(tag: Tag) -> str | None:
    """Returns why the names of a tag cannot be stored, or None."""
    for stored, given, what, rule, problem in (
        (tag.machine_id, tag.machine, "machine", "machine_becomes", machine_id_problem),
        (tag.sensor, tag.name, "sensor", "becomes", sensor_problem),
    ):
        if found := problem(stored):
            where = (
                f"{given[:140]!r} has {len(stored)} characters as the stored {what}"
                if given
                else f"a {what} has no name"
            )
            return f"{where}: {found}; or name it by a rule with {rule}"
    return None


def is_escaped(tag: Tag) -> bool:
    """Returns whether a name of a tag is stored in the form that `aurum.readings.names` gives it."""
    return tag.machine_id == stored_machine(tag.machine) != tag.machine or (
        tag.sensor == stored_sensor(tag.name) != tag.name
    )
