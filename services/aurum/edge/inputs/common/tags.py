"""All tags of an input, also as arrays."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from aurum.edge.inputs.common.configuration import TagRule
from aurum.edge.inputs.common.series_owners import SILENT_US, SeriesOwners
from aurum.edge.inputs.common.tag import (
    LARGEST,
    ONLY_SOURCE,
    Tag,
    TagKind,
    TagSource,
    apply_rule,
    is_escaped,
    names_problem,
    rule_for,
    stored_names,
)
from aurum.edge.inputs.common.throttled_log import ThrottledLog
from aurum.readings.batch import Values

logger = logging.getLogger(__name__)

Indices = npt.NDArray[np.int32]
_MAX_TAGS = 200_000  # remembered tags; above it, all are forgotten at the next opportunity
_MAX_REMEMBERED = 100  # names of each kind that are remembered and logged until the tags are forgotten


class Tags:
    """All tags that have been seen, also as arrays by index.

    Attributes:
        generation: Changes when all tags, and with them their indices, are forgotten.
        unusable: Why names cannot be stored, by machine and sensor as the device names them; the first hundred.
        renamed: The tags whose names are stored in an escaped form; the first hundred.
        ranged: Whether any tag has a minimum or maximum.
        stored_us: The time of the value of each tag that was stored last; -1 before the first one.
        stored_values: That value.
        shared: Whether any tag may store a series that another one stores.
        name: The name of the input.
    """

    def __init__(
        self,
        rules: Sequence[TagRule],
        machines: Mapping[str, str] | None = None,
        name: str = "",
        owners: SeriesOwners | None = None,
    ) -> None:
        """Creates an empty collection.

        Args:
            rules: The rules for sensors; the first that matches applies.
            machines: The machine ids by the names that the device uses.
            name: The name of the input.
            owners: The owners of the series of all inputs that must not store the same ones; by default of this input
                only.
        """
        self._rules = rules
        self._machines = machines or {}
        self.name = name
        self._owners = SeriesOwners() if owners is None else owners
        self._change_log = ThrottledLog(name)
        self._tags: list[Tag] = []
        self.generation = -1
        self.forget()

    def forget(self) -> None:
        """Forgets all tags and begins a new generation."""
        self.generation += 1
        self._by_name: dict[tuple[str, str, str], Tag] = {}
        for tag in self._tags:
            self._owners.release(tag)
        self._tags = []
        self._contested: dict[int, int] = {}  # by index of a tag whose series another tag stores: last refusal in µs
        self.unusable: dict[tuple[str, str], str] = {}
        self.renamed: list[Tag] = []
        self.ranged = self.shared = False
        self.kinds = np.zeros(1024, np.uint8)
        self.factors = np.ones(1024)
        self.offsets = np.zeros(1024)
        self.minimums = np.full(1024, -LARGEST)
        self.maximums = np.full(1024, LARGEST)
        self.stored_us = np.full(1024, -1, np.int64)
        self.stored_values = np.zeros(1024)
        self.absents = np.empty((1024, 0))  # a column for each absent value of the tag with most; NaN elsewhere

    @property
    def over_limit(self) -> bool:
        """Whether the tags should be forgotten, for example because a device keeps sending new names."""
        return len(self._tags) > _MAX_TAGS

    def tag_for(self, machine: str, sensor: str, source: TagSource = ONLY_SOURCE) -> Tag:
        """Returns the tag for the names that a device uses, and what it sends the tag by."""
        tag = self._by_name.get((machine, sensor, source.name))
        return self._create(machine, sensor, source) if tag is None else tag

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

    def reclaim(self, tag: Tag) -> bool:
        """Returns whether an INVALID tag can be stored from now on, because the tag that stored its series is gone."""
        if tag.index not in self._contested:
            return False
        self._contested[tag.index] = self._owners.now_us()
        if problem := self._claim(tag):
            self._note_unusable(tag, problem)
            return False
        del self._contested[tag.index]
        self.unusable.pop((tag.machine, tag.name), None)
        self._set_kind(tag, TagKind.BANDED if tag.deadband else TagKind.PLAIN, None)
        return True

    def reclaim_all(self, indices: Indices) -> bool:
        """Calls `reclaim` for INVALID tags. Returns whether any of them can be stored from now on."""
        if not self._contested:
            return False
        stored = [self.reclaim(self._tags[index]) for index in np.unique(indices).tolist()]
        return any(stored)

    def lose(self, tag: Tag, other: Tag, winner: str) -> None:
        """Stops storing a tag, because `other` of the input `winner` stores its series from now on."""
        self._contested[tag.index] = 0
        self._set_kind(tag, TagKind.INVALID, self._contest_problem(tag, other, winner))
        self._change_log.warn(
            f"{_with_origin(tag)} was the source of {tag.machine_id} {tag.sensor} and has sent nothing for "
            f"{SILENT_US // 1_000_000} s or is gone; {_source(other, winner, self.name)} is its source from now on"
        )

    def release(self, machine: str, sensor: str) -> None:
        """Lets other tags store the series of a tag that its device no longer has."""
        if (tag := self._by_name.get((machine, sensor, ""))) is not None:
            self.let_go([tag])

    def let_go(self, tags: Iterable[Tag]) -> None:
        """Lets other tags store the series of these ones."""
        for tag in tags:
            tag.held = False
            tag.used_us = 0

    def contested(self) -> int:
        """Returns how many tags were not stored in the last ten minutes, because another tag stores their series."""
        since = self._owners.now_us() - SILENT_US
        return sum(at > since for at in self._contested.values())

    def _create(self, machine: str, sensor: str, source: TagSource) -> Tag:
        _, rule = rule_for(self._rules, machine, sensor)
        machine_id, name = stored_names(rule, self._machines, machine, sensor)
        tag = Tag(len(self._tags), machine, sensor, machine_id, name, source=source)
        if rule is not None:
            apply_rule(tag, rule)
        if rule is not None and rule.drop:
            tag.kind = TagKind.DROPPED
        self.shared = self.shared or source.shares
        self._by_name[machine, sensor, source.name] = tag
        self._tags.append(tag)
        self._add_to_arrays(tag)
        if tag.kind is not TagKind.DROPPED:
            self._check_names(tag)
        return tag

    def _check_names(self, tag: Tag) -> None:
        """Marks a tag whose names cannot be stored. Two tags never share a stored name, as their values would mix."""
        problem = names_problem(tag)
        if problem is None and not tag.source.shares and (problem := self._claim(tag)):
            self._contested[tag.index] = self._owners.now_us()
        if problem is not None:
            self._set_kind(tag, TagKind.INVALID, problem)
            self._note_unusable(tag, problem)
        elif is_escaped(tag) and len(self.renamed) < _MAX_REMEMBERED:
            self.renamed.append(tag)
            logger.info("%s: %s is stored as %s %s", self.name, tag, tag.machine_id, tag.sensor)

    def _claim(self, tag: Tag) -> str | None:
        """Makes a tag the source of its series. Returns why that is not possible, or None."""
        owner = self._owners.claim(self, tag)
        return None if owner is None else self._contest_problem(tag, owner[1], owner[0].name)

    def _contest_problem(self, tag: Tag, other: Tag, winner: str) -> str:
        advice = "add a rule for it"
        if tag.source.name and winner == self.name:
            advice = (
                "give its topic another machine or sensor, or declare shared_series for it if the values are the same"
            )
        elif winner != self.name:
            advice += ", or declare shared_series for one of the two inputs if their values are the same"
        source = _source(other, winner, self.name)
        return f"{_with_origin(tag)} would be stored as {tag.machine_id} {tag.sensor}, as {source} is; {advice}"

    def _note_unusable(self, tag: Tag, problem: str) -> None:
        """Remembers and logs why a tag cannot be stored, once."""
        names = tag.machine, tag.name
        if names not in self.unusable and len(self.unusable) < _MAX_REMEMBERED:
            self.unusable[names] = problem
            logger.warning("%s: not stored: %s", self.name, problem)

    def _set_kind(self, tag: Tag, kind: TagKind, problem: str | None) -> None:
        tag.kind, tag.problem = kind, problem
        self.kinds[tag.index] = kind

    def _add_to_arrays(self, tag: Tag) -> None:
        if len(self._tags) > len(self.kinds):
            growth = len(self.kinds)
            self.kinds = np.concatenate([self.kinds, np.zeros(growth, np.uint8)])
            self.factors = np.concatenate([self.factors, np.ones(growth)])
            self.offsets = np.concatenate([self.offsets, np.zeros(growth)])
            self.minimums = np.concatenate([self.minimums, np.full(growth, -LARGEST)])
            self.maximums = np.concatenate([self.maximums, np.full(growth, LARGEST)])
            self.stored_us = np.concatenate([self.stored_us, np.full(growth, -1, np.int64)])
            self.stored_values = np.concatenate([self.stored_values, np.zeros(growth)])
            self.absents = np.concatenate([self.absents, np.full((growth, self.absents.shape[1]), np.nan)])
        if (missing := len(tag.absent) - self.absents.shape[1]) > 0:
            self.absents = np.concatenate([self.absents, np.full((len(self.absents), missing), np.nan)], axis=1)
        self.kinds[tag.index] = tag.kind
        self.factors[tag.index] = tag.factor
        self.offsets[tag.index] = tag.offset
        self.minimums[tag.index], self.maximums[tag.index] = tag.minimum, tag.maximum
        self.absents[tag.index, : len(tag.absent)] = tag.absent
        self.ranged = self.ranged or tag.minimum > -LARGEST or tag.maximum < LARGEST


def _source(tag: Tag, holder: str, own: str) -> str:
    """Returns the names of a tag, with the input if that is another one."""
    return _with_origin(tag) if holder == own else f"{_with_origin(tag)} of input {holder}"


def _with_origin(tag: Tag) -> str:
    """Returns the names of a tag, with what the device sends it by if that is known."""
    return f"{tag} of {tag.source.name}" if tag.source.name else str(tag)
