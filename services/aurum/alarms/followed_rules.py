"""The alarm rules in force: those of a file or of the store, both of which are followed while the service runs."""

import asyncio
import logging
import threading
from pathlib import Path

from aurum.alarms import metrics
from aurum.alarms.rule_changes import changes_between
from aurum.alarms.rules import AlarmRule, AlarmRules, AlarmRulesError, load_rules
from aurum.alarms.rules_revision import RulesRevision, digest_of
from aurum.runtime import damage

logger = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_MOST_NAMED = 20  # changes in one log line

_Stamp = tuple[int, int, int]


class FollowedRules:
    """The alarm rules in force: the newest revision that engineers have stored, or else those of a file.

    The file is followed. An invalid file is reported, and its last valid rules stay.

    Attributes:
        current: The rules in force. A change replaces the object.
        loaded: Whether it is known which rules are in force. Until then they are those of the file.
        revision: The newest stored revision; None if there is none.
        file_rules: The last valid rules of the file.
    """

    def __init__(self, path: Path | None, *, with_store: bool = False) -> None:
        """Reads the rules of the file.

        Args:
            path: The file; None for the built-in rules, which never change.
            with_store: Whether `follow_revision` will be called. Otherwise the rules are always those of the file.

        Raises:
            AlarmRulesError: The file cannot be read or is invalid.
        """
        self._path = path
        self._stamp = _stamp_of(path)
        self._replacing = threading.Lock()  # the file is read on another thread than the store
        self.file_rules = self.current = load_rules(path)
        self.revision: RulesRevision | None = None
        self.loaded = not with_store
        self._named = _by_name(self.current)

    def find(self, name: str) -> AlarmRule | None:
        """Returns the rule in force with a name, or None."""
        return self._named.get(name)

    @property
    def from_file(self) -> bool:
        """Whether the rules of the file are in force."""
        return self.revision is None or self.revision.rules is None

    @property
    def file_changed(self) -> bool:
        """Whether the file has changed since the revision in force was stored, which does not consider it."""
        revision = self.revision
        return revision is not None and not self.from_file and revision.file_digest != digest_of(self.file_rules)

    async def run(self) -> None:
        """Follows the file until cancelled."""
        while self._path is not None:
            await asyncio.sleep(_POLL_SECONDS)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Reads the file again if it has changed."""
        stamp = _stamp_of(self._path)
        if self._path is None or stamp == self._stamp:
            return
        try:
            rules = load_rules(self._path)
        except AlarmRulesError as error:
            damage.report("rules", str(self._path), str(error), "the last valid alarm rules stay in force")
            return  # it is read again at each poll, since it may have been half-written
        self._stamp = stamp
        damage.withdraw("rules", str(self._path))
        with self._replacing:
            changed = rules != self.file_rules
            self.file_rules = rules
            self._replace()
        if changed and not self.from_file:
            logger.warning(
                "the file of alarm rules has changed, but revision %d that engineers have stored stays in force; to "
                "use the file, go back to it in the console or with POST /api/alarms/rules/restore",
                self.revision.number if self.revision else 0,
            )

    def follow_revision(self, revision: RulesRevision | None) -> None:
        """Takes over what the store has: the newest valid revision, or None if there is none."""
        with self._replacing:
            if revision is not None and (self.revision is None or revision.number >= self.revision.number):
                self.revision = revision
                metrics.alarm_rules_revision.set(revision.number)
            self._replace()
            self.loaded = True

    def _replace(self) -> None:
        """Puts the rules in force that are to be, if they differ from the present ones."""
        rules = self.file_rules
        if self.revision is not None and self.revision.rules is not None:
            rules = self.revision.rules
        changes = list(changes_between(self.current, rules))
        if rules == self.current:
            return
        self.current, self._named = rules, _by_name(rules)
        if changes:
            logger.info(
                "alarm rules were replaced: %s; alarms that they no longer justify are closed",
                "; ".join(map(str, changes[:_MOST_NAMED])),
                extra={"changes": len(changes), "revision": self.revision.number if self.revision else 0},
            )


def _by_name(rules: AlarmRules) -> dict[str, AlarmRule]:
    return {rule.name: rule for rule in rules.rules}


def _stamp_of(path: Path | None) -> _Stamp | None:
    """Returns what changes with the content of a file; None if it cannot be accessed."""
    try:
        status = path.stat() if path is not None else None  # of the file behind the links of a mounted ConfigMap
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_size) if status is not None else None
