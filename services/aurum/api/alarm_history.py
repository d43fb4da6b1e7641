"""Reads the alarm journal in pages: by time, machine, site, rule, priority and kind, at a bounded cost for each page.

The entries of one machine are found without reading those of others. With any other filter the entries of the time
range are examined, at most MOST_EXAMINED for a page. The page may then have fewer entries than asked for, and its
cursor continues the search.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

from aurum.alarms import journal
from aurum.alarms.lifecycle import Transition, TransitionKind
from aurum.api.backends import IngestionBackend
from aurum.readings.limits import MAX_EVENTS
from aurum.runtime.errors import InvalidArgumentError
from aurum.v1 import ingestion_pb2

MOST_EXAMINED = 10_000  # entries for one page
_SECOND_US = 1_000_000
_MOST_DIGITS = 18  # of a time in a cursor
_MOST_CHARACTERS = 600  # of a cursor


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Which entries of the journal are asked for.

    Attributes:
        start_us: Start of the range in µs since 1970, inclusive.
        end_us: End of the range in µs since 1970, exclusive; 0 for no end.
        machine_id: The machine; empty for all.
        rules: Names of rules; all if empty.
        kinds: Kinds of transitions; all if empty.
        selects_machine: Whether entries of a machine are returned, by its id; None for all.
        selects: Whether an entry is returned; None for all.
    """

    start_us: int = 0
    end_us: int = 0
    machine_id: str = ""
    rules: frozenset[str] = frozenset()
    kinds: frozenset[TransitionKind] = frozenset()
    selects_machine: Callable[[str], bool] | None = None
    selects: Callable[[Transition], bool] | None = None

    @property
    def is_selective(self) -> bool:
        """Whether entries in the range may be left out, so that more than a page has to be examined."""
        return bool(self.rules or self.kinds or self.selects_machine or self.selects)


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Entries of the journal, the newest first, and the cursor of the next page, None after the last."""

    transitions: Sequence[Transition]
    next_cursor: str | None


async def read_page(ingestion: IngestionBackend, query: HistoryQuery, limit: int, cursor: str | None) -> HistoryPage:
    """Returns a page of the journal.

    Entries that are written while a caller pages change nothing of the pages that follow, unless their times are before
    the cursor: no entry is returned twice, and none that was there at the first page is left out.

    Args:
        ingestion: The ingestion service.
        query: Which entries are asked for.
        limit: Maximum number of entries.
        cursor: `next_cursor` of the previous page; None for the first.

    Raises:
        InvalidArgumentError: The cursor is invalid.
        AurumError: The store did not answer.
    """
    found: list[Transition] = []
    token, examined, newest_us = _decode_cursor(cursor), 0, 0
    while True:
        count = MAX_EVENTS if query.is_selective else limit - len(found)
        answer = await ingestion.list_event_page(_request(query, count, token))
        for index, event in enumerate(answer.events, start=1):
            transition = _select(query, event)
            if transition is not None:
                found.append(transition)
            if len(found) == limit:
                has_more = index < len(answer.events) or bool(answer.next_page_token)
                return HistoryPage(found, _encode_cursor(f"{event.at_us}/{event.id}") if has_more else None)
        token, examined = answer.next_page_token, examined + len(answer.events)
        newest_us = newest_us or (answer.events[0].at_us if answer.events else 0)
        if not token:
            return HistoryPage(found, None)
        if examined >= MOST_EXAMINED:
            return _unfinished_page(found, token, newest_us)
        await asyncio.sleep(0)  # lets the event loop handle other requests


@dataclass(frozen=True, slots=True)
class PeriodPart:
    """A part of the entries of a period.

    Attributes:
        transitions: The entries that are asked for, the newest first.
        examined: Number of entries that were examined.
        oldest_us: The time of the last one of these in µs since 1970; 0 without any.
    """

    transitions: Sequence[Transition]
    examined: int
    oldest_us: int


async def read_period(ingestion: IngestionBackend, query: HistoryQuery, most: int) -> AsyncIterator[PeriodPart]:
    """Yields the entries of a period in parts, the newest first.

    Args:
        ingestion: The ingestion service.
        query: Which entries are asked for.
        most: Number of entries to examine, after which no more are read.

    Raises:
        AurumError: The store did not answer.
    """
    token = ""
    while most > 0:
        answer = await ingestion.list_event_page(_request(query, min(MAX_EVENTS, most), token))
        most -= len(answer.events)
        token = answer.next_page_token
        transitions = await asyncio.to_thread(_select_all, query, answer.events)
        yield PeriodPart(transitions, len(answer.events), answer.events[-1].at_us if answer.events else 0)
        if not token:
            return


def _unfinished_page(found: Sequence[Transition], token: str, newest_us: int) -> HistoryPage:
    """Returns the page after as many entries were examined as a page may cost.

    The last entry that was examined may be of a machine that the caller may not see. The cursor therefore is a whole
    second. What was found before that second is found again by the next page, so it is left out of this one.

    Args:
        found: The entries that were found.
        token: The page token of ingestion after the last entry that was examined.
        newest_us: The time of the first entry that was examined, in µs since 1970.
    """
    second_us = (int(token.partition("/")[0]) // _SECOND_US + 1) * _SECOND_US
    if second_us > newest_us:  # all of them are within one second
        return HistoryPage(found, _encode_cursor(token))
    return HistoryPage([entry for entry in found if entry.at_us >= second_us], _encode_cursor(f"{second_us}/"))


def _request(query: HistoryQuery, limit: int, token: str) -> ingestion_pb2.ListEventsRequest:
    return ingestion_pb2.ListEventsRequest(
        kind=journal.EVENT_KIND,
        start_us=query.start_us,
        end_us=query.end_us,
        limit=limit,
        page_token=token,
        about_machine=query.machine_id,
    )


def _select_all(query: HistoryQuery, events: Iterable[ingestion_pb2.Event]) -> list[Transition]:
    return [found for event in events if (found := _select(query, event)) is not None]


def _select(query: HistoryQuery, event: ingestion_pb2.Event) -> Transition | None:
    """Returns the transition that an event records, if it is asked for. What its id tells is checked first."""
    if query.selects_machine is not None and not query.selects_machine(journal.machine_of(event)):
        return None
    if query.rules and journal.rule_of(event) not in query.rules:
        return None
    transition = journal.from_event(event)
    if transition is None or (query.kinds and transition.kind not in query.kinds):
        return None
    return transition if query.selects is None or query.selects(transition) else None


def _encode_cursor(token: str) -> str:
    return base64.urlsafe_b64encode(token.encode()).decode()


def _decode_cursor(cursor: str | None) -> str:
    """Returns the page token of ingestion that a cursor stands for. Raises InvalidArgumentError."""
    if not cursor:
        return ""
    try:
        token = base64.b64decode(cursor[:_MOST_CHARACTERS], altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise _invalid_cursor() from error
    at_us, slash, _ = token.partition("/")
    if not slash or not (at_us.isascii() and at_us.isdigit()) or len(at_us) > _MOST_DIGITS:
        raise _invalid_cursor()
    return token


def _invalid_cursor() -> InvalidArgumentError:
    return InvalidArgumentError.for_field("cursor", "is not a cursor of this route; leave it out for the first page")
