"""`aurum migrate`: copies the store of one machine into Cassandra, while the service runs on the old store.

Everything is identified by its content, so the command can be interrupted and repeated. It is run once more after the
service has been switched over, to copy what arrived in between.
"""

import contextlib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from aurum.commands.progress import progress_bar
from aurum.ingestion.sqlite.blocks import DamagedPart
from aurum.ingestion.sqlite.snapshot import Snapshot, open_snapshot
from aurum.ingestion.store import MachineRecord, Store
from aurum.readings.batch import Batch, Series, Timestamps, Values
from aurum.runtime.errors import AlreadyExistsError

_BATCH = 50_000  # readings
_EVENTS = 500  # at a time


@dataclass(slots=True)
class Migrated:
    """The result of a migration.

    Attributes:
        machines: Machines that were copied.
        readings: Readings that were copied.
        duplicates: Readings that the target had already.
        events: Events that were copied.
        damaged: Damaged segments and blocks that were left out, with the problem of each.
    """

    machines: int = 0
    readings: int = 0
    duplicates: int = 0
    events: int = 0
    damaged: dict[DamagedPart, str] = field(default_factory=dict)


async def migrate(path: Path, store: Store) -> Migrated:
    """Copies the store at `path` into another one. Raises the errors of open_snapshot, and AurumError."""
    result = Migrated()
    with open_snapshot(path) as snapshot, progress_bar("migrate") as update:
        machines = snapshot.list_machines()
        for index, machine in enumerate(machines):
            await _copy_machine(snapshot, machine, store, result)
            update((index + 1) / len(machines), f"{result.readings + result.duplicates:,} readings")
        events = []
        for event in snapshot.events():
            events.append(event)
            if len(events) >= _EVENTS:
                await store.record_events(events)
                result.events += len(events)
                events = []
        await store.record_events(events)
        result.events += len(events)
        result.damaged = snapshot.damaged
    return result


async def _copy_machine(snapshot: Snapshot, machine: MachineRecord, store: Store, result: Migrated) -> None:
    if machine.machine_type:
        with contextlib.suppress(AlreadyExistsError):  # registered by an earlier run, or at the target since then
            await store.register(machine)
    result.machines += 1
    for sensor in snapshot.sensors(machine.machine_id):
        key = (machine.machine_id, sensor)
        for day in snapshot.days(key):
            timestamps, values = snapshot.day(key, day)
            for start in range(0, len(values), _BATCH):
                part = timestamps[start : start + _BATCH], values[start : start + _BATCH]
                batch = Batch.from_series(_identity(key, *part), 1, [Series(*key, *part, increasing=True)])
                written = await (await store.append_batch(batch, wait=True))
                result.readings += written.accepted
                result.duplicates += written.duplicate


def _identity(key: tuple[str, str], timestamps: Timestamps, values: Values) -> str:
    """Returns a source id that depends only on the readings, so that they are stored once."""
    digest = hashlib.sha256("\0".join(key).encode())
    digest.update(timestamps.tobytes())
    digest.update(values.tobytes())
    return f"migrate/{digest.hexdigest()[:32]}"
