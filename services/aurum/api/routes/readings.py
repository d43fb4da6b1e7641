"""Writing readings over HTTP, for scripts, tests and devices without gRPC."""

import asyncio
import codecs
import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request

from aurum.api.context import ApiContext, Caller, Context
from aurum.api.idempotency import IdempotencyKey, key_reused
from aurum.api.readings_json import parse_readings
from aurum.api.schemas import ReadingsIn, ReadingsOut
from aurum.api.scope import require_machine
from aurum.api.table_form import DeclaredForm, TableForm
from aurum.readings.batch import MAX_READINGS, SINGLE_BATCH_PREFIX, source_id_problem
from aurum.readings.csv_table import TableNotes, read_csv
from aurum.readings.source_owner import SOURCE_TAKEN
from aurum.readings.table_text import TableText
from aurum.readings.tables import Rows, TableError, to_series
from aurum.readings.transport.write_call import SerializedSeries
from aurum.runtime.errors import FAILURES, AurumError, InvalidArgumentError, PermissionDeniedError
from aurum.v1 import ingestion_pb2

router = APIRouter(prefix="/api/readings", tags=["readings"])

# Few threads, since each takes as much memory again as its body. Large bodies wait for each other, small ones do not
_LARGE_BODY = 1_000_000  # bytes
_LARGE_BODY_PARSERS = ThreadPoolExecutor(1, thread_name_prefix="large-readings-parser")
_SMALL_BODY_PARSERS = ThreadPoolExecutor(2, thread_name_prefix="readings-parser")
_MAX_ROW_CHARACTERS = 200_000  # of a row of CSV
_OWN = "service/api"  # owner of the sources of readings that name no source


@dataclass(frozen=True, slots=True)
class _ParsedBody:
    """The content of a body.

    Attributes:
        rows: The readings.
        value_column: Name of the column of values in errors; empty if each sensor has its own.
        source_id: The source of the batch, if the body states it.
        sequence: The number of the batch within its source.
        absent: The number of cells that have a word instead of a number.
        notes: What was recognised.
    """

    rows: Rows
    value_column: str
    source_id: str | None = None
    sequence: int = 0
    absent: int = 0
    notes: TableNotes = field(default_factory=TableNotes)


@dataclass(frozen=True, slots=True)
class _Content:
    """The content of a body that is ready to be written.

    Attributes:
        series: The readings, serialized.
        source_id: The source of the batch, if the body states it.
        sequence: The number of the batch within its source.
        digest: The digest of the body; empty if it is not needed.
        absent: The number of readings without a number, which are left out.
        notes: What was recognised in a table, and what was left out or replaced.
    """

    series: SerializedSeries
    source_id: str | None
    sequence: int
    digest: str
    absent: int
    notes: list[str]


_BODIES: dict[str, Any] = {
    "application/json": {"schema": ReadingsIn.model_json_schema()},
    "text/csv": {"schema": {"type": "string"}, "example": "machine_id,timestamp,sensor,value\npump-1,…"},
}


