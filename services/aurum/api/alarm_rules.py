"""Changes of the alarm rules by engineers: each writes a revision into the store, which all services follow."""

import asyncio
import dataclasses
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from aurum.alarms.followed_rules import FollowedRules
from aurum.alarms.rule_changes import changes_between
from aurum.alarms.rules import AlarmRule, AlarmRules
from aurum.alarms.rules_revision import (
    EVENT_KIND,
    MOST_RULE_BYTES,
    RulesRevision,
    digest_of,
    revisions_of,
    rule_bytes,
    to_events,
)
from aurum.alarms.stored_rules import StoredRules
from aurum.api.backends import IngestionBackend
from aurum.api.problems import parameters_of
from aurum.readings.batch import sensor_problem
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from aurum.v1 import ingestion_pb2

FILE = 0  # as the revision that is restored: the rules of the file
_PAGE_EVENTS = 64  # of one read of the history
_MOST_PAGES = 50  # reads for one answer
_MOST_ERRORS = 20  # of invalid rules, in one answer
FieldPath = tuple[int | str, ...]  # of a field in a request


class RulesDesk:
    """The alarm rules in force and their revisions.

    Attributes:
        rules: The rules in force.
    """

    def __init__(self, ingestion: IngestionBackend, rules: FollowedRules) -> None:
        self._ingestion = ingestion
        self.rules = rules
        self._stored = StoredRules(rules, ingestion.list_events_after)
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Follows the revisions in the store until cancelled."""
        await self._stored.run()

    @property
    def number(self) -> int:
        """The number of the newest revision; 0 if there is none."""
        return self.rules.revision.number if self.rules.revision else 0

    def require_loaded(self) -> None:
        """Raises UnavailableError until it is known which rules are in force."""
        if not self.rules.loaded:
            raise UnavailableError(
                "the alarm rules are still being loaded from the store; retry shortly", reason="ALARM_RULES_LOADING"
            )

    async def store(
        self, rules: AlarmRules | None, expected: int, by: str, reason: str, restores: int | None = None
    ) -> RulesRevision:
        """Stores a revision and puts it in force. A repeated request stores nothing more.

        Args:
            rules: The rules; None for those of the file.
            expected: The number of the newest revision that the author knows.
            by: The author.
            reason: Why the rules change.
            restores: The revision that is repeated, FILE for the file; None for none.

        Raises:
            FailedPreconditionError: Another revision has been stored meanwhile.
            AurumError: The store did not answer.
        """
        async with self._writing:
            await self._stored.read()
            newest = self.rules.revision
            if newest is not None and newest.number == expected + 1 and _repeats(newest, rules, by, reason, restores):
                return newest
            self._require_newest(expected)
            after = rules or self.rules.file_rules
            changes = tuple(changes_between(self.rules.current, after))
            now_us = time.time_ns() // 1000
            revision = RulesRevision(
                number=expected + 1,
                at_us=max(now_us, newest.at_us + 1 if newest else 0),
                by=by,
                reason=reason,
                rules=rules,
                write_id=secrets.token_hex(6),
                file_digest=digest_of(self.rules.file_rules),
                restores=restores,
                changes=tuple(map(str, changes)),
                rule_changes=changes,
                change_count=len(changes),
            )
            with criticality_scope(Criticality.ALARM):
                await self._ingestion.record_events(to_events(revision))
            await self._stored.read()
            winner = self.rules.revision
            if winner is None or winner.write_id != revision.write_id:  # another replica wrote at the same time
                self._require_newest(expected)
            return revision

    async def restore(self, number: int, expected: int, by: str, reason: str) -> RulesRevision:
        """Stores a revision with the rules of an earlier one, or of the file.

        Args:
            number: The earlier revision; FILE for the file.
            expected: The number of the newest revision that the author knows.
            by: The author.
            reason: Why.

        Raises:
            NotFoundError: There is no such revision.
            FailedPreconditionError: Another revision has been stored meanwhile.
            AurumError: The store did not answer.
        """
        earlier = None if number == FILE else await self._find(number)
        return await self.store(earlier.rules if earlier else None, expected, by, reason, restores=number)

    async def history(self, before_us: int, limit: int) -> tuple[list[RulesRevision], int]:
        """Returns revisions, the newest first.

        Args:
            before_us: Only those that were stored before, in µs since 1970; 0 for all.
            limit: Maximum number of revisions.

        Returns:
            The revisions, and `before_us` of the next page; 0 if there is none.

        Raises:
            AurumError: The store did not answer.
        """
        request = ingestion_pb2.ListEventsRequest(kind=EVENT_KIND, end_us=before_us, limit=_PAGE_EVENTS)
        events: list[ingestion_pb2.Event] = []
        for _ in range(_MOST_PAGES):
            answer = await self._ingestion.list_event_page(request)
            events += answer.events
            # The last one may lack events that the next page has
            found = revisions_of(events)
            if len(found) > limit or not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        else:
            found = found[:-1]
        page = found[:limit]
        more = len(found) > limit or bool(answer.next_page_token)
        return page, page[-1].at_us if page and more else 0

    async def _find(self, number: int) -> RulesRevision:
        before_us = 0
        while True:
            page, before_us = await self.history(before_us, _PAGE_EVENTS)
            for revision in page:
                if revision.number == number:
                    return revision
            if not before_us or page[-1].number < number:
                raise NotFoundError(
                    f"there is no revision {number} of the alarm rules; the history lists those that there are",
                    reason="ALARM_RULES_REVISION_NOT_FOUND",
                )

    def _require_newest(self, expected: int) -> None:
        if self.number == expected:
            return
        by = self.rules.revision.by if self.rules.revision else ""
        raise FailedPreconditionError(
            f"the alarm rules were changed meanwhile: revision {self.number} is the newest, not {expected}; load it "
            "and make the change again",
            reason="ALARM_RULES_CHANGED",
            metadata={"revision": str(self.number), "by": by or "-"},
        )


def _repeats(revision: RulesRevision, rules: AlarmRules | None, by: str, reason: str, restores: int | None) -> bool:
    return (revision.rules, revision.by, revision.reason, revision.restores) == (rules, by, reason, restores)


def parse_rules(content: Sequence[Mapping[str, Any]], field: str) -> AlarmRules:
    """Validates a set of rules.

    Args:
        content: The rules as JSON.
        field: Where they are in the request, such as body.rules.

    Raises:
        InvalidArgumentError: Rules are invalid. It names each field, and the rule by its name.
    """
    names = [str(rule.get("name", ""))[:40] for rule in content]
    duplicates = [index for index, name in enumerate(names) if name and name in names[:index]]
    if duplicates:
        raise _invalid(
            [
                _violation(_Mistake((index, "name"), "another rule has this name", "name_taken"), names, field)
                for index in duplicates
            ]
        )
    try:
        rules = AlarmRules.model_validate({"rules": list(content)})
    except ValidationError as error:
        raise _invalid([_violation(each, names, field) for each in _mistakes(error, within=1)]) from error
    violations = [
        _violation(each, names, field) for index, rule in enumerate(rules.rules) for each in _unusable(rule, (index,))
    ]
    if violations:
        raise _invalid(violations)
    return rules


def parse_rule(content: Mapping[str, Any], field: str) -> AlarmRule:
    """Validates one rule. Raises InvalidArgumentError, which names each invalid field."""
    try:
        rule = AlarmRule.model_validate(dict(content))
    except ValidationError as error:
        raise _invalid([_violation(each, (), field) for each in _mistakes(error)]) from error
    violations = [_violation(each, (), field) for each in _unusable(rule)]
    if violations:
        raise _invalid(violations)
    return rule


@dataclass(frozen=True, slots=True)
class _Mistake:
    """What is wrong with a rule: the path of the field, the problem, its code and the values in it."""

    path: FieldPath
    problem: str
    code: str
    parameters: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _mistakes(error: ValidationError, within: int = 0) -> Iterator[_Mistake]:
    """Yields what is wrong. within: How many of the first parts of the paths are left out."""
    for found in error.errors(include_url=False, include_input=False)[:_MOST_ERRORS]:
        problem = found["msg"].removeprefix("Value error, ")
        yield _Mistake(found["loc"][within:], problem, found["type"], parameters_of(found.get("ctx", {})))


def _unusable(rule: AlarmRule, place: FieldPath = ()) -> Iterator[_Mistake]:
    """Yields what is wrong with a rule besides its form. place: The path of the rule."""
    problem = sensor_problem(rule.sensor_name) if rule.sensor_name or rule.sensor or rule.rate else None
    if problem is not None:
        yield _Mistake((*place, rule.quantity, "sensor"), problem, "sensor_name")
    if rule_bytes(rule) > MOST_RULE_BYTES:
        most = {"most": str(MOST_RULE_BYTES)}
        yield _Mistake(place, f"has more than {MOST_RULE_BYTES} bytes", "rule_too_large", most)


def _violation(mistake: _Mistake, names: Sequence[str], field: str) -> FieldViolation:
    index = mistake.path[0] if mistake.path else None
    name = f"rule {names[index]}: " if isinstance(index, int) and index < len(names) and names[index] else ""
    path = ".".join((field, *map(str, mistake.path)))
    return FieldViolation(path, f"{name}{mistake.problem}", mistake.code, mistake.parameters)


def _invalid(violations: Sequence[FieldViolation]) -> InvalidArgumentError:
    first = violations[0]
    return InvalidArgumentError(f"{first.field}: {first.description}", violations=violations)
