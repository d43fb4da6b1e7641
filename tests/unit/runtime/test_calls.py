"""The catalogue of calls that policies can govern has every call that is made."""

import inspect
from pathlib import Path
from typing import get_args

import numpy as np

from aurum.ingestion.governed_store import GovernedStore
from aurum.ingestion.sqlite.store import SqliteOptions, SqliteStore
from aurum.ingestion.store import Event, MachineRecord
from aurum.readings.batch import Batch, Series, now_us
from aurum.runtime.faults import Faults
from aurum.runtime.policy.call_catalog import CALLS, StoreOperation
from aurum.runtime.policy.policies import Policies
from aurum.runtime.settings import Settings

NOT_GOVERNED = {"follow", "start", "close", "problem", "summaries", "shared", "series"}


async def test_every_store_operation_is_in_the_catalogue(tmp_path: Path) -> None:
    """Each method of the store is called once: the pipelines that this makes are those of the catalogue."""
    policies, called = Policies("ingestion", Settings()), set[str]()
    policies.pipelines.record = lambda target, *_: called.add(target)
    store = GovernedStore(SqliteStore(SqliteOptions(tmp_path / "store.db")), policies, Faults(enabled=False))
    await store.start()
    at = now_us()
    batch = Batch.from_series("a", 1, [Series("m", "s", np.array([at]), np.array([1.0]))])

    async def append() -> None:
        await (await store.append_batch(batch, wait=True))

    calls = {
        "append_batch": append,
        "list_machines": store.list_machines,
        "register": lambda: store.register(MachineRecord("m", "pump", "", at, "")),
        "sent_only_by": lambda: store.sent_only_by("m", "site/a"),
        "changes": store.changes,
        "gateways": store.gateways,
        "record_gateways": lambda: store.record_gateways({"m": "hall-3"}),
        "find_machine": lambda: store.find_machine("m"),
        "record_events": lambda: store.record_events([Event("k", "m", at, "1", b"")]),
        "events": lambda: store.events("k", "m", 0, at, 1),
        "events_about": lambda: store.events_about("k", "m", 0, at, 1),
        "journal": lambda: store.journal("k", 0, 9, 1),
        "read": lambda: store.read("m", "s", 0, at + 1),
        "read_several": lambda: store.read_several("m", ["s"], 0, at + 1),
        "read_keys": lambda: store.read_keys([("m", "s")], 0, at + 1),
    }
    methods = {name for name, _ in inspect.getmembers(GovernedStore) if not name.startswith("_")}
    assert methods - NOT_GOVERNED == set(calls)
    for call in calls.values():
        await call()
    await store.close()
    assert called == {f"ingestion/store/{name}" for name in get_args(StoreOperation)}
    assert {name for each in CALLS for name in each.names} >= called


def test_admin_servers_are_asked_by_every_method() -> None:
    """Faults are injected with POST and ended with DELETE, so a policy can name these calls too."""
    names = {name for each in CALLS for name in each.names}
    assert {f"api/ingestion-admin/{method}" for method in ("GET", "POST", "DELETE")} <= names
