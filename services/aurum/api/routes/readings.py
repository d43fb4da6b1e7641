"""Writing readings over HTTP, for scripts, tests and devices without gRPC."""

import asyncio
import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request

from aurum.api.context import ApiContext, Caller, Context
from aurum.api.idempotency import IdempotencyKey, key_reused
from aurum.api.readings_json import parse_readings
from aurum.api.schemas import ReadingsIn, ReadingsOut
from aurum.api.scope import require_machine
from aurum.readings.batch import MAX_READINGS, SINGLE_BATCH_PREFIX, source_id_problem
from aurum.readings.source_owner import SOURCE_TAKEN
from aurum.readings.tables import Rows, read_csv, to_series
from aurum.readings.transport.write_call import SerializedSeries
from aurum.runtime.errors import FAILURES, AurumError, InvalidArgumentError, PermissionDeniedError
from aurum.v1 import ingestion_pb2

router = APIRouter(prefix="/api/readings", tags=["readings"])

_PARSERS = ThreadPoolExecutor(2, thread_name_prefix="readings-parser")  # few: each takes several times a body's bytes
_OWN = "service/api"  # owner of the sources of readings that name no source


@dataclass(frozen=True, slots=True)
class _Content:
    """The readings of a body, serialized, and the batch that the body states, if any."""

    series: SerializedSeries
    source_id: str | None = None
    sequence: int = 0


_BODIES: dict[str, Any] = {
    "application/json": {"schema": ReadingsIn.model_json_schema()},
    "text/csv": {"schema": {"type": "string"}, "example": "machine_id,timestamp,sensor,value\npump-1,…"},
}


@router.post("", openapi_extra={"requestBody": {"required": True, "content": _BODIES}})
async def write_readings(
    request: Request, context: Context, caller: Caller, idempotency_key: IdempotencyKey
) -> ReadingsOut:
    """Stores readings, all or none, and answers when they are durable.

    The body is JSON or CSV. A CSV table is long (machine_id,timestamp,sensor,value) or wide (machine_id,timestamp, then
    one column per sensor). A caller that is bound to sites can only write for machines that are registered there.
    """
    body = await request.body()
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    content = await asyncio.get_running_loop().run_in_executor(_PARSERS, _parser_for(media_type), body)
    for machine_id in content.series.machine_ids:
        await require_machine(context, caller, machine_id)
    if content.source_id is not None:
        written = await context.ingestion.write_batch(content.source_id, content.sequence, caller.owner, content.series)
    elif idempotency_key:
        written = await _write_once(context, idempotency_key, body, content.series)
    else:
        written = await _write_as_own(context, content.series)
    return ReadingsOut(accepted=written.accepted, duplicate=written.duplicate)


async def _write_once(
    context: ApiContext, idempotency_key: str, body: bytes, series: SerializedSeries
) -> ingestion_pb2.WriteResponse:
    """Writes the readings of a request with an idempotency key as the only batch of a source of its own."""
    # The digest of the body owns the source, so that the key cannot be reused with another body
    owner = f"request/{await asyncio.to_thread(_digest, body)}"
    try:
        return await context.ingestion.write_batch(f"{SINGLE_BATCH_PREFIX}{idempotency_key}", 1, owner, series)
    except PermissionDeniedError as error:
        if error.reason == SOURCE_TAKEN:
            raise key_reused() from error
        raise


async def _write_as_own(context: ApiContext, series: SerializedSeries) -> ingestion_pb2.WriteResponse:
    """Writes readings without source and idempotency key as a batch of this process."""
    source_id, sequence = context.own_source.next_batch()
    try:
        return await context.ingestion.write_batch(source_id, sequence, _OWN, series)
    except AurumError as error:
        if isinstance(error, FAILURES):
            context.own_source.record_unknown(source_id)
        else:
            context.own_source.record_refused(source_id, sequence)
        raise
    except BaseException:
        context.own_source.record_unknown(source_id)
        raise


def _parser_for(media_type: str) -> Callable[[bytes], _Content]:
    if media_type in ("text/csv", "application/csv"):
        return _parse_csv
    if media_type in ("application/json", ""):
        return _parse_json
    raise InvalidArgumentError.for_field("Content-Type", f"{media_type!r} must be application/json or text/csv")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _parse_json(body: bytes) -> _Content:
    body_content = parse_readings(body)
    if (body_content.source_id is None) != (body_content.sequence is None):
        raise InvalidArgumentError.for_field("sequence", "and source_id must be given together, or neither")
    if body_content.source_id is not None:
        problem = source_id_problem(body_content.source_id)
        if problem is None and body_content.source_id.startswith(SINGLE_BATCH_PREFIX):
            problem = (
                f"must not begin with {SINGLE_BATCH_PREFIX}, which is reserved for requests with an Idempotency-Key"
            )
        if problem:
            raise InvalidArgumentError.for_field("source_id", problem)
    return _Content(_serialize(body_content.rows, "value"), body_content.source_id, body_content.sequence or 0)


def _parse_csv(body: bytes) -> _Content:
    rows = Rows()
    text = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", newline="")
    for block in read_csv(text, MAX_READINGS + 1):
        if len(rows):
            break
        rows = block
    header = body.split(b"\n", 1)[0]
    return _Content(_serialize(rows, "value" if b"sensor" in header.split(b",") else ""))


def _serialize(rows: Rows, value_column: str) -> SerializedSeries:
    if not len(rows):
        raise InvalidArgumentError.for_field("readings", "at least one reading is required")
    if len(rows) > MAX_READINGS:
        raise InvalidArgumentError.for_field("readings", f"must be at most {MAX_READINGS}; send several requests")
    return SerializedSeries.from_series(to_series(rows, value_column=value_column))
