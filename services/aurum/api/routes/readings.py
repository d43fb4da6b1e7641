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
from aurum.readings.batch import MAX_READINGS, ONE_BATCH, encode, source_id_problem
from aurum.readings.source_owner import SOURCE_TAKEN
from aurum.readings.tables import Rows, read_csv, to_series
from aurum.runtime.errors import FAILURES, AurumError, InvalidArgumentError, PermissionDeniedError
from aurum.v1 import ingestion_pb2

router = APIRouter(prefix="/api/readings", tags=["readings"])

# Few threads, since each takes as much memory again as its body. Large bodies wait for each other, small ones do not.
_LARGE = 1_000_000  # bytes
_OF_LARGE = ThreadPoolExecutor(1, thread_name_prefix="large-readings-parser")
_OF_SMALL = ThreadPoolExecutor(2, thread_name_prefix="readings-parser")
_LONGEST_ROW = 200_000  # characters of a row of CSV
_OWN = "service/api"  # owner of the sources of readings that name no source


@dataclass(slots=True)
class _Parsed:
    """The content of a body.

    Attributes:
        rows: The readings.
        value_column: Name of the column of values in errors; empty if each sensor has its own.
        source_id: The source, if the body names it.
        sequence: Its sequence, likewise.
        digest: Digest of the body, if it is needed.
    """

    rows: Rows
    value_column: str
    source_id: str | None = None
    sequence: int | None = None
    digest: str = ""


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
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind not in _PARSE:
        raise InvalidArgumentError.of("Content-Type", f"{kind!r} is neither application/json nor text/csv")
    parsed, message = await _read(request, _PARSE[kind], digested=idempotency_key is not None)
    for machine_id in dict.fromkeys(series.machine_id for series in message.series):
        await require_machine(context, caller, machine_id)
    if parsed.source_id is not None:
        message.source_id, message.sequence, message.owner = parsed.source_id, parsed.sequence or 0, caller.owner
    elif idempotency_key:
        # A separate source, owned by the digest of the body, so that the key cannot be reused with another body
        message.source_id, message.sequence = f"{ONE_BATCH}{idempotency_key}", 1
        message.owner = f"request/{parsed.digest}"
    else:
        return await _write_as_own(context, message)
    try:
        written = await context.ingestion.write(message)
    except PermissionDeniedError as error:
        if error.reason == SOURCE_TAKEN and parsed.source_id is None:
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


async def _read(
    request: Request, parse: Callable[[bytearray], _Parsed], *, digested: bool
) -> tuple[_Parsed, ingestion_pb2.Batch]:
    """Reads and parses the body of a request. The body is released before its batch is made.

    Args:
        request: The request.
        parse: Parses the body.
        digested: Whether the digest of the body is needed.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
    parsers = _OF_LARGE if len(body) > _LARGE else _OF_SMALL
    on_thread = asyncio.get_running_loop().run_in_executor
    digest = await on_thread(parsers, _digest, body) if digested else ""
    parsed = await on_thread(parsers, parse, body)
    del body
    parsed.digest = digest
    return parsed, await on_thread(parsers, _batch, parsed)


def _digest(body: bytearray) -> str:
    return hashlib.sha256(body).hexdigest()


def _from_json(body: bytearray) -> _Parsed:
    payload = parse_readings(body)
    if (payload.source_id is None) != (payload.sequence is None):
        raise InvalidArgumentError.of("sequence", "and source_id must be given together, or neither")
    if payload.source_id is not None:
        problem = source_id_problem(payload.source_id)
        if problem is None and payload.source_id.startswith(ONE_BATCH):
            problem = f"must not begin with {ONE_BATCH}, which stands for requests with an Idempotency-Key"
        if problem:
            raise InvalidArgumentError.of("source_id", problem)
    return _Parsed(payload.rows, "value", payload.source_id, payload.sequence)


def _from_csv(body: bytearray) -> _Parsed:
    rows = Rows()
    text = io.TextIOWrapper(io.BufferedReader(_Content(body)), encoding="utf-8-sig", newline="")
    lines = iter(lambda: text.readline(_LONGEST_ROW + 1), "")
    for block in read_csv(lines, MAX_READINGS + 1, longest_row=_LONGEST_ROW):
        if len(rows):
            break
        rows = block
    header = bytes(body[:_LONGEST_ROW]).partition(b"\n")[0]
    return _Parsed(rows, "value" if b"sensor" in header.split(b",") else "")


class _Content(io.RawIOBase):
    """A file with the content of a body, without a copy of it."""

    def __init__(self, body: bytearray) -> None:
        self._left = memoryview(body)

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        part = self._left[: len(into)]
        into[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part)


_PARSE: dict[str, Callable[[bytearray], _Parsed]] = {
    "text/csv": _from_csv,
    "application/csv": _from_csv,
    "application/json": _from_json,
    "": _from_json,
}


def _batch(parsed: _Parsed) -> ingestion_pb2.Batch:
    if not len(parsed.rows):
        raise InvalidArgumentError.of("readings", "at least one reading is required")
    if len(parsed.rows) > MAX_READINGS:
        raise InvalidArgumentError.of("readings", f"are more than {MAX_READINGS}; send them in parts")
    return encode("api", 1, to_series(parsed.rows, value_column=parsed.value_column))
