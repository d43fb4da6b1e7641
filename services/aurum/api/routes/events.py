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


async def _while_authorized(
    context: ApiContext, caller: Identity, events: AsyncGenerator[bytes]
) -> AsyncGenerator[bytes]:
    """Yields events while the caller's credentials are valid, since a key may be revoked during the stream."""
    async with contextlib.aclosing(events):
        async for event in events:
            if not context.access_control.is_still_valid(caller):
                return
            yield event


class EventStream(StreamingResponse):
    """An answer of server-sent events."""

    media_type = "text/event-stream"


@router.get("/api/events", response_class=EventStream, tags=["machines"], dependencies=[EventPlace])
async def events(
    context: Context, caller: Caller, last_event_id: Annotated[str | None, Header(max_length=100)] = None
) -> EventStream:
    """Streams the state of the plant as server-sent events.

    `machines` events contain all machines first, then those that changed, at most five times a second. `alarms` events
    contain the number of alarms. A `pulse` is sent every five seconds. A client that sends Last-Event-ID gets the
    changes after that event.
    """
    stream = context.live_feed.follow(last_event_id, caller.sites)
    return EventStream(_while_authorized(context, caller, stream), headers=_HEADERS)
