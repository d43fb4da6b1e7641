"""The variables of a subscription, and what of their changes is stored."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from asyncua import ua

from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.refusals import Reason
from aurum.edge.inputs.common.tag import Tag, TagKind
from aurum.edge.inputs.common.tags import Indices
from aurum.edge.inputs.opcua.browsing import Variable
from aurum.edge.inputs.opcua.changes import Changes, Content
from aurum.readings.batch import Values, now_us

_BAD = 0xC000_0000  # bits of a status that is bad or uncertain
_NO_NUMBERS = (
    (Content.TEXT, Reason.TEXT, "is a text"),
    (Content.NOTHING, Reason.ABSENT, "is empty"),
    (Content.OTHER, Reason.UNSUPPORTED, "is an array, a time or a structure"),
)


class MonitoredVariables:
    """The variables by the handle that their changes have.

    Args:
        name: The name of the input.
        builder: Takes their values.
    """

    def __init__(self, name: str, builder: BatchBuilder) -> None:
        self._name = name
        self._builder = builder
        self._held: list[Tag] = []  # tags of the variables, also of those before the last `clear`
        self.clear()

    def clear(self) -> None:
        """Forgets all variables. Their tags keep their series for a while, since they may be monitored again."""
        for tag in self._held:
            tag.held = False
            tag.used_us = now_us()
        self._by_handle: dict[int, Variable] = {}
        self._nodes: dict[tuple[str, str], ua.NodeId] = {}
        self._indices: Indices = np.empty(0, np.int32)  # of tags, by handle
        self._unusable = np.empty(0, np.int64)  # changes that were not stored, by handle
        self._generation = -1  # of those tags

    def __len__(self) -> int:
        return len(self._by_handle)

    def without_known(self, variables: Iterable[Variable]) -> list[Variable]:
        """Returns the variables that are not monitored yet.

        Two nodes with the same names would be stored under one name. The first keeps it, and the others are refused.
        """
        unknown: dict[Variable, None] = {}
        for variable in variables:
            node = self._nodes.setdefault((variable.machine, variable.sensor), variable.node)
            if node != variable.node:
                self._builder.refusals.refuse(
                    Reason.INVALID_NAME,
                    f"{variable.machine} {variable.sensor} is both {node.to_string()} and {variable.node.to_string()}, "
                    "which is not read; name more levels of the path in machine or sensor",
                )
            else:
                unknown[variable] = None
        monitored = set(self._by_handle.values())
        return [variable for variable in unknown if variable not in monitored]

    def add(self, handles: Sequence[int], variables: Sequence[Variable]) -> None:
        """Adds variables with the handles that their changes will have."""
        self._by_handle.update(zip(handles, variables, strict=True))
        self._generation = -1

    def remove(self, handle: int) -> None:
        """Removes a variable that the server does not monitor."""
        self._by_handle.pop(handle)
        self._generation = -1

    def add_changes(self, changes: Changes) -> None:
        """Passes on the values of changes, and tells which cannot be stored."""
        if self._generation != self._builder.tags.generation:
            self._update_tag_indices()
        monitored = changes.handles < len(self._indices)
        monitored[monitored] = self._indices[changes.handles[monitored]] >= 0
        handles = changes.handles[monitored]
        indices, values, good = self._indices[handles], changes.values[monitored], changes.good[monitored]
        statuses = changes.statuses[monitored]
        wanted = self._builder.tags.kinds[indices] != TagKind.DROPPED
        bad = wanted & ((statuses & _BAD) != 0)
        no_number = wanted & ~bad & ~good
        refused = bad | no_number
        if refused.any():
            np.add.at(self._unusable, handles[refused], 1)
            for status in np.unique(statuses[bad]).tolist():
                name = ua.StatusCode(ua.UInt32(status)).name
                self._refuse(handles[bad & (statuses == status)], Reason.BAD_QUALITY, name)
            if no_number.any():
                self._refuse_contents(handles[no_number], changes.contents[monitored][no_number])
        at_us, kept = changes.at_us[monitored], ~refused
        rounded = wanted & kept & (changes.contents[monitored] == Content.ROUNDED)
        if rounded.any():
            self._tell_rounded(handles[rounded], values[rounded])
        self._builder.add_values(self._name, indices[kept], at_us[kept], values[kept], good[kept])

    def _tell_rounded(self, handles: npt.NDArray[np.int64], values: Values) -> None:
        variable = self._by_handle[int(handles[-1])]
        example = f"{variable.machine} {variable.sensor}: is stored as {values[-1]:.0f} ({variable.node.to_string()})"
        self._builder.refusals.correct(Reason.ROUNDED, example, len(handles), device=self._name)

    def _refuse_contents(self, handles: npt.NDArray[np.int64], contents: npt.NDArray[np.uint8]) -> None:
        """Refuses values that are no numbers. Only in place of a number is a text a fault."""
        tags = self._builder.tags
        had_number = np.array([tags.tag_at(index).had_number for index in self._indices[handles].tolist()], bool)
        for content, reason, problem in _NO_NUMBERS:
            which = contents == content
            for part, actual in (
                ((which & ~had_number), reason),
                ((which & had_number), Reason.NOT_A_NUMBER if reason is Reason.TEXT else reason),
            ):
                if part.any():
                    self._refuse(handles[part], actual, problem)

    def _refuse(self, handles: npt.NDArray[np.int64], reason: Reason, problem: str) -> None:
        handle = int(handles[-1])
        variable = self._by_handle[handle]
        more = len(np.unique(handles)) - 1
        self._builder.refuse_value(
            self._name,
            variable.machine,
            variable.sensor,
            reason,
            f"{problem} ({variable.node.to_string()}), {self._unusable[handle]} times"
            f"{f'; and {more} other variables' if more else ''}",
            len(handles),
        )

    def _update_tag_indices(self) -> None:
        tags = self._builder.tags
        size = max(self._by_handle, default=-1) + 1
        self._indices = np.full(size, -1, np.int32)
        present = []
        names = {(variable.machine, variable.sensor) for variable in self._by_handle.values()}
        tags.let_go(tag for tag in self._held if (tag.machine, tag.name) not in names)
        for handle, variable in self._by_handle.items():
            tag = tags.tag_for(variable.machine, variable.sensor)
            tag.held = True
            self._indices[handle] = tag.index
            present.append(tag)
        self._held = present
        counts = np.zeros(size, np.int64)
        common = min(size, len(self._unusable))
        counts[:common] = self._unusable[:common]
        self._unusable = counts
        self._generation = tags.generation
