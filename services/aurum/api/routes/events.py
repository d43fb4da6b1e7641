"""The live state of the plant as server-sent events."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import StreamingResponse

from aurum.api.context import ApiContext, Caller, Context
from aurum.api.long_answers import EventPlace
from aurum.security.identity import Identity

router = APIRouter()

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the latter keeps nginx from buffering events


async def _while_let_in(context: ApiContext, caller: Identity, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Yields events while the caller's credentials are valid, since a key may be revoked during the stream."""
    async with contextlib.aclosing(events):
        async for event in events:
            if not context.access_control.still(caller):
                return
            yield event


class EventStream(StreamingResponse):
    media_type = "text/event-stream"


@router.get("/api/events", response_class=EventStream, tags=["machines"], dependencies=[EventPlace])
async def events(
    context: Context, caller: Caller, last_event_id: Annotated[str | None, Header(max_length=100)] = None
) -> EventStream:
    """`machines` events: all machines, then those that changed, at most five times a second; `alarms` events: how many
    there are; a `pulse` each five seconds. With Last-Event-ID what came after that event.
    """
    feed = context.live_feed.follow(last_event_id, caller.sites)
    return EventStream(_while_let_in(context, caller, feed), headers=_HEADERS)
