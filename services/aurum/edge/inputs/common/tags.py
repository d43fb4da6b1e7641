"""Maps the names and values of devices to those that are stored."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from aurum.edge.inputs.common.configuration import TagRule
from aurum.edge.inputs.common.units import conversion
from aurum.readings.batch import machine_id_problem, sensor_problem

Indices = npt.NDArray[np.int32]
_MAX_TAGS = 200_000  # remembered tags; above it, all are forgotten at the next opportunity


class TagKind(IntEnum):
    """How the values of a tag are treated.

    Attributes:
        PLAIN: They are converted and stored.
        BANDED: They are converted, and left out while they stay within the deadband.
        INVALID: They cannot be stored, because a name is invalid.
        DROPPED: A rule drops them.
    """

    PLAIN = 0
    BANDED = 1
    INVALID = 2
    DROPPED = 3


@dataclass(slots=True)
class Tag:
    """One sensor of one machine, with its stored names.

    `index` identifies it in arrays. `problem` says why it is INVALID.
    """

    index: int
    machine_id: str
    sensor: str
    kind: TagKind = TagKind.PLAIN
    factor: float = 1.0
    offset: float = 0.0
    deadband: float = 0.0
    deadband_us: int = 0
    problem: str | None = None
    last_value: float = float("nan")
    last_us: int = -1

    def passes(self, at_us: int, value: float) -> bool:
        """Returns whether a converted value of a BANDED tag is outside the deadband. Remembers it in that case."""
        near = abs(value - self.last_value) <= self.deadband
        if near and 0 <= at_us - self.last_us < self.deadband_us:
            return False
        self.last_value, self.last_us = value, at_us
        return True


class Tags:
    """All tags that have been seen, also as arrays by index.

    `generation` changes when all tags, and with them their indices, are forgotten.
    """

    def __init__(self, rules: Sequence[TagRule]) -> None:
        self._rules = rules
        self.generation = -1
        self.forget()

    def forget(self) -> None:
        """Forgets all tags and begins a new generation."""
        self.generation += 1
        self._by_name: dict[tuple[str, str], Tag] = {}
        self._tags: list[Tag] = []
        self.kinds = np.zeros(1024, np.uint8)
        self.factors = np.ones(1024)
        self.offsets = np.zeros(1024)

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

    def _create(self, key: tuple[str, str]) -> Tag:
        machine, sensor = key
        rule = next(
            (
                rule
                for rule in self._rules
                if fnmatch.fnmatchcase(sensor, rule.sensor) and fnmatch.fnmatchcase(machine, rule.machine)
            ),
            None,
        )
        name = sensor if rule is None or rule.becomes is None else rule.becomes
        tag = Tag(len(self._tags), machine, name, problem=machine_id_problem(machine) or sensor_problem(name))
        if rule is not None:
            factor, offset = conversion(rule.unit, rule.to) if rule.unit and rule.to else (1.0, 0.0)
            tag.factor, tag.offset = rule.scale * factor, rule.offset * factor + offset
            tag.deadband, tag.deadband_us = rule.deadband, int(rule.deadband_seconds * 1e6)
            if rule.deadband:
                tag.kind = TagKind.BANDED
        if tag.problem is not None:
            tag.kind = TagKind.INVALID
        if rule is not None and rule.drop:
            tag.kind = TagKind.DROPPED
        self._by_name[key] = tag
        self._tags.append(tag)
        if len(self._tags) > len(self.kinds):
            growth = len(self.kinds)
            self.kinds = np.concatenate([self.kinds, np.zeros(growth, np.uint8)])
            self.factors = np.concatenate([self.factors, np.ones(growth)])
            self.offsets = np.concatenate([self.offsets, np.zeros(growth)])
        self.kinds[tag.index] = tag.kind
        self.factors[tag.index] = tag.factor
        self.offsets[tag.index] = tag.offset
        return tag
