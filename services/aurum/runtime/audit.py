"""The audit log: who changed what, from what to what, in which trace. Lines of JSON that are only ever appended."""

import contextlib
import json
import logging
import os
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from aurum.runtime.audit_export import EVENT_NAME, AuditExport
from aurum.runtime.errors import AurumError
from aurum.runtime.tracing import current_trace_id

logger = logging.getLogger("aurum.audit")

_MOST_BYTES = 50_000_000
_KEPT = 9  # older files beside the one that is written


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
        os.write(self._file, line.encode() + b"\n")  # one write, so that lines of two processes do not mix
        if os.fstat(self._file).st_size > _MOST_BYTES:
            self._turn(self._path)

    @contextlib.contextmanager
    def act(self, actor: Actor, action: str, subject: str, before: Any = None) -> Generator[Act]:
        """Records what the block does, also that it failed and why."""
        act = Act()
        try:
            yield act
        except AurumError as error:
            self.record(actor, action, subject, before=before, outcome=f"failed: {error.reason}")
            raise
        self.record(actor, action, subject, before=before, after=act.after)

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
