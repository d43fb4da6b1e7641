"""`aurum import`: imports a file into a running platform, over gRPC or HTTP.

The file is sent in blocks, which are identified by their content. The same command can therefore be repeated after an
error, or when the file has grown: only new readings are stored.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import httpx
import tenacity

from aurum.commands.progress import Update, progress_bar
from aurum.platform_settings import CommandSettings
from aurum.readings.batch import Series, encode, machine_id_problem, sensor_problem
from aurum.readings.csv_table import TableNotes, TableOptions, read_csv
from aurum.readings.names import original_machine, original_sensor, stored_machine, stored_sensor
from aurum.readings.table_text import TableText, open_table
from aurum.readings.tables import Rows, TableError, cmapss_prefix, read_cmapss, to_series
from aurum.resilience import RetryPolicy
from aurum.resilience.status import TRANSIENT, code_of_http
from aurum.runtime.errors import AlreadyExistsError, AurumError, FailedPreconditionError, UnavailableError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.grpc.tls import certificate_folder
from aurum.runtime.policy.policies import Policies
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

_BLOCK = 10_000  # readings
_AT_ONCE = 4  # blocks in flight
CMAPSS_TYPE = "turbofan-cmapss"


class ImportFailedError(Exception):
    """A file was not imported completely. The message says from which row on, and what to do."""


@dataclass(slots=True)
class Imported:
    """What was imported.

    Attributes:
        stored: The number of readings that were stored.
        duplicates: The number of readings that had been stored before.
        machines: The number of machines.
        notes: What was recognised or left out, as texts.
    """

    stored: int = 0
    duplicates: int = 0
    machines: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FileForm:
    """How a file is written.

    Attributes:
        form: The format, cmapss or csv.
        prefix: The beginning of the machine ids (cmapss); None for the name of the file.
        encoding: The declared encoding of the text; None to recognise it.
        table: How a CSV table is written.
    """

    form: str
    prefix: str | None = None
    encoding: str | None = None
    table: TableOptions = field(default_factory=TableOptions)


class ImportTarget(Protocol):
    """Where readings go."""

    async def register(self, machine_id: str, machine_type: str, site: str) -> None:
        """Registers a machine. Raises FailedPreconditionError if it is registered with another type."""

    async def write(self, source_id: str, series: list[Series]) -> tuple[int, int]:
        """Stores one block. Returns how many readings were stored, and how many had been stored before."""


async def import_file(
    path: Path, form: FileForm, target: ImportTarget, *, machine_type: str | None, site: str
) -> Imported:
    """Imports a file.

    Args:
        path: The file.
        form: How the file is written.
        target: Where the readings go.
        machine_type: The type to register the machines with; None for no registration (csv) or the default (cmapss).
        site: The site to register the machines with.

    Raises:
        ImportFailedError: The file is invalid, or the platform refused a block.
        FileNotFoundError: The file does not exist.
        AurumError: A machine could not be registered.
    """
    if form.form == "cmapss":
        machine_type = machine_type or CMAPSS_TYPE
    notes = TableNotes()
    result = Imported()
    registered: set[str] = set()
    size = max(1, path.stat().st_size)
    with open_table(path, form.encoding) as text, progress_bar(path.name) as update:
        blocks = _blocks(text, form, form.prefix or cmapss_prefix(path), notes)
        pending: set[asyncio.Task[tuple[int, int]]] = set()
        try:
            for series, replaces in _read_series(blocks, path, form.form, notes):
                for machine_id in {each.machine_id for each in series} - registered:
                    registered.add(machine_id)
                    if machine_type:
                        await target.register(machine_id, machine_type, site)
                while replaces and pending:  # of two readings with the same time, the one that arrives last is kept
                    pending = await _await_writes(pending, result, asyncio.ALL_COMPLETED)
                pending.add(asyncio.create_task(target.write(_identity(series), series)))
                if len(pending) >= _AT_ONCE:
                    pending = await _await_writes(pending, result, asyncio.FIRST_COMPLETED)
                _show(update, text, size, result)
        finally:
            # Also after an error, so that the count of stored readings is right
            while pending:
                pending = await _await_writes(pending, result, asyncio.ALL_COMPLETED)
    result.machines = len(registered)
    notes.encoding = text.encoding
    result.notes = notes.describe()
    return result


@asynccontextmanager
async def grpc_target(address: str, settings: CommandSettings) -> AsyncIterator[ImportTarget]:
    """Connects to an ingestion service or an edge gateway."""
    policies = Policies("import", settings)
    dependency = Dependency(
        "import", "ingestion", address, policies, settings.rpc_max_message_bytes, certificate_folder(settings)
    )
    try:
        yield _GrpcTarget(dependency)
    finally:
        await dependency.close()


@asynccontextmanager
async def http_target(url: str, settings: CommandSettings) -> AsyncIterator[ImportTarget]:
    """Connects to an API, with the key in AURUM_API_KEY if it is set."""
    headers = {"X-API-Key": settings.api_key.get_secret_value()} if settings.api_key else {}
    async with httpx.AsyncClient(base_url=url, timeout=30.0, headers=headers) as client:
        yield _HttpTarget(client, settings)


class _GrpcTarget:
    def __init__(self, dependency: Dependency) -> None:
        self._dependency = dependency
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(dependency.channel)

    async def register(self, machine_id: str, machine_type: str, site: str) -> None:
        request = ingestion_pb2.RegisterMachineRequest(
            machine_id=machine_id,
            machine_type=machine_type,
            site=site,
            request_id=_registration(machine_id, machine_type, site),
        )
        try:
            await self._dependency.unary(self._stub.RegisterMachine, request)
        except AlreadyExistsError:
            ask = ingestion_pb2.GetMachineRequest(machine_id=machine_id)
            response = await self._dependency.unary(self._stub.GetMachine, ask)
            _check_type(machine_id, response.machine.machine_type, machine_type)

    async def write(self, source_id: str, series: list[Series]) -> tuple[int, int]:
        request = ingestion_pb2.WriteRequest(batch=encode(source_id, 1, series))
        response = await self._dependency.unary(self._stub.Write, request)
        return response.accepted, response.duplicate


class _HttpTarget:
    def __init__(self, client: httpx.AsyncClient, settings: CommandSettings) -> None:
        self._client = client
        self._retry = RetryPolicy(
            settings.retry_max_attempts,
            settings.retry_base_delay,
            settings.retry_max_delay,
            "import/api",
            retry=tenacity.retry_if_exception_type((UnavailableError, httpx.TransportError)),
        )

    async def register(self, machine_id: str, machine_type: str, site: str) -> None:
        async def attempt() -> httpx.Response:
            body = {"machine_id": machine_id, "machine_type": machine_type, "site": site}
            key = _registration(machine_id, machine_type, site)
            return _successful(
                await self._client.post("/api/machines", json=body, headers={"Idempotency-Key": key}), also=409
            )

        if (await self._call(attempt)).status_code == 409:
            response = await self._call(lambda: self._client.get(f"/api/machines/{machine_id}"))
            _check_type(machine_id, str(_successful(response).json()["machine_type"]), machine_type)

    async def write(self, source_id: str, series: list[Series]) -> tuple[int, int]:
        readings = [
            {"machine_id": each.machine_id, "sensor": each.sensor, "timestamp": at / 1e6, "value": value}
            for each in series
            for at, value in zip(each.timestamps.tolist(), each.values.tolist(), strict=True)
        ]
        body = {"source_id": source_id, "sequence": 1, "readings": readings}

        async def attempt() -> httpx.Response:
            return _successful(await self._client.post("/api/readings", json=body))

        answer = (await self._call(attempt)).json()
        return int(answer["accepted"]), int(answer["duplicate"])

    async def _call(self, attempt: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        try:
            return await self._retry.call_async(attempt)
        except httpx.TransportError as error:
            raise UnavailableError(f"the API at {self._client.base_url} cannot be reached: {error}") from error


def _successful(response: httpx.Response, also: int = 200) -> httpx.Response:
    if response.is_success or response.status_code == also:
        return response
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    if code_of_http(response.status_code) in TRANSIENT:
        raise UnavailableError(f"the API is overloaded or unavailable: {detail}")
    raise FailedPreconditionError(f"the API answers {response.status_code}: {detail}")


def _blocks(text: TableText, form: FileForm, prefix: str, notes: TableNotes) -> Iterator[Rows]:
    if form.form == "cmapss":
        return read_cmapss(text, prefix, _BLOCK)
    return read_csv(text, _BLOCK, options=replace(form.table, device_names=True), notes=notes)


def _read_series(
    blocks: Iterator[Rows], path: Path, form: str, notes: TableNotes
) -> Iterator[tuple[list[Series], bool]]:
    """Yields the series of each block, and whether any of their readings may replace one of an earlier block."""
    last = 0
    machines = _StoredNames("machine_id", machine_id_problem, stored_machine, original_machine)
    sensors = _StoredNames("sensor", sensor_problem, stored_sensor, original_sensor)
    try:
        for block in blocks:
            if form == "csv":
                notes.record_numbers(zip(block.machine_ids, block.sensors, strict=True))
                block.machine_ids = machines.of(block.machine_ids, block.rows, notes)
                block.sensors = sensors.of(block.sensors, block.rows, notes)
            series = to_series(block, value_column="" if form == "cmapss" else "value")
            if form != "csv":
                notes.record_numbers((each.machine_id, each.sensor) for each in series)
            replaces = notes.record_times(series)
            for machine_id, sensor in block.silent:
                notes.record_absent(block.rows[0], machine_id, sensor, "NaN")
            if series:
                yield series, replaces
            last = block.rows[-1]
    except TableError as error:
        advice = "Correct the file, or declare how it is written (aurum import --help), and repeat the command"
        if last:
            stored = f"nothing after row {last} was stored. {advice}: readings that are already stored are skipped"
        else:
            stored = f"nothing was stored. {advice}"
        raise ImportFailedError(f"{path}, {error}; {stored}") from error


@dataclass(slots=True)
class _StoredNames:
    """The names under which the machines or the sensors of a table are stored.

    Names that can be stored stay as they are, so that an exported table can be imported again. A name that has the
    form of another one is therefore taken for that, and a table with both is refused.

    Attributes:
        column: The column of the names.
        problem: Returns why a name cannot be stored as it is.
        stored_name: Returns the form in which a name is stored.
        original_name: Returns the name that has a stored form.
    """

    column: str
    problem: Callable[[str], str | None]
    stored_name: Callable[[str], str]
    original_name: Callable[[str], str]
    _coded: dict[str, str] = field(default_factory=dict)  # names in the table, by stored name, if that has codes

    def of(self, names: list[str], rows: Sequence[int], notes: TableNotes) -> list[str]:
        """Returns the stored names of these rows, and notes those that differ. Raises TableError."""
        stored = {name: name if self.problem(name) is None else self.stored_name(name) for name in dict.fromkeys(names)}
        for name, stored_as in stored.items():  # in the order of rows
            notes.record_name(name, stored_as)
            if name == stored_as == self.original_name(name):
                continue
            other = self._coded.setdefault(stored_as, name)
            if other != name:
                problem = f"{name!r} and {other!r} would both be stored as {stored_as}; rename one of them"
                raise TableError(rows[names.index(name)], self.column, problem)
        return [stored[name] for name in names]


async def _await_writes(
    pending: set[asyncio.Task[tuple[int, int]]], result: Imported, until: str
) -> set[asyncio.Task[tuple[int, int]]]:
    done, pending = await asyncio.wait(pending, return_when=until)
    failure: BaseException | None = None
    for task in done:
        if error := task.exception():
            failure = error
            continue
        stored, duplicates = task.result()
        result.stored += stored
        result.duplicates += duplicates
    if failure:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if isinstance(failure, AurumError):
            raise ImportFailedError(
                f"{failure.message}; {result.stored} readings were stored. Repeat the command to continue"
            ) from failure
        raise failure
    return pending


def _show(update: Update, text: TableText, size: int, result: Imported) -> None:
    update(min(1.0, text.position / size), f"{result.stored + result.duplicates:,} readings")


def _identity(series: list[Series]) -> str:
    digest = hashlib.sha256()
    for each in series:
        digest.update(f"{each.machine_id}\0{each.sensor}\0".encode())
        digest.update(each.timestamps.astype("<i8").tobytes())
        digest.update(each.values.astype("<f8").tobytes())
    return f"import/{digest.hexdigest()[:32]}"


def _registration(machine_id: str, machine_type: str, site: str) -> str:
    return f"import-{hashlib.sha256(f'{machine_id}/{machine_type}/{site}'.encode()).hexdigest()[:24]}"


def _check_type(machine_id: str, registered: str, requested: str) -> None:
    if registered != requested:
        raise FailedPreconditionError(
            f"machine {machine_id} is registered as {registered!r}, not {requested!r}; import with --machine-type "
            f"{registered}"
        )
