"""The live state of the plant as server-sent events, and the console that shows it."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import FileResponse

from aurum.api.context import Context
from aurum.api.convert import finite, machine_out
from aurum.api.plant_view import MachineView
from aurum.runtime.errors import ResourceExhaustedError

router = APIRouter()

CONSOLE = Path(__file__).parent.parent / "console"
_CONTENT_SECURITY_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
_EVERY = 1.0  # least seconds between two events
_SILENCE = 10.0  # most seconds, when nothing changes
_MACHINES_PER_EVENT = 500


async def _admit(context: Context) -> AsyncGenerator[None]:
    if context.event_streams >= context.settings.api_max_event_streams:
        raise ResourceExhaustedError(
            f"{context.event_streams} event streams are open, which is the limit (AURUM_API_MAX_EVENT_STREAMS)",
            retry_after=10.0,
        )
    context.event_streams += 1
    try:
        yield
    finally:
        context.event_streams -= 1


@router.get("/api/events", response_class=EventSourceResponse, tags=["machines"], dependencies=[Depends(_admit)])
async def events(context: Context) -> AsyncGenerator[ServerSentEvent]:
    """`machines` events: first all machines, then those that changed, at most once a second."""
    seen = -1
    while not context.plant.closed:
        version = context.plant.version
        views = list(context.plant.changed_since(seen))
        seen = version
        for start in range(0, max(1, len(views)), _MACHINES_PER_EVENT):
            items = [_item(view) for view in views[start : start + _MACHINES_PER_EVENT]]
            total = context.plant.machines
            yield ServerSentEvent(event="machines", id=str(version), data={"machines": items, "total": total})
        await context.plant.wait_for_change(seen, _SILENCE)
        await asyncio.sleep(_EVERY)


def _item(view: MachineView) -> dict[str, Any]:
    item = machine_out(view.machine, view.prediction).model_dump(mode="json")
    item["values"] = {state.sensor: finite(state.value) for state in view.machine.sensors}
    return item


@router.get("/", include_in_schema=False)
async def console() -> FileResponse:
    return _file("index.html")


@router.get("/console/{name}", include_in_schema=False)
async def console_file(name: str) -> FileResponse:
    return _file(name if name in ("console.js", "console.css") else "index.html")


def _file(name: str) -> FileResponse:
    return FileResponse(
        CONSOLE / name, headers={"Content-Security-Policy": _CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
    )