@router.post(
    "", response_model_exclude_defaults=True, openapi_extra={"requestBody": {"required": True, "content": _BODIES}}
)
async def write_readings(
    request: Request, context: Context, caller: Caller, idempotency_key: IdempotencyKey, form: DeclaredForm
) -> ReadingsOut:
    """Stores readings, all or none, and answers when they are durable.

    The body is JSON or CSV. A CSV table is long (machine_id,timestamp,sensor,value) or wide (machine_id,timestamp, then
    one column per sensor); the query declares how it is written, as far as that is not recognized. A caller that is
    bound to sites can only write for machines that are registered there.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    content = await _read_content(request, _parser_for(media_type, form), form, idempotency_key is not None)
    for machine_id in content.series.machine_ids:
        await require_machine(context, caller, machine_id)
    if content.source_id is not None:
        written = await context.ingestion.write_batch(content.source_id, content.sequence, caller.owner, content.series)
    elif idempotency_key:
        written = await _write_once(context, idempotency_key, content)
    else:
        written = await _write_as_own(context, content.series)
    context.recent_writes.note(content.series.machine_ids)
    return ReadingsOut(
        accepted=written.accepted, duplicate=written.duplicate, absent=content.absent, notes=content.notes
    )


async def _write_once(context: ApiContext, idempotency_key: str, content: _Content) -> ingestion_pb2.WriteResponse:
    """Writes the readings of a request with an idempotency key as the only batch of a source of its own."""
    # The digest of the body owns the source, so that the key cannot be reused with another body
    owner = f"request/{content.digest}"
    try:
        return await context.ingestion.write_batch(f"{SINGLE_BATCH_PREFIX}{idempotency_key}", 1, owner, content.series)
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


def _parser_for(media_type: str, form: TableForm) -> Callable[[bytearray], _ParsedBody]:
    if media_type in ("text/csv", "application/csv"):
        return lambda body: _parse_csv(body, form)
    form.check_unused()
    if media_type in ("application/json", ""):
        return _parse_json
    raise InvalidArgumentError.for_field("Content-Type", f"{media_type!r} must be application/json or text/csv")


async def _read_content(
    request: Request, parse: Callable[[bytearray], _ParsedBody], form: TableForm, needs_digest: bool
) -> _Content:
    """Reads the body of a request, and parses and serializes it on a parser thread.

    The body is released before its readings are serialized.

    Args:
        request: The request.
        parse: Parses the body.
        form: How a table is written, which is part of the digest.
        needs_digest: Whether the digest is needed.

    Raises:
        TableError: A reading is invalid.
        InvalidArgumentError: The body is invalid.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
    parsers = _LARGE_BODY_PARSERS if len(body) > _LARGE_BODY else _SMALL_BODY_PARSERS
    run_in_executor = asyncio.get_running_loop().run_in_executor
    digest = await run_in_executor(parsers, _digest, body, form.declared) if needs_digest else ""
    parsed = await run_in_executor(parsers, parse, body)
    del body
    series = await run_in_executor(parsers, _serialize, parsed)
    absent = parsed.absent + sum(parsed.rows.silent.values())
    return _Content(series, parsed.source_id, parsed.sequence, digest, absent, parsed.notes.describe(absent=False))


def _digest(body: bytearray, declared: str) -> str:
    digest = hashlib.sha256(body)
    digest.update(declared.encode())
    return digest.hexdigest()


def _parse_json(body: bytearray) -> _ParsedBody:
    if body.startswith(codecs.BOM_UTF8):
        del body[: len(codecs.BOM_UTF8)]
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
    return _ParsedBody(body_content.rows, "value", body_content.source_id, body_content.sequence or 0)


def _parse_csv(body: bytearray, form: TableForm) -> _ParsedBody:
    rows = Rows()
    notes = TableNotes()
    text = TableText(io.BufferedReader(_BodyFile(body)), form.encoding, decompress=False)
    blocks = read_csv(text, MAX_READINGS + 1, options=form.options, notes=notes, max_row_characters=_MAX_ROW_CHARACTERS)
    for block in blocks:
        if len(rows):
            break
        rows = block
    notes.encoding = text.encoding or notes.encoding
    return _ParsedBody(rows, "value" if notes.long else "", absent=notes.absent, notes=notes)


class _BodyFile(io.RawIOBase):
    """A file with the content of a body, without a copy of it."""

    def __init__(self, body: bytearray) -> None:
        self._rest = memoryview(body)

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        part = self._rest[: len(into)]
        into[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)


def _serialize(parsed: _ParsedBody) -> SerializedSeries:
    if not len(parsed.rows):
        raise InvalidArgumentError.for_field("readings", "at least one reading is required")
    if len(parsed.rows) > MAX_READINGS:
        raise InvalidArgumentError.for_field("readings", f"must be at most {MAX_READINGS}; send several requests")
    series = to_series(parsed.rows, value_column=parsed.value_column)
    if not series:
        (machine_id, sensor), *_ = parsed.rows.silent
        problem = f"machine {machine_id}, sensor {sensor} has no value other than NaN"
        raise TableError(parsed.rows.rows[0], parsed.value_column or sensor, problem)
    parsed.notes.record_times(series)
    parsed.notes.record_numbers((each.machine_id, each.sensor) for each in series)
    return SerializedSeries.from_series(series)
