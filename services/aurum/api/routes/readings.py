"""Writing readings over HTTP, for scripts, tests and devices without gRPC."""

import asyncio
import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter, Request

from aurum.api.context import ApiContext, Caller, Context
from aurum.api.idempotency import IdempotencyKey, key_reused
from aurum.api.readings_json import parse_readings
from aurum.api.schemas import ReadingsIn, ReadingsOut
from aurum.api.scope import require_machine
from aurum.readings.batch import MAX_READINGS, SINGLE_BATCH_PREFIX, encode, source_id_problem
from aurum.readings.source_owner import SOURCE_TAKEN
from aurum.readings.tables import Rows, read_csv, to_series
from aurum.runtime.errors import FAILURES, AurumError, InvalidArgumentError, PermissionDeniedError
from aurum.v1 import ingestion_pb2

router = APIRouter(prefix="/api/readings", tags=["readings"])

Parsed = tuple[str | None, int | None, ingestion_pb2.Batch]
_PARSERS = ThreadPoolExecutor(2, thread_name_prefix="readings-parser")  # few: each takes several times a body's bytes
_OWN = "service/api"  # owner of the sources of readings that name no source

_BODIES: dict[str, Any] = {
    "application/json": {"schema": ReadingsIn.model_json_schema()},
    "text/csv": {"schema": {"type": "string"}, "example": "machine_id,timestamp,sensor,value\npump-1,…"},
}


@router.post("", openapi_extra={"requestBody": {"required": True, "content": _BODIES}})
async def write_readings(
    request: Request, context: Context, caller: Caller, idempotency_key: IdempotencyKey
) -> ReadingsOut:
    """Stores readings, all or none; the answer comes when they are durable. Who is bound to sites writes for the
    machines that are registered there.

    JSON, or CSV: long (machine_id,timestamp,sensor,value) or wide (machine_id,timestamp, then one column a sensor).
    """
    body = await request.body()
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind in ("text/csv", "application/csv"):
        source_id, sequence, message = await _parsed(_from_csv, body)
    elif kind in ("application/json", ""):
        source_id, sequence, message = await _parsed(_from_json, body)
    else:
        raise InvalidArgumentError.of("Content-Type", f"{kind!r} is neither application/json nor text/csv")
    for machine_id in dict.fromkeys(series.machine_id for series in message.series):
        await require_machine(context, caller, machine_id)
    if source_id is not None:
        message.source_id, message.sequence, message.owner = source_id, sequence or 0, caller.owner
    elif idempotency_key:
        # A separate source, owned by the digest of the body, so that the key cannot be reused with another body
        message.source_id, message.sequence = f"{SINGLE_BATCH_PREFIX}{idempotency_key}", 1
        message.owner = f"request/{await asyncio.to_thread(_digest, body)}"
    else:
        return await _write_as_own(context, message)
    try:
        written = await context.ingestion.write(message)
    except PermissionDeniedError as error:
        if error.reason == SOURCE_TAKEN and source_id is None:
            raise key_reused() from error
        raise
    return ReadingsOut(accepted=written.accepted, duplicate=written.duplicate)


async def _write_as_own(context: ApiContext, message: ingestion_pb2.Batch) -> ReadingsOut:
    """Writes readings without source and idempotency key as a batch of this process."""
    message.source_id, message.sequence = context.source.take()
    message.owner = _OWN
    try:
        written = await context.ingestion.write(message)
    except AurumError as error:
        if isinstance(error, FAILURES):
            context.source.unknown(message.source_id)
        else:
            context.source.refused(message.source_id, message.sequence)
        raise
    except BaseException:
        context.source.unknown(message.source_id)
        raise
    return ReadingsOut(accepted=written.accepted, duplicate=written.duplicate)


async def _parsed(parse: Callable[[bytes], Parsed], body: bytes) -> Parsed:
    return await asyncio.get_running_loop().run_in_executor(_PARSERS, parse, body)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _from_json(body: bytes) -> Parsed:
    payload = parse_readings(body)
    if (payload.source_id is None) != (payload.sequence is None):
        raise InvalidArgumentError.of("sequence", "and source_id must be given together, or neither")
    if payload.source_id is not None:
        problem = source_id_problem(payload.source_id)
        if problem is None and payload.source_id.startswith(SINGLE_BATCH_PREFIX):
            problem = f"must not begin with {SINGLE_BATCH_PREFIX}, which stands for requests with an Idempotency-Key"
        if problem:
            raise InvalidArgumentError.of("source_id", problem)
    return payload.source_id, payload.sequence, _batch(payload.rows, "value")


def _from_csv(body: bytes) -> Parsed:
    rows = Rows()
    text = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", newline="")
    for block in read_csv(text, MAX_READINGS + 1):
        if len(rows):
            break
        rows = block
    header = body.split(b"\n", 1)[0]
    return None, None, _batch(rows, "value" if b"sensor" in header.split(b",") else "")


def _batch(rows: Rows, value_column: str) -> ingestion_pb2.Batch:
    if not len(rows):
        raise InvalidArgumentError.of("readings", "at least one reading is required")
    if len(rows) > MAX_READINGS:
        raise InvalidArgumentError.of("readings", f"are more than {MAX_READINGS}; send them in parts")
    return encode("api", 1, to_series(rows, value_column=value_column))
