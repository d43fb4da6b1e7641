"""The audit log: who changed what, the values before and after, and the trace. JSON lines that are only appended."""

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

from aurum.runtime.errors import AurumError, UnavailableError
from aurum.runtime.telemetry.audit_export import EVENT_NAME, AuditExport
from aurum.runtime.telemetry.tracing import current_trace_id

logger = logging.getLogger("aurum.audit")

_MOST_BYTES = 50_000_000
_KEPT = 9  # rotated files beside the current one
_LEAST_FREE = 1_000_000  # free bytes of the disk below which changes are refused
T = TypeVar("T")


class Actor(Protocol):
    """The author of an action and how the identity was proved."""

    @property
    def user_id(self) -> str:
        """The id of the author."""

    @property
    def kind(self) -> str:
        """How the identity was proved, such as key or token."""


@dataclass(frozen=True, slots=True)
class Platform:
    """The author of actions that no person takes, such as putting a policy document in force."""

    user_id: str
    kind: str = "platform"


@dataclass(slots=True)
class Act:
    """An action in progress. `after` is the resulting value."""

    after: Any = None


class AuditLog:
    """Writes each action to the service's log, to a file if one is set, and to a collector if there is one."""

    def __init__(self, path: Path | None, export: AuditExport | None = None) -> None:
        """Opens the file. Raises OSError if it cannot be written."""
        self._path = path
        self._export = export
        self._file = None if path is None else self._open_file(path)
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
        """Records an action.

        Args:
            actor: Who acted.
            action: Name such as alarm.acknowledge.
            subject: The object of the action.
            before: Value before the action.
            after: Value after the action.
            outcome: done, refused or failed.
        """
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
                self._rotate(self._path)
        except OSError as error:
            logger.error("an act is in this log only, since %s cannot be written: %s", self._path, error.strerror)

    async def perform(
        self, actor: Actor, action: str, subject: str, work: Callable[[Act], Awaitable[T]], before: Any = None
    ) -> T:
        """Performs an action and records its outcome, including failures.

        Both are completed even if the caller disconnects, so that no action lacks its line.

        Raises:
            UnavailableError: The action could not be recorded, so it was not started.
            Exception: The error of the action.
        """
        self._require_room()

        async def run_recorded() -> T:
            with self._recorded(actor, action, subject, before) as act:
                return await work(act)

        task = asyncio.create_task(run_recorded(), name=f"act {action}")
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # marks errors as retrieved
        return await asyncio.shield(task)

    @contextlib.contextmanager
    def _recorded(self, actor: Actor, action: str, subject: str, before: Any) -> Generator[Act]:
        act = Act()
        try:
            yield act
        except AurumError as error:
            self.record(actor, action, subject, before=before, outcome=f"failed: {error.reason}")
            raise
        except BaseException as error:  # it may or may not have been done, for example when the service ends
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
        """Closes the file and flushes the queue for the collector. It blocks, so it must not run on an event loop."""
        self._close_file()
        if self._export is not None:
            self._export.close()

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _rotate(self, path: Path) -> None:
        self._close_file()
        for number in range(_KEPT - 1, 0, -1):
            older = path.with_suffix(f"{path.suffix}.{number}")
            if older.exists():
                older.replace(path.with_suffix(f"{path.suffix}.{number + 1}"))
        path.replace(path.with_suffix(f"{path.suffix}.1"))
        self._file = self._open_file(path)

    @staticmethod
    def _open_file(path: Path) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
