"""The audit log: who changed what, from what to what, in which trace. Lines of JSON that are only ever appended."""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from aurum.runtime.audit_export import EVENT_NAME, AuditExport
from aurum.runtime.errors import AurumError, UnavailableError
from aurum.runtime.tracing import current_trace_id

logger = logging.getLogger("aurum.audit")

_MOST_BYTES = 50_000_000
_KEPT = 9  # older files beside the one that is written
_LEAST_FREE = 1_000_000  # bytes of its disk, below which nothing is changed
T = TypeVar("T")


class Actor(Protocol):
    """Who acts, and how that was proved."""

    @property
    def user_id(self) -> str: ...

    @property
    def kind(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Platform:
    """What acts where nobody does: a document that was put in its place."""

    user_id: str
    kind: str = "platform"


@dataclass(slots=True)
class Act:
    """What is being done; `after` is what came of it."""

    after: Any = None


class AuditLog:
    """Writes each act to the service's log, to a file if it has one, and to a collector if there is one."""

    def __init__(self, path: Path | None, export: AuditExport | None = None) -> None:
        """Raises OSError if the file cannot be written."""
        self._path = path
        self._export = export
        self._file = None if path is None else self._open(path)
        self._acts: set[asyncio.Task[Any]] = set()

    def record(
        self,
        actor: Actor,
        action: str,
        subject: str,
        *,
        before: Any = None,
        after: Any = None,
        outcome: str = "done",
    ) -> None:
        """action: such as alarm.acknowledge. subject: what it was done to. outcome: done, refused or failed."""
        act = {
            "user_id": actor.user_id,
            "how": actor.kind,
            "action": action,
            "subject": subject,
            "before": before,
            "after": after,
            "outcome": outcome,
            "trace_id": current_trace_id(),
        }
        sentence = f"{actor.user_id} {action} {subject}: {outcome}"
        logger.info(sentence, extra={"event.name": EVENT_NAME, "audit": act})
        if self._export is not None:
            self._export.send(sentence, act)
        if self._file is None or self._path is None:
            return
        line = json.dumps({"timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"), **act}, default=str)
        try:
            os.write(self._file, line.encode() + b"\n")  # one write, so that lines of two processes do not mix
            if os.fstat(self._file).st_size > _MOST_BYTES:
                self._turn(self._path)
        except OSError as error:
            logger.error("an act is in this log only, since %s cannot be written: %s", self._path, error.strerror)

    async def perform(
        self, actor: Actor, action: str, subject: str, work: Callable[[Act], Awaitable[T]], before: Any = None
    ) -> T:
        """Does a piece of work and records it, also that it failed and why. Both go to their end: a caller that hangs
        up leaves no act without its line.

        Raises what the work raises, and UnavailableError, before anything is done, if the act could not be recorded.
        """
        self._require_room()

        async def whole() -> T:
            with self._recorded(actor, action, subject, before) as act:
                return await work(act)

        task = asyncio.create_task(whole(), name=f"act {action}")
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # recorded, if nobody waits any more
        return await asyncio.shield(task)

    @contextlib.contextmanager
    def _recorded(self, actor: Actor, action: str, subject: str, before: Any) -> Generator[Act]:
        act = Act()
        try:
            yield act
        except AurumError as error:
            self.record(actor, action, subject, before=before, outcome=f"failed: {error.reason}")
            raise
        except BaseException as error:  # it may have been done or not, as when the service ends
            self.record(actor, action, subject, before=before, outcome=f"unknown: {type(error).__name__}")
            raise
        self.record(actor, action, subject, before=before, after=act.after)

    def _require_room(self) -> None:
        if self._file is None:
            return
        stat = os.fstatvfs(self._file)
        if stat.f_bavail * stat.f_frsize < _LEAST_FREE:
            raise UnavailableError(
                f"nothing is changed without a line in the audit log, and its disk has less than {_LEAST_FREE} bytes",
                reason="AUDIT_LOG_FULL",
            )

    def close(self) -> None:
        """Ends it, with what waits for a collector: not on an event loop."""
        self._close_file()
        if self._export is not None:
            self._export.close()

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _turn(self, path: Path) -> None:
        self._close_file()
        for number in range(_KEPT - 1, 0, -1):
            older = path.with_suffix(f"{path.suffix}.{number}")
            if older.exists():
                older.replace(path.with_suffix(f"{path.suffix}.{number + 1}"))
        path.replace(path.with_suffix(f"{path.suffix}.1"))
        self._file = self._open(path)

    @staticmethod
    def _open(path: Path) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
