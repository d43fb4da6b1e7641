"""Records of maintenance and failures, and the trail of their changes."""

import json
import time
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Query

from aurum.api.context import ApiContext, Caller, Context
from aurum.api.maintenance_schemas import (
    MaintenanceChange,
    MaintenanceChanges,
    MaintenanceEdit,
    MaintenanceIn,
    MaintenanceOut,
    MaintenanceRecords,
)
from aurum.api.record_events import decode_record
from aurum.api.serializers import parse_query_time, to_datetime, to_optional_datetime
from aurum.maintenance.records import (
    CHANGE,
    RECORD,
    Record,
    encode,
    encode_change,
    new_record,
    parse_id,
)
from aurum.readings.batch import MAX_AHEAD_US
from aurum.runtime import damage
from aurum.runtime.audit import Act
from aurum.runtime.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from aurum.runtime.telemetry.logging import set_request_context
from aurum.v1 import ingestion_pb2

router = APIRouter(tags=["machines"])

_PATH = "/api/machines/{machine_id}/maintenance"
_RECORD_PATH = _PATH + "/{record_id}"
RecordId = Annotated[str, Path(max_length=200)]


@router.post(_PATH, status_code=201)
async def record_maintenance(context: Context, caller: Caller, machine_id: str, body: MaintenanceIn) -> MaintenanceOut:
    """Records that a machine was maintained or failed. A repeated request does not add a second record."""
    set_request_context(machine_id=machine_id)
    await context.ingestion.get_machine(machine_id)
    record = new_record(_record_of(body, _user(caller, body), None))
    before = await _find(context, machine_id, record.key_us, record.digest)
    if before is not None and not before.deleted:
        return _record_out(before)
    if before is not None:
        record = replace(record, revision=before.revision + 1)

    async def perform(act: Act) -> None:
        await _store(context, machine_id, [record], encode_change(record, "created", record.by, _now_us(), None))
        act.after = record.text

    await context.audit.perform(caller, "maintenance.record", machine_id, perform)
    return _record_out(record)


