"""Maps the names and values of devices to those that are stored."""

import fnmatch
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from aurum.edge.inputs.common.configuration import TagRule
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.common.units import conversion
from aurum.readings.batch import Values, machine_id_problem, sensor_problem
from aurum.readings.names import stored_machine, stored_sensor

logger = logging.getLogger(__name__)

Indices = npt.NDArray[np.int32]
_MAX_TAGS = 200_000  # remembered tags; above it, all are forgotten at the next opportunity
_LARGEST = sys.float_info.max  # so that infinity and NaN are outside the range of every tag
_MAX_REMEMBERED = 100  # names of each kind that are remembered and logged until the tags are forgotten


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
        had_number: Whether a single value of it was stored, so that a text in its place is a fault.
        last_value: The value that was stored last, if it is BANDED.
        last_us: The time of that value.
    """

    index: int
    machine: str
    name: str
    machine_id: str
    sensor: str
    kind: TagKind = TagKind.PLAIN
    factor: float = 1.0
    offset: float = 0.0
    minimum: float = -_LARGEST
    maximum: float = _LARGEST
    absent: tuple[float, ...] = ()
    deadband: float = 0.0
    deadband_us: int = 0
    problem: str | None = None
    had_number: bool = False
    last_value: float = float("nan")
    last_us: int = -1

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


class Tags:
    """All tags that have been seen, also as arrays by index.

    Attributes:
        generation: Changes when all tags, and with them their indices, are forgotten.
        unusable: Why names cannot be stored, by machine and sensor as the device names them; the first hundred.
        renamed: The tags whose names are stored in an escaped form; the first hundred.
        ranged: Whether any tag has a minimum or maximum.
    """

    def __init__(self, rules: Sequence[TagRule], machines: Mapping[str, str] | None = None, name: str = "") -> None:
        """Creates an empty collection.

        Args:
            rules: The rules for sensors; the first that matches applies.
            machines: The machine ids by the names that the device uses.
            name: The name of the input, for the log.
        """
        self._rules = rules
        self._machines = machines or {}
        self._name = name
        self.generation = -1
        self.forget()

    def forget(self) -> None:
        """Forgets all tags and begins a new generation."""
        self.generation += 1
        self._by_name: dict[tuple[str, str], Tag] = {}
        self._by_stored_name: dict[tuple[str, str], Tag] = {}
        self._tags: list[Tag] = []
        self.unusable: dict[tuple[str, str], str] = {}
        self.renamed: list[Tag] = []
        self.ranged = False
        self.kinds = np.zeros(1024, np.uint8)
        self.factors = np.ones(1024)
        self.offsets = np.zeros(1024)
        self.minimums = np.full(1024, -_LARGEST)
        self.maximums = np.full(1024, _LARGEST)
        self.absents = np.empty((1024, 0))  # a column for each absent value of the tag with most; NaN elsewhere

    @property
    def over_limit(self) -> bool:
        """Whether the tags should be forgotten, for example because a device keeps sending new names."""
        return len(self._tags) > _MAX_TAGS

    def tag_for(self, machine: str, sensor: str) -> Tag:
        """Returns the tag for the names that a device uses."""
        key = (machine, sensor)
        tag = self._by_name.get(key)
        return self._create(key) if tag is None else tag

    def tag_at(self, index: int) -> Tag:
        """Returns the tag with an index of the present generation."""
        return self._tags[index]

    def usable(self, indices: Indices, values: Values, converted: Values) -> npt.NDArray[np.bool_]:
        """Returns which values are finite, in their valid range, and do not stand for an absent one.

        Args:
            indices: The tags.
            values: The values of the device.
            converted: The same values in the stored units.
        """
        usable = np.isfinite(converted)
        if self.ranged:
            usable &= (converted >= self.minimums[indices]) & (converted <= self.maximums[indices])
        if self.absents.shape[1]:
            usable &= ~self.are_absent(indices, values)
        return usable

    def are_absent(self, indices: Indices, values: Values) -> npt.NDArray[np.bool_]:
        """Returns which values of a device stand for an absent one, as their rules declare."""
        absent: npt.NDArray[np.bool_] = (values[:, np.newaxis] == self.absents[indices]).any(axis=1)
        return absent

    def _create(self, key: tuple[str, str]) -> Tag:
        machine, sensor = key
        _, rule = rule_for(self._rules, machine, sensor)
        machine_id, name = stored_names(rule, self._machines, machine, sensor)
        tag = Tag(len(self._tags), machine, sensor, machine_id, name)
        if rule is not None:
            _apply_rule(tag, rule)
        if rule is not None and rule.drop:
            tag.kind = TagKind.DROPPED
        else:
            self._check_names(tag)
        self._by_name[key] = tag
        self._tags.append(tag)
        self._add_to_arrays(tag)
        return tag

    def _check_names(self, tag: Tag) -> None:
        """Marks a tag whose names cannot be stored. Two tags never share a stored name, as their values would mix."""
        stored = (tag.machine_id, tag.sensor)
        other = self._by_stored_name.setdefault(stored, tag)
        if problem := _names_problem(tag):
            tag.problem = problem
        elif other is not tag:
            tag.problem = f"{tag} would be stored as {tag.machine_id} {tag.sensor}, as {other} is; add a rule for it"
        elif stored != (tag.machine, tag.name) and len(self.renamed) < _MAX_REMEMBERED and _is_escaped(tag):
            self.renamed.append(tag)
            logger.info("%s: %s is stored as %s %s", self._name, tag, *stored)
        if tag.problem is None:
            return
        tag.kind = TagKind.INVALID
        if len(self.unusable) < _MAX_REMEMBERED:
            self.unusable[tag.machine, tag.name] = tag.problem
            logger.warning("%s: not stored: %s", self._name, tag.problem)

    def _add_to_arrays(self, tag: Tag) -> None:
        if len(self._tags) > len(self.kinds):
            growth = len(self.kinds)
            self.kinds = np.concatenate([self.kinds, np.zeros(growth, np.uint8)])
            self.factors = np.concatenate([self.factors, np.ones(growth)])
            self.offsets = np.concatenate([self.offsets, np.zeros(growth)])
            self.minimums = np.concatenate([self.minimums, np.full(growth, -_LARGEST)])
            self.maximums = np.concatenate([self.maximums, np.full(growth, _LARGEST)])
            self.absents = np.concatenate([self.absents, np.full((growth, self.absents.shape[1]), np.nan)])
        if (missing := len(tag.absent) - self.absents.shape[1]) > 0:
            self.absents = np.concatenate([self.absents, np.full((len(self.absents), missing), np.nan)], axis=1)
        self.kinds[tag.index] = tag.kind
        self.factors[tag.index] = tag.factor
        self.offsets[tag.index] = tag.offset
        self.minimums[tag.index], self.maximums[tag.index] = tag.minimum, tag.maximum
        self.absents[tag.index, : len(tag.absent)] = tag.absent
        self.ranged = self.ranged or tag.minimum > -_LARGEST or tag.maximum < _LARGEST


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


def _apply_rule(tag: Tag, rule: TagRule) -> None:
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


def _names_problem(tag: Tag) -> str | None:
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


def _is_escaped(tag: Tag) -> bool:
    return tag.machine_id == stored_machine(tag.machine) != tag.machine or (
        tag.sensor == stored_sensor(tag.name) != tag.name
    )
