"""`aurum migrate`: a store on one machine into Cassandra, while the service runs on the old one.

Everything is copied by its identity, so the command may be ended and run again at any time, and at the end once more
after the service has been switched over: then it copies only what came in between.
"""

import contextlib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from aurum.commands.progress import progress_bar
from aurum.ingestion.sqlite.snapshot import Snapshot, open_snapshot
from aurum.ingestion.store import MachineRecord, Store
from aurum.readings.batch import Batch, Series, Timestamps, Values
from aurum.runtime.errors import AlreadyExistsError

_BATCH = 50_000  # readings
_EVENTS = 500  # at a time


@dataclass(slots=True)
class Migrated:
    machines: int = 0
    readings: int = 0
    known: int = 0
    events: int = 0
    damaged: dict[int, str] = field(default_factory=dict)  # segments that were left out


async def migrate(path: Path, store: Store) -> Migrated:
    """Copies the store at `path`. Raises as open_snapshot does, and AurumError."""
    result = Migrated()
    with open_snapshot(path) as snapshot, progress_bar("migrate") as update:
        machines = snapshot.list_machines()
        for index, machine in enumerate(machines):
            await _copy_machine(snapshot, machine, store, result)
            update((index + 1) / len(machines), f"{result.readings + result.known:,} readings")
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
        with contextlib.suppress(AlreadyExistsError):  # by the run before, or by who has registered it there since
            await store.register(machine)
    result.machines += 1
    for sensor in snapshot.sensors(machine.machine_id):
        key = (machine.machine_id, sensor)
        for day in snapshot.days(key):
            timestamps, values = snapshot.day(key, day)
            for start in range(0, len(values), _BATCH):
                part = timestamps[start : start + _BATCH], values[start : start + _BATCH]
                batch = Batch.of(_identity(key, *part), 1, [Series(*key, *part, increasing=True)])
                written = await (await store.append_batch(batch, wait=True))
                result.readings += written.accepted
                result.known += written.duplicate


def _identity(key: tuple[str, str], timestamps: Timestamps, values: Values) -> str:
    """The same readings have the same source, so that they are stored once."""
    digest = hashlib.sha256("\0".join(key).encode())
    digest.update(timestamps.tobytes())
    digest.update(values.tobytes())
    return f"migrate/{digest.hexdigest()[:32]}"
