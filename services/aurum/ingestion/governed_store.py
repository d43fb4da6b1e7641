"""Applies the resilience policies to the store.

Calls are timed, retried where that is safe, and refused while the store keeps failing. A failing disk then causes
quick and clear errors instead of a queue.
"""

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import TypeVar

from aurum.ingestion.store import Change, Event, MachineRecord, Points, Registered, SeriesSummary, Store
from aurum.readings.batch import Batch
from aurum.readings.ingest_stream import Written
from aurum.resilience import CircuitBreakerError, DeadlineExceededError, ErrorView, LimitExceededError, Pipeline, Policy
from aurum.resilience.errors import code_of
from aurum.runtime.calls import StoreOperation
from aurum.runtime.errors import AurumError, UnavailableError, from_policy_error
from aurum.runtime.faults import Faults
from aurum.runtime.policies import Policies

T = TypeVar("T")


def _code(error: BaseException) -> str:
    if isinstance(error, AurumError):
        return error.code.name
    return "UNAVAILABLE" if isinstance(error, sqlite3.Error) else code_of(error)


def _db_seconds(policy: Policy) -> float:
    return policy.timeout.db


_STORE_ERRORS = ErrorView(_code, lambda error: error.retry_after if isinstance(error, AurumError) else None)


class GovernedStore:
    """A Store that wraps another one."""

    def __init__(self, store: Store, policies: Policies, faults: Faults) -> None:
        self._store = store
        self._policies = policies
        self._faults = faults

    async def start(self) -> None:
        await self._store.start()

    async def close(self) -> None:
        await self._store.close()

    def problem(self) -> str | None:
        return self._store.problem()

    async def append(self, batch: Batch, *, wait: bool) -> Awaitable[Written]:
        """Queues a batch in the store, under its circuit breaker.

        There is no limit here, because the store bounds the waiting bytes itself. There is no timeout, because a
        queued batch will be written.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(_meant())
            await self._strike("append")
            stack.enter_context(self._pipeline("append").attempt("ingestion/store/append"))
            queued = await self._store.append(batch, wait=wait)
            ending = stack.pop_all()

        async def durable() -> Written:
            with ending:
                return await queued

        return durable()

    async def machines(self) -> list[MachineRecord]:
        return await self._governed("machines", self._store.machines)

    async def summaries(self) -> list[SeriesSummary]:
        """Reads the summaries without policies, because this happens once at the start and may take minutes."""
        return await self._store.summaries()

    async def register(self, machine: MachineRecord, registered: Registered | None = None) -> MachineRecord:
        return await self._governed("register", lambda: self._store.register(machine, registered), idempotent=False)

    async def sent_only_by(self, machine_id: str, owner: str) -> bool:
        return await self._governed("senders", lambda: self._store.sent_only_by(machine_id, owner))

    @property
    def shared(self) -> bool:
        return self._store.shared

    async def changes(self) -> list[Change]:
        return await self._governed("changes", self._store.changes)

    async def find(self, machine_id: str) -> Change | None:
        return await self._governed("find", lambda: self._store.find(machine_id))

    async def record(self, events: Sequence[Event]) -> None:
        await self._governed("record", lambda: self._store.record(events))

    async def events(  # noqa: PLR0917
        self, kind: str, machine_id: str, start_us: int, end_us: int, limit: int, before: tuple[int, str] | None = None
    ) -> list[Event]:
        asked = (kind, machine_id, start_us, end_us, limit, before)
        return await self._governed("events", lambda: self._store.events(*asked))

    async def journal(self, kind: str, after: int, before: int, limit: int) -> list[Event]:
        return await self._governed("events", lambda: self._store.journal(kind, after, before, limit))

    async def read(
        self, machine_id: str, sensor: str, start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> Points:
        return await self._governed(
            "read", lambda: self._store.read(machine_id, sensor, start_us, end_us, points=points, last=last)
        )

    async def read_several(
        self, machine_id: str, sensors: Sequence[str], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        return await self._governed(
            "read", lambda: self._store.read_several(machine_id, sensors, start_us, end_us, points=points, last=last)
        )

    async def _governed(
        self, operation: StoreOperation, call: Callable[[], Awaitable[T]], *, idempotent: bool = True
    ) -> T:
        async def attempt(timeout: float) -> T:
            await self._strike(operation)
            return await call()

        with _meant():
            return await self._pipeline(operation).call_async(
                attempt, idempotent=idempotent, target=f"ingestion/store/{operation}"
            )

    async def _strike(self, operation: StoreOperation) -> None:
        if self._faults.any:
            await self._faults.strike(f"store/{operation}")

    def _pipeline(self, operation: StoreOperation) -> Pipeline:
        return self._policies.pipeline("ingestion", "store", operation, _STORE_ERRORS, _db_seconds)


@contextlib.contextmanager
def _meant() -> Generator[None]:
    """Translates errors of the policies and of the database into those that callers understand."""
    try:
        yield
    except sqlite3.Error as error:
        raise UnavailableError(f"the store failed: {error}", retry_after=1.0) from error
    except (CircuitBreakerError, DeadlineExceededError, LimitExceededError) as error:
        raise from_policy_error(error) or error from error