@router.get(_PATH)
async def list_maintenance(
    context: Context,
    machine_id: str,
    start: Annotated[str | None, Query(description="Start, inclusive; ISO 8601 or a number since 1970.")] = None,
    end: Annotated[str | None, Query(description="End, exclusive; ISO 8601 or a number since 1970.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> MaintenanceRecords:
    """Returns the maintenance records of a machine, the newest first."""
    set_request_context(machine_id=machine_id)
    events = await context.ingestion.list_events(
        RECORD,
        machine_id,
        parse_query_time("start", start),
        parse_query_time("end", end),
        limit,
        lambda event: (record := _decode_event(event)) is not None and not record.deleted,
    )
    records = [record for event in events if (record := _decode_event(event)) is not None]
    return MaintenanceRecords(machine_id=machine_id, items=[_record_out(record) for record in records])


@router.put(_RECORD_PATH)
async def edit_maintenance(
    context: Context, caller: Caller, machine_id: str, record_id: RecordId, body: MaintenanceEdit
) -> MaintenanceOut:
    """Replaces the content of a record. The former content stays in the trail of its changes.

    A new start gives the record a new id.
    """
    set_request_context(machine_id=machine_id)
    before = await _require(context, machine_id, record_id)
    if body.revision is not None and body.revision != before.revision:
        raise FailedPreconditionError(
            f"record {record_id} has been edited since: its revision is {before.revision} and not {body.revision}; "
            f"read it again",
            reason="RECORD_CHANGED",
        )
    edited = replace(
        _record_of(body, before.by, before.from_us),
        key_us=before.key_us,
        digest=before.digest,
        revision=before.revision + 1,
    )
    stored = [edited]
    if edited.from_us != before.from_us:  # the store finds events by time, so the record moves there
        edited = replace(edited, key_us=edited.from_us)
        stored = [edited, replace(before, revision=edited.revision, deleted=True)]

    async def perform(act: Act) -> None:
        await _store(
            context, machine_id, stored, encode_change(edited, "edited", _user(caller, body), _now_us(), before)
        )
        act.after = edited.text

    await context.audit.perform(caller, "maintenance.edit", machine_id, perform, before.text)
    return _record_out(edited)


@router.delete(_RECORD_PATH, status_code=204)
async def delete_maintenance(context: Context, caller: Caller, machine_id: str, record_id: RecordId) -> None:
    """Deletes a record. Its content stays in the trail of its changes."""
    set_request_context(machine_id=machine_id)
    before = await _require(context, machine_id, record_id)
    deleted = replace(before, revision=before.revision + 1, deleted=True)

    async def perform(_: Act) -> None:
        by = "" if caller.kind == "open" else caller.user_id
        await _store(context, machine_id, [deleted], encode_change(deleted, "deleted", by, _now_us(), before))

    await context.audit.perform(caller, "maintenance.delete", machine_id, perform, before.text)


@router.get(_RECORD_PATH + "/changes")
async def list_changes(
    context: Context, machine_id: str, record_id: RecordId, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> MaintenanceChanges:
    """Returns the changes of a record, also of a deleted one, the newest first."""
    set_request_context(machine_id=machine_id)
    _, digest = _parse(record_id)
    events = await context.ingestion.list_events(
        CHANGE, machine_id, 0, 0, limit, lambda event: event.id.startswith(f"{digest}.")
    )
    items = [change for event in events if (change := _decode_change(event)) is not None]
    if not items:
        raise NotFoundError(f"machine {machine_id} has no changes of a record {record_id}", reason="RECORD_NOT_FOUND")
    return MaintenanceChanges(machine_id=machine_id, record_id=record_id, items=items)


def _record_of(body: MaintenanceIn, by: str, present_us: int | None) -> Record:
    """Returns the record that a body states, without an identity.

    Args:
        body: The body.
        by: Who recorded it.
        present_us: The start if the body has none; None for now.

    Raises:
        InvalidArgumentError: A time is not in the past, or the end is before the start.
    """
    now_us = _now_us()
    name = "from" if body.from_ else "at"
    given = body.from_ or body.at
    from_us = parse_query_time(name, given) if given else present_us or now_us
    to_us = parse_query_time("to", body.to) if body.to else None
    for field, at_us in ((name, from_us), ("to", to_us)):
        if at_us is not None and at_us <= 0:
            raise InvalidArgumentError.for_field(field, "must be after 1970-01-01")
        if at_us is not None and at_us > now_us + MAX_AHEAD_US:
            raise InvalidArgumentError.for_field(field, "must not be in the future")
    if to_us is not None and to_us < from_us:
        raise InvalidArgumentError.for_field("to", "must not be before the start")
    return Record(
        0,
        "",
        from_us,
        body.text,
        by,
        body.kind,
        to_us,
        body.component,
        body.failure_mode,
        body.cost,
        body.downtime,
    )


async def _store(context: ApiContext, machine_id: str, records: list[Record], change: bytes) -> None:
    """Stores the contents of records and the change that led to them."""
    events = [
        ingestion_pb2.Event(kind=RECORD, machine_id=machine_id, at_us=each.key_us, id=each.digest, content=encode(each))
        for each in records
    ]
    now_us = _now_us()
    changed = f"{records[0].digest}.{records[0].revision}.{now_us}"
    events.append(ingestion_pb2.Event(kind=CHANGE, machine_id=machine_id, at_us=now_us, id=changed, content=change))
    await context.ingestion.record_events(events)


async def _find(context: ApiContext, machine_id: str, key_us: int, digest: str) -> Record | None:
    """Returns a record, also a deleted one, or None."""
    events = await context.ingestion.list_events(
        RECORD, machine_id, key_us, key_us + 1, 1, lambda event: event.id == digest
    )
    return _decode_event(events[0]) if events else None


async def _require(context: ApiContext, machine_id: str, record_id: str) -> Record:
    """Returns a record that is not deleted. Raises NotFoundError if there is none."""
    record = await _find(context, machine_id, *_parse(record_id))
    if record is None or record.deleted:
        raise NotFoundError(f"machine {machine_id} has no maintenance record {record_id}", reason="RECORD_NOT_FOUND")
    return record


def _parse(record_id: str) -> tuple[int, str]:
    parsed = parse_id(record_id)
    if parsed is None:
        raise NotFoundError(f"{record_id!r} is not the id of a maintenance record", reason="RECORD_NOT_FOUND")
    return parsed


def _user(caller: Caller, body: MaintenanceIn) -> str:
    return body.by if caller.kind == "open" else caller.user_id


def _now_us() -> int:
    return int(time.time() * 1e6)


def _decode_event(event: ingestion_pb2.Event) -> Record | None:
    return decode_record(event, "it is left out of the list")


def _decode_change(event: ingestion_pb2.Event) -> MaintenanceChange | None:
    try:
        change = json.loads(event.content)
        return MaintenanceChange(
            at=to_datetime(event.at_us),
            by=change["by"],
            action=change["action"],
            before=change["before"],
            after=change["after"],
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        name = f"change {event.id} of a maintenance record of machine {event.machine_id}"
        damage.report("event", name, f"{type(error).__name__}: {error}", "it is left out of the list")
        return None


def _record_out(record: Record) -> MaintenanceOut:
    start = to_datetime(record.from_us)
    return MaintenanceOut(
        id=record.id,
        at=start,
        text=record.text,
        by=record.by,
        kind=record.kind,
        component=record.component,
        failure_mode=record.failure_mode,
        cost=record.cost,
        downtime=record.downtime,
        from_=start,
        to=to_optional_datetime(record.to_us or 0),
        revision=record.revision,
    )
