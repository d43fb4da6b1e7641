"""Pages of the alarm journal, over a real store and gRPC server."""

import asyncio
import base64
import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.alarms import journal
from aurum.alarms.lifecycle import Transition
from aurum.api import alarm_history
from aurum.api.alarm_history import HistoryQuery, read_page, read_period
from aurum.api.backends import IngestionBackend
from aurum.runtime.errors import InvalidArgumentError
from aurum.v1 import ingestion_pb2
from tests.support.ingestion_server import IngestionServer, ingestion_server

MACHINES = ("m", "m1", "pump-2")
RULES = ("hot", "silent")


class Backend:
    """The two calls that pages need, to a server of the test."""

    def __init__(self, server: IngestionServer) -> None:
        self._server = server
        self.asked: list[ingestion_pb2.ListEventsRequest] = []

    async def list_event_page(self, request: ingestion_pb2.ListEventsRequest) -> ingestion_pb2.ListEventsResponse:
        self.asked.append(request)
        return await cast("Awaitable[Any]", self._server.stub.ListEvents(request))

    async def record(self, *transitions: Transition) -> None:
        events = [journal.to_event(each) for each in transitions]
        await cast("Awaitable[Any]", self._server.stub.RecordEvents(ingestion_pb2.RecordEventsRequest(events=events)))

    async def page(
        self, query: HistoryQuery, limit: int, cursor: str | None = None
    ) -> tuple[list[Transition], str | None]:
        page = await read_page(cast(IngestionBackend, self), query, limit, cursor)
        return list(page.transitions), page.next_cursor


entries = st.builds(
    Transition,
    kind=st.sampled_from(["raised", "cleared", "commented"]),
    machine_id=st.sampled_from(MACHINES),
    rule=st.sampled_from(RULES),
    at_us=st.integers(1, 9).map(lambda each: each * 1_300_000),  # few times, so that entries share one
    comment=st.sampled_from(["", "a", "b"]),
)
queries = st.builds(
    HistoryQuery,
    start_us=st.integers(0, 20).map(lambda each: each * 300_000),
    end_us=st.sampled_from([0, 9_000_000, 13_000_000]),
    machine_id=st.sampled_from(["", *MACHINES]),
    rules=st.sampled_from([frozenset[str](), frozenset({"hot"})]),
    kinds=st.sampled_from([frozenset[str](), frozenset({"raised", "commented"})]),
    selects_machine=st.sampled_from([None, lambda machine_id: machine_id != "m1"]),
)


def is_asked_for(query: HistoryQuery, entry: Transition) -> bool:
    return (
        query.start_us <= entry.at_us < (query.end_us or 10**9)
        and query.machine_id in ("", entry.machine_id)
        and (not query.rules or entry.rule in query.rules)
        and (not query.kinds or entry.kind in query.kinds)
        and (query.selects_machine is None or query.selects_machine(entry.machine_id))
    )


def run_with_server(work: Callable[[Backend], Awaitable[None]]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with ingestion_server(Path(folder)) as server:
                await work(Backend(server))

    asyncio.run(run())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(entries, min_size=10, max_size=60),
    st.lists(st.lists(entries, max_size=5), max_size=8),
    queries,
    st.integers(1, 9),
    st.sampled_from([4, 10_000]),
)
def test_pages_lose_and_double_no_entry(
    first: list[Transition], later: list[list[Transition]], query: HistoryQuery, limit: int, examined: int
) -> None:
    """Whatever is written between two pages, each entry that was there at the first page is on exactly one page.

    An entry that is written later is on at most one. All are newest first.
    """
    patch = pytest.MonkeyPatch()
    patch.setattr(alarm_history, "MOST_EXAMINED", examined)
    patch.setattr(alarm_history, "MAX_EVENTS", min(examined, 1000))

    async def play(backend: Backend) -> None:
        if first:
            await backend.record(*first)
        writes = iter(later)
        found, cursor = await backend.page(query, limit)
        while cursor:
            if written := next(writes, []):
                await backend.record(*written)
            more, cursor = await backend.page(query, limit, cursor)
            assert len(more) <= limit
            found += more
        times = [entry.at_us for entry in found]
        assert times == sorted(times, reverse=True)
        assert len(set(found)) == len(found)
        assert {entry for entry in first if is_asked_for(query, entry)} <= set(found)
        assert all(is_asked_for(query, entry) for entry in found)

    with contextlib.ExitStack() as undone:
        undone.callback(patch.undo)
        run_with_server(play)


