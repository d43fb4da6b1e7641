"""Numbers that senders give to series, so that a batch names each series once a stream instead of once a batch."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from aurum.readings.batch import MAX_SERIES, Numbers, SeriesKey, SeriesKeys, machine_id_problem, sensor_problem
from aurum.runtime.errors import InvalidArgumentError, ResourceExhaustedError
from aurum.runtime.grpc.wire import has_more_fields
from aurum.v1 import ingestion_pb2

MAX_NUMBERS = 200_000  # that the sources of a stream may define
TOO_MANY_NUMBERS = "TOO_MANY_NUMBERS"  # reason for refusing definitions; the readings are accepted by name
_MAX_BYTES = 64_000_000  # of the numbers of all streams
_MAX_UNCOUNTED = 500_000  # bytes of definitions up to which they are parsed before they are counted
_NUMBER_BYTES = 300  # of a number in memory besides its names
_MAX_ROWS_BYTES = 16_000_000  # of the rows that are remembered of a source
_ROW_BYTES = 16  # of a remembered row in memory besides its numbers and names
_TAG = b"\x0a"  # of a series in a SeriesTable


@dataclass(frozen=True, slots=True)
class NumberedRows:
    """The series of a batch that has its readings in rows.

    Attributes:
        keys: Each series once.
        lengths: The number of rows of each series.
        order: The rows by series; None if each series has one row, and the rows are in the order of `keys`.
        definitions: A serialized SeriesTable that defines all numbers of the batch.
        complete: Whether the batch defines all of its numbers itself.
    """

    keys: SeriesKeys
    lengths: Numbers
    order: npt.NDArray[np.intp] | None
    definitions: bytes
    complete: bool


@dataclass(slots=True)
class NumbersBudget:
    """The memory that the numbers of all streams of a server may take, in bytes."""

    left: int = _MAX_BYTES


@dataclass(slots=True)
class _Source:
    """The numbers of one source, and the rows of its recent batches, by their definitions and numbers."""

    keys: dict[int, SeriesKey] = field(default_factory=dict)
    entries: dict[int, bytes] = field(default_factory=dict)  # of a SeriesTable
    rows: dict[tuple[bytes, bytes], NumberedRows] = field(default_factory=dict)
    rows_bytes: int = 0


class SeriesNumbers:
    """The numbers that the sources of one stream have defined. To be closed at the end of the stream."""

    def __init__(self, budget: NumbersBudget | None = None, most: int = MAX_NUMBERS) -> None:
        """Starts without numbers.

        Args:
            budget: The memory that is shared by the streams; by default that of this one alone.
            most: How many numbers may be defined.
        """
        self._budget = budget or NumbersBudget()
        self._most = most
        self._sources: dict[str, _Source] = {}
        self._count = 0
        self._held = 0  # bytes of the budget

    def close(self) -> None:
        """Forgets all numbers."""
        self._sources.clear()
        self._budget.left += self._held
        self._held = self._count = 0

    def resolve(self, source_id: str, defined: bytes, numbers: bytes, field: str) -> NumberedRows:
        """Returns the series of the rows of a batch.

        Args:
            source_id: The source of the batch.
            defined: A serialized SeriesTable of the numbers that the batch defines.
            numbers: The number of each row, u32.
            field: The name of the columns within the request, for errors.

        Raises:
            InvalidArgumentError: A number is not defined, or a definition is invalid.
        """
        source = self._sources.get(source_id) or self._sources.setdefault(source_id, _Source())
        known = source.rows.get((defined, numbers))
        if known is not None:
            return known
        own = self._define(source, defined, f"{field}.defined") if defined else frozenset[int]()
        rows = _arrange(source, own, np.frombuffer(numbers, "<u4"), field)
        self._remember(source, (defined, numbers), rows)
        return rows

    def _remember(self, source: _Source, of: tuple[bytes, bytes], rows: NumberedRows) -> None:
        """Remembers the rows of a batch, instead of those that were remembered first if there is no room."""
        nbytes = _rows_bytes(of, rows)
        while source.rows and (source.rows_bytes + nbytes > _MAX_ROWS_BYTES or nbytes > self._budget.left):
            self._forget(source, next(iter(source.rows)))
        if nbytes <= _MAX_ROWS_BYTES and self._take(nbytes):
            source.rows[of] = rows
            source.rows_bytes += nbytes

    def _forget(self, source: _Source, of: tuple[bytes, bytes]) -> None:
        """Forgets the rows of a batch."""
        nbytes = _rows_bytes(of, source.rows.pop(of))
        source.rows_bytes -= nbytes
        self._take(-nbytes)

    def _take(self, nbytes: int) -> bool:
        """Takes memory from the budget. Returns False if there is not enough."""
        if nbytes > self._budget.left:
            return False
        self._budget.left -= nbytes
        self._held += nbytes
        return True

    def _define(self, source: _Source, defined: bytes, field: str) -> frozenset[int]:
        """Adds definitions, and returns their numbers. Raises InvalidArgumentError."""
        if len(defined) > _MAX_UNCOUNTED and has_more_fields(defined, MAX_SERIES):
            raise InvalidArgumentError.for_field(field, f"has more than the {MAX_SERIES} series that are allowed")
        try:
            table = ingestion_pb2.SeriesTable.FromString(defined)
        except DecodeError as error:
            raise InvalidArgumentError.for_field(field, "is not a message aurum.v1.SeriesTable") from error
        replaced = False
        for index, each in enumerate(table.series):
            present = source.keys.get(each.number)
            if present != (each.machine_id, each.sensor):
                self._add(source, each, f"{field}.series[{index}]")
                replaced = replaced or present is not None
        if replaced:
            for of in list(source.rows):
                self._forget(source, of)
        return frozenset(each.number for each in table.series)

    def _add(self, source: _Source, series: ingestion_pb2.NumberedSeries, field: str) -> None:
        """Adds a definition, or replaces one. Raises InvalidArgumentError, or ResourceExhaustedError."""
        if problem := machine_id_problem(series.machine_id):
            raise InvalidArgumentError.for_field(f"{field}.machine_id", problem)
        if problem := sensor_problem(series.sensor):
            raise InvalidArgumentError.for_field(f"{field}.sensor", problem)
        if series.number not in source.keys:
            if self._count >= self._most:
                raise InvalidArgumentError.for_field(
                    f"{field}.number", f"is one more than the {self._most} numbers that a stream may define"
                )
            self._count += 1
        entry = series.SerializeToString()
        if not self._take(len(entry) + _NUMBER_BYTES):
            raise ResourceExhaustedError(
                f"the numbers that the streams of this server have defined take {_MAX_BYTES:,} bytes, which is the "
                "limit; send the readings as series with their names",
                reason=TOO_MANY_NUMBERS,
            )
        source.keys[series.number] = series.machine_id, series.sensor
        source.entries[series.number] = _TAG + _length_of(entry) + entry


def _arrange(source: _Source, own: frozenset[int], numbers: npt.NDArray[np.uint32], field: str) -> NumberedRows:
    """Groups the rows of a batch by series. Raises InvalidArgumentError if a number is not defined."""
    single = len(np.unique(numbers)) == len(numbers)
    order: npt.NDArray[np.intp] | None = None
    if single:
        used = numbers.tolist()
        lengths = np.ones(len(used), np.int32)
    else:
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        used = ordered[starts].tolist()
        lengths = np.diff(np.append(starts, len(numbers))).astype(np.int32)
    if len(used) > MAX_SERIES:
        raise InvalidArgumentError.for_field(f"{field}.numbers", f"has {len(used)} series; {MAX_SERIES} are allowed")
    keys: dict[SeriesKey, None] = {}
    for number in used:
        key = source.keys.get(number)
        if key is None:
            row = int((numbers == number).argmax())
            raise InvalidArgumentError.for_field(
                f"{field}.numbers[{row}]", f"is {number}, which this source has not defined in this stream"
            )
        if key in keys:
            raise InvalidArgumentError.for_field(
                f"{field}.defined", f"machine {key[0]}, sensor {key[1]} has two numbers; define each series once"
            )
        keys[key] = None
    definitions = b"".join(source.entries[number] for number in used)
    return NumberedRows(SeriesKeys(list(keys)), lengths, order, definitions, own.issuperset(used))


def _rows_bytes(of: tuple[bytes, bytes], rows: NumberedRows) -> int:
    """Returns the memory that remembered rows take."""
    defined, numbers = of
    return len(defined) + len(numbers) + len(rows.definitions) + _ROW_BYTES * len(rows.keys)


def _length_of(entry: bytes) -> bytes:
    """Returns the length of an entry as a varint; it is below 2^14, since names are short."""
    length = len(entry)
    return bytes((length,)) if length < 128 else bytes((length & 0x7F | 0x80, length >> 7))
