"""Applies the resilience policies to the store.

Calls are timed, retried where that is safe, and refused while the store keeps failing. A failing disk then causes
quick and clear errors instead of a queue.
"""

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import TypeVar

from aurum.ingestion.series_index import SeriesIndex
from aurum.ingestion.store import Change, Event, MachineRecord, OnRegistered, OnStored, Points, SeriesSummary, Store
from aurum.readings.batch import Batch, SeriesKey
from aurum.readings.transport.ingest_stream import Written
from aurum.resilience import (
    CircuitBreakerError,
    DeadlineExceededError,
    ErrorClassifier,
    LimitExceededError,
    Pipeline,
    Policy,
)
from aurum.resilience.errors import code_of
from aurum.runtime.errors import AurumError, UnavailableError, from_policy_error
from aurum.runtime.faults import Faults
from aurum.runtime.policy.call_catalog import StoreOperation
from aurum.runtime.policy.policies import Policies

T = TypeVar("T")


def _code(error: BaseException) -> str:
    if isinstance(error, AurumError):
        return error.code.name
    return "UNAVAILABLE" if isinstance(error, sqlite3.Error) else code_of(error)


def _db_seconds(policy: Policy) -> float:
    return policy.timeout.db


_STORE_ERRORS = ErrorClassifier(_code, lambda error: error.retry_after if isinstance(error, AurumError) else None)


class GovernedStore:
    """A Store that applies the policies of `ingestion/store/*` to the calls of another store."""

    def __init__(self, store: Store, policies: Policies, faults: Faults) -> None:
        self._store = store
        self._policies = policies
        self._faults = faults

    async def start(self) -> None:
        """Starts the store."""
        await self._store.start()

    async def close(self) -> None:
        """Closes the store."""
        await self._store.close()

    def problem(self) -> str | None:
        """Returns why the store cannot be written at the moment, or None."""
        return self._store.problem()

    async def append_batch(self, batch: Batch, *, wait: bool) -> Awaitable[Written]:
        """Queues a batch in the store, under its circuit breaker.

        There is no limit here, because the store bounds the waiting bytes itself. There is no timeout, because a
        queued batch will be written.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(_translated_errors())
            await self._inject_faults("append")
            stack.enter_context(self._pipeline("append").attempt("ingestion/store/append"))
            queued = await self._store.append_batch(batch, wait=wait)
            ending = stack.pop_all()

        async def durable() -> Written:
            with ending:
                return await queued

        return durable()

    async def list_machines(self) -> list[MachineRecord]:
        """Returns all machines."""
        return await self._call("machines", self._store.list_machines)

    async def summaries(self) -> list[SeriesSummary]:
        """Reads the summaries without policies, because this happens once at the start and may take minutes."""
        return await self._store.summaries()

    async def register(self, machine: MachineRecord, registered: OnRegistered | None = None) -> MachineRecord:
        """Registers a machine, without retries."""
        return await self._call("register", lambda: self._store.register(machine, registered), idempotent=False)

    async def gateways(self) -> dict[str, str]:
        """Returns the gateway of each machine; see Store.gateways."""
        return await self._call("machines", self._store.gateways)

    async def record_gateways(self, gateways: Mapping[str, str]) -> None:
        """Stores the gateways of machines; see Store.record_gateways."""
        await self._call("record", lambda: self._store.record_gateways(gateways))

    async def sent_only_by(self, machine_id: str, owner: str) -> bool:
        """Whether one owner owns all sources of a machine; see Store.sent_only_by."""
        return await self._call("senders", lambda: self._store.sent_only_by(machine_id, owner))

    @property
    def shared(self) -> bool:
        """Whether other processes write to the store too."""
        return self._store.shared

    @property
    def series(self) -> SeriesIndex:
        """The numbers of the series; see Store.series."""
        return self._store.series

    def follow(self, on_stored: OnStored) -> None:
        """Passes on each batch that another process stores; see Store.follow."""
        self._store.follow(on_stored)

    async def changes(self) -> list[Change]:
        """Returns what other processes have written recently."""
        return await self._call("changes", self._store.changes)

    async def find_machine(self, machine_id: str) -> Change | None:
        """Returns a machine that is unknown in this process, or None."""
        return await self._call("find", lambda: self._store.find_machine(machine_id))

    async def record_events(self, events: Sequence[Event]) -> None:
        """Stores events. Those that exist already are replaced."""
        await self._call("record", lambda: self._store.record_events(events))

    async def events(  # noqa: PLR0917
        self, kind: str, machine_id: str, start_us: int, end_us: int, limit: int, before: tuple[int, str] | None = None
    ) -> list[Event]:
        """Returns the newest events of a machine; see Store.events."""
        arguments = (kind, machine_id, start_us, end_us, limit, before)
        return await self._call("events", lambda: self._store.events(*arguments))

    async def events_about(  # noqa: PLR0917
        self, kind: str, about: str, start_us: int, end_us: int, limit: int, before: tuple[int, str] | None = None
    ) -> list[Event]:
        """Returns the newest events of the plant as a whole that concern a machine; see Store.events_about."""
        arguments = (kind, about, start_us, end_us, limit, before)
        return await self._call("events", lambda: self._store.events_about(*arguments))

    async def journal(self, kind: str, after: int, before: int, limit: int) -> list[Event]:
        """Returns events of the plant as a whole; see Store.journal."""
        return await self._call("events", lambda: self._store.journal(kind, after, before, limit))

    async def read(
        self, machine_id: str, sensor: str, start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> Points:
        """Returns readings of a series; see Store.read."""
        return await self._call(
            "read", lambda: self._store.read(machine_id, sensor, start_us, end_us, points=points, last=last)
        )

    async def read_several(
        self, machine_id: str, sensors: Sequence[str], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Returns readings of the first of several series; see Store.read_several."""
        return await self._call(
            "read", lambda: self._store.read_several(machine_id, sensors, start_us, end_us, points=points, last=last)
        )

    async def read_keys(
        self, keys: Sequence[SeriesKey], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Returns readings of the first of several series; see Store.read_keys."""
        return await self._call("read", lambda: self._store.read_keys(keys, start_us, end_us, points=points, last=last))

    async def _call(self, operation: StoreOperation, call: Callable[[], Awaitable[T]], *, idempotent: bool = True) -> T:
        """Calls the store under the policy of an operation. Raises AurumError."""

        async def attempt(timeout: float) -> T:
            await self._inject_faults(operation)
            return await call()

        with _translated_errors():
            return await self._pipeline(operation).call_async(
                attempt, idempotent=idempotent, target=f"ingestion/store/{operation}"
            )

    async def _inject_faults(self, operation: StoreOperation) -> None:
        """Delays or fails the call if a fault is injected for the operation."""
        if self._faults.any_active:
            await self._faults.apply(f"store/{operation}")

    def _pipeline(self, operation: StoreOperation) -> Pipeline:
        return self._policies.pipeline("ingestion", "store", operation, _STORE_ERRORS, _db_seconds)


@contextlib.contextmanager
def _translated_errors() -> Generator[None]:
    """Translates errors of the policies and of the database into those that callers understand."""
    try:
        yield
    except sqlite3.Error as error:
        raise UnavailableError(f"the store failed: {error}", retry_after=1.0) from error
    except (CircuitBreakerError, DeadlineExceededError, LimitExceededError) as error:
        raise from_policy_error(error) or error from error
