"""The registrations of all machines, and which of them changed since a version."""

from collections import OrderedDict
from collections.abc import Iterator

from aurum.ingestion.store import MachineRecord


class Registrations:
    """The machines by their latest registration.

    Attributes:
        version: A number that increases with each change.
    """

    def __init__(self) -> None:
        self._records: OrderedDict[str, tuple[int, MachineRecord]] = OrderedDict()  # the latest change last
        self.version = 0

    def note(self, record: MachineRecord) -> bool:
        """Notes a machine, registered or not. Returns whether it is new or its registration has changed."""
        _, before = self._records.get(record.machine_id, (0, None))
        if before == record:
            return False
        self.version += 1
        self._records[record.machine_id] = self.version, record
        self._records.move_to_end(record.machine_id)
        return True

    def touch(self, machine_id: str) -> None:
        """Counts a machine as changed, because something else that is sent with its registration has changed."""
        known = self._records.get(machine_id)
        if known is not None:
            self.version += 1
            self._records[machine_id] = self.version, known[1]
            self._records.move_to_end(machine_id)

    def changed_since(self, version: int) -> Iterator[MachineRecord]:
        """Yields the machines that changed after `version`, the latest first."""
        for changed, record in reversed(self._records.values()):
            if changed <= version:
                return
            yield record