def test_page_of_a_machine_reads_only_its_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entries of one machine are asked for by the machine, as many as the page has."""

    async def play(backend: Backend) -> None:
        noise = [Transition("raised", "m", "hot", at) for at in range(1, 400)]
        await backend.record(*noise, *(Transition("raised", "pump-2", "hot", at) for at in (3, 5, 7)))
        found, cursor = await backend.page(HistoryQuery(machine_id="pump-2"), 2)
        assert [entry.at_us for entry in found] == [7, 5]
        assert [(each.about_machine, each.limit) for each in backend.asked] == [("pump-2", 2)]
        assert [entry.at_us for entry in (await backend.page(HistoryQuery(machine_id="pump-2"), 2, cursor))[0]] == [3]

    run_with_server(play)


def test_page_examines_a_bounded_number_of_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that matches little gives short pages, even empty ones, whose cursors lead to every match."""
    monkeypatch.setattr(alarm_history, "MOST_EXAMINED", 100)
    monkeypatch.setattr(alarm_history, "MAX_EVENTS", 50)

    async def play(backend: Backend) -> None:
        await backend.record(*(Transition("raised", "m", "silent", at) for at in range(1, 501)))
        await backend.record(Transition("raised", "m1", "hot", 2))
        query = HistoryQuery(rules=frozenset({"hot"}))
        found, cursor = await backend.page(query, 10)
        assert (found, len(backend.asked)) == ([], 2)
        while cursor:
            more, cursor = await backend.page(query, 10, cursor)
            found += more
        assert [entry.machine_id for entry in found] == ["m1"]

    run_with_server(play)


def test_cursor_names_no_machine_that_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor of a page whose search ends at an entry of a hidden machine tells neither its id nor its time."""
    monkeypatch.setattr(alarm_history, "MOST_EXAMINED", 100)
    monkeypatch.setattr(alarm_history, "MAX_EVENTS", 50)

    async def play(backend: Backend) -> None:
        hidden = [Transition("raised", "m1", "hot", at * 100_003) for at in range(1, 400)]
        own = [Transition("raised", "m", "hot", at * 1_700_000) for at in range(1, 20)]
        await backend.record(*hidden, *own)
        query = HistoryQuery(selects_machine=lambda machine_id: machine_id == "m")
        found, cursor = await backend.page(query, 10)
        while cursor:
            at_us, _, id_ = base64.urlsafe_b64decode(cursor).decode().partition("/")
            assert id_.startswith("m~") or (int(at_us) % 1_000_000, id_) == (0, "")
            more, cursor = await backend.page(query, 10, cursor)
            found += more
        assert found == own[::-1]

    run_with_server(play)


def test_period_is_read_up_to_a_number_of_entries() -> None:
    """Of a period with more entries than a report may cost, the newest are read, and it is known from when on."""

    async def play(backend: Backend) -> None:
        await backend.record(*(Transition("raised", "m", "hot", at) for at in range(1, 31)))
        query = HistoryQuery(start_us=5)
        ingestion = cast(IngestionBackend, backend)
        parts = [part async for part in read_period(ingestion, query, 12)]
        assert [each.at_us for part in parts for each in part.transitions] == list(range(30, 18, -1))
        assert (sum(part.examined for part in parts), parts[-1].oldest_us) == (12, 19)
        whole = [part async for part in read_period(ingestion, query, 1000)]
        assert (sum(part.examined for part in whole), whole[-1].oldest_us) == (26, 5)

    run_with_server(play)


@pytest.mark.parametrize("cursor", ["x", "eA==", "MTIz", "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAvYQ==", "é", "a" * 5000])
def test_cursor_that_no_page_has_given_is_refused(cursor: str) -> None:
    """A made-up cursor is refused with the name of the parameter."""

    async def play(backend: Backend) -> None:
        with pytest.raises(InvalidArgumentError, match="cursor"):
            await backend.page(HistoryQuery(), 1, cursor)

    run_with_server(play)


def test_alarm_with_a_long_name_is_recorded() -> None:
    """An alarm of the longest machine id and rule name is in the journal."""

    async def play(backend: Backend) -> None:
        entry = Transition("commented", "m" * 128, "r" * 40, 5, by="Ada", comment="x" * 1000)
        await backend.record(entry)
        assert (await backend.page(HistoryQuery(machine_id="m" * 128), 5))[0] == [entry]

    run_with_server(play)
