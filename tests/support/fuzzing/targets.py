"""The decoders that are fuzzed: everything that reads bytes of devices, callers, operators or the disk."""

import asyncio
import atexit
import csv
import hashlib
import io
import json
import math
import shutil
import struct
import tempfile
import zlib
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml
import zstandard

from aurum.alarms import journal, rules_revision
from aurum.api.readings_json import parse_readings
from aurum.edge.dead_letters import DeadLetterError, DeadLetters, names, read
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import FilesInput, SparkplugInput, TagRule, Topic
from aurum.edge.inputs.common.connection_status import ConnectionStatus
from aurum.edge.inputs.common.tags import Tags
from aurum.edge.inputs.files.input import Files
from aurum.edge.inputs.mqtt import payloads
from aurum.edge.inputs.mqtt.connection import Message
from aurum.edge.inputs.sparkplug.input import SparkplugNodes
from aurum.edge.spool import Spool, SpoolOptions
from aurum.edge.spool_clock import SpoolClock, Uptime
from aurum.ingestion.cassandra import blocks, summaries
from aurum.ingestion.series_index import SeriesIndex
from aurum.prediction.model.model import CorruptModelError, load_model
from aurum.prediction.model.model_files import read_serving
from aurum.readings.batch import Batch, Series, Values, encode
from aurum.readings.batch_decoding import decode, parse_request
from aurum.readings.csv_table import read_csv
from aurum.readings.tables import Rows, TableError, read_cmapss, to_series
from aurum.readings.transport.refusals import Refused
from aurum.resilience import PolicyError
from aurum.resilience.outcomes import OutcomeError, read_outcomes
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.policy.document import PlatformPolicyDocument
from aurum.runtime.policy.policies import Policies, Refusal
from aurum.runtime.settings import Settings
from aurum.security.api_keys import KeyFileError, read_valid_keys
from aurum.security.settings import SenderSettings
from aurum.security.source_limits import SourceLimits
from aurum.storage import segment_log
from aurum.storage.block import PackedBlock, pack_blocks
from aurum.storage.block_unpacking import BlockHead, CorruptBlockError, unpack_blocks
from aurum.storage.packed_readings import PackedReadings
from aurum.storage.ranks import Ranks
from aurum.storage.segment import CorruptSegmentError, pack, unpack_ranked
from aurum.storage.segment_log import OVERHEAD, NewerLogError, SegmentLog
from aurum.storage.state_file import read_state, write_state
from aurum.v1 import columns_pb2, ingestion_pb2
from aurum.v1.sparkplug_pb2 import SparkplugMetric, SparkplugPayload
from tests.support.batch_builder import MemorySpool
from tests.support.disks import scratch_place
from tests.support.fuzzing.oracle import MB, Target

NOW = 1_790_000_000_000_000  # µs
SPARKPLUG = Path(__file__).parents[2] / "data" / "sparkplug"
_KINDS = ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH")


@cache
def _folder() -> Path:
    """Of this process, for decoders of files; in memory where there is such a place, for they are synced."""
    made = Path(tempfile.mkdtemp(prefix="aurum-fuzz-", dir=scratch_place()))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def _file(name: str, data: bytes) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def _emptied(name: str) -> Path:
    """A folder without files; its folders stay."""
    folder = _folder() / name
    folder.mkdir(exist_ok=True)
    for path in folder.rglob("*"):
        if not path.is_dir():
            path.unlink()
    return folder


def _same(one: tuple[Series, ...] | list[Series], other: tuple[Series, ...] | list[Series]) -> None:
    def content(series: tuple[Series, ...] | list[Series]) -> list[tuple[str, str, bytes, bytes]]:
        return [(s.machine_id, s.sensor, s.timestamps.tobytes(), s.values.tobytes()) for s in series]

    assert content(one) == content(other)


@cache
def _limits() -> SourceLimits:
    return SourceLimits(SenderSettings())


def _collector(spool: MemorySpool, *rules: TagRule) -> BatchBuilder:
    return BatchBuilder("test", "test-1", spool, Tags(rules), "device", _limits())  # type: ignore[arg-type]


# Batches


def _batch_seeds() -> list[bytes]:
    times = np.array([NOW - 1000, NOW, NOW - 2000])
    whole = Batch.from_series(
        "src", 7, [Series("m", "s", times, np.array([1.0, np.nan, 3.0])), Series("m", "t", times, times)]
    )
    owned = whole.with_owner("somebody")
    pieces = ingestion_pb2.Batch(source_id="src", sequence=1, owner="somebody").SerializeToString()
    series = ingestion_pb2.Series(machine_id="m", sensor="s", timestamps_us=[1], values=[2.0]).SerializeToString()
    numbers = b"\x19" + struct.pack("<q", 5) + b"\x21" + struct.pack("<d", 6.0)  # one number each, not packed
    more = ingestion_pb2.Series(timestamps_us=[7], values=[8.0]).SerializeToString()
    return [
        whole.data,
        owned.data,
        *(pieces + b"\x1a" + bytes([len(each)]) + each for each in (series + numbers, series + more)),
    ]


def _batch(data: bytes) -> None:
    batch = decode(data, NOW)
    assert batch.readings == sum(len(each.values) for each in batch.series) > 0
    again = decode(Batch.from_series(batch.source_id, batch.sequence, batch.series).data, NOW)
    _same(again.series, batch.series)
    for owner in ("other", "another"):
        batch = batch.with_owner(owner)
        stored = decode(batch.data, NOW)
        assert (stored.source_id, stored.sequence, stored.owner) == (batch.source_id, batch.sequence, owner)
        _same(stored.series, batch.series)


def _request_seeds() -> list[bytes]:
    return [
        columns_pb2.BatchRequest(batch=data, traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .SerializeToString()
        for data in _batch_seeds()
    ]  # fmt: skip


def _request(data: bytes) -> None:
    request = parse_request(data)
    batch = decode(request.batch, NOW)
    whole = ingestion_pb2.IngestRequest.FromString(data)  # which reads all of it, as protobuf has it
    _same(batch.series, decode(whole.batch.SerializeToString(), NOW).series)


# Sparkplug: messages one after the other, each with a byte that says its kind and two that say its length


def _sparkplug_seeds() -> list[bytes]:
    def framed(*files: str) -> bytes:
        return b"".join(_framed(_KINDS.index(file.partition("_")[0].upper()), file) for file in files)

    pump = SparkplugMetric(name="pump", alias=30, datatype=19)
    pump.template_value.metrics.add(name="temp", alias=31, datatype=1, int_value=244, is_historical=True)
    udt = SparkplugPayload(timestamp=1_764_000_000_000, seq=2, metrics=[pump]).SerializeToString()
    return [
        framed("nbirth", "dbirth", "ddata", "ddata_null", "ndata"),
        framed("nbirth", "ndeath", "ndata", "ddeath"),
        framed("nbirth", "dbirth") + _frame(_KINDS.index("DBIRTH"), udt),
    ]


def _framed(kind: int, file: str) -> bytes:
    return _frame(kind, (SPARKPLUG / f"{file}.bin").read_bytes())


def _frame(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + len(content).to_bytes(2, "little") + content


def _sparkplug(data: bytes) -> None:
    spool = MemorySpool()
    gathered = _collector(spool)
    options = SparkplugInput.model_validate({"name": "sp", "protocol": "sparkplug", "broker": {"host": "x"}})
    plant = SparkplugNodes(options, gathered, lambda topic, payload: None, clock=lambda: 0.0)
    offset = 0
    while offset + 3 <= len(data):
        kind = _KINDS[data[offset] % len(_KINDS)]
        end = offset + 3 + int.from_bytes(data[offset + 1 : offset + 3], "little")
        device = "/d" if kind[0] == "D" else ""
        plant.handle(Message(f"spBv1.0/plant/{kind}/node{device}", data[offset + 3 : end], 0))
        offset = end
    asyncio.run(_committed(gathered))
    for batch in spool.batches:
        _same(decode(batch.data, None).series, batch.series)


async def _committed(gathered: Any) -> None:
    writing = await gathered.commit()
    if writing is not None:
        await writing


# Tables


def _csv_seeds() -> list[bytes]:
    return [
        b"machine_id,timestamp,sensor,value\np-1,1790000000,temp,1.5\np-1,2026-05-04T12:00:00Z,temp,nan\n",
        b'\xef\xbb\xbftimestamp,machine_id,temp,flow\r\n1790000000000,p-1,1.5,\r\n1790000001000,p-1,"2",3e5\r\n',
        b'machine_id,timestamp,"a b"\np,0,-1_0\n',
        b"machine_id,timestamp,sensor,value\np,1790000000,t,1\np,1789999999,t,-nan\n",
    ]


def _csv(data: bytes) -> None:
    found: list[Series] = []
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    for rows in read_csv(text, 50):
        assert len(rows) == len(rows.rows) == len(rows.timestamps) == len(rows.machine_ids) == len(rows.sensors)
        series = to_series(rows, NOW)
        assert sum(len(each.values) for each in series) == len(rows)
        decode(encode("s", 1, series).SerializeToString(), NOW)
        written = io.StringIO(newline="")
        out = csv.writer(written)
        out.writerow(["machine_id", "timestamp", "sensor", "value"])
        out.writerows(
            (each.machine_id, str(int(at)), each.sensor, repr(float(value)))
            for each in series
            for at, value in zip(each.timestamps, each.values, strict=True)
            if at >= 10**14  # which as a number are microseconds
        )
        exact = [
            Series(each.machine_id, each.sensor, each.timestamps[late], _without_signs_of_nan(each.values[late]))
            for each in series
            if not np.isnan(each.values[late := each.timestamps >= 10**14]).all()
        ]
        written.seek(0)
        again = Rows()
        for part in read_csv(written, 10**6):
            again = part
        lost = {(each.machine_id, each.sensor) for each in exact}
        kept = [i for i, key in enumerate(zip(again.machine_ids, again.sensors, strict=True)) if key in lost]
        _same(to_series(Rows(*([column[i] for i in kept] for column in _columns(again))), NOW), exact)
        found += series


def _without_signs_of_nan(values: Values) -> Values:
    """The sign of NaN is lost where a table is written as text."""
    return np.where(np.isnan(values), np.nan, values)


def _columns(rows: Rows) -> tuple[list[Any], ...]:
    return rows.machine_ids, rows.sensors, rows.timestamps, rows.values, rows.rows


def _cmapss_seeds() -> list[bytes]:
    line = " ".join(["1", "1", *(f"{number}.5" for number in range(24))])
    return [f"{line}  \n{line.replace('1 1', '1 2', 1)}\n".encode()]


def _cmapss(data: bytes) -> None:
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
    for rows in read_cmapss(text, "engine", 60):
        series = to_series(rows, NOW)
        decode(encode("s", 1, series).SerializeToString(), NOW)


_RULES = (
    TagRule(sensor="big*", scale=1e300),
    TagRule(sensor="drop*", drop=True),
    TagRule(sensor="a*", becomes="joined"),
)


def _files_seeds() -> list[bytes]:
    return [
        *_csv_seeds(),
        b"machine_id,timestamp,sensor,value\np,0,big,1e300\np,0,drop,1\np,0,a1,1\np,0,a2,2\np,1,big,2\n",
        b"machine_id,timestamp,sensor,value\np,0,big,1e300\np,1,big,nan\n",
    ]


def _files(data: bytes) -> None:
    asyncio.run(_dropped(data))


async def _dropped(data: bytes) -> None:
    spool = MemorySpool()
    folder = _emptied("drops")
    (folder / "t.csv").write_bytes(data)
    options = FilesInput.model_validate({"name": "drops", "protocol": "files", "folder": folder, "settled": 0})
    files = Files(options, _collector(spool, *_RULES), ConnectionStatus("drops"))
    await files._store(folder / "t.csv")
    files._thread.shutdown()
    assert not (folder / "t.csv").exists()
    refused = list(folder.glob("refused/*.problem.txt"))
    assert len(refused) + len(list(folder.glob("done/*"))) == 1
    assert not refused or not spool.batches
    for batch in spool.batches:
        _same(decode(batch.data, None).series, batch.series)


# JSON


def _json_seeds() -> list[bytes]:
    reading = {"machine_id": "p-1", "sensor": "temp", "timestamp": 1790000000, "value": 1.5}
    return [
        json.dumps({"readings": [reading, {**reading, "timestamp": "2026-05-04T12:00:00Z", "value": None}]}).encode(),
        json.dumps({"source_id": "s", "sequence": 1, "readings": [{**reading, "value": "2"}]}).encode(),
        b'{"readings":[{"machine_id":"p","sensor":"t","timestamp":1e9,"value":NaN}],"readings":[]}',
        b'{"source_id":"s","sequence":' + b"9" * 5000 + b"}",
        b'{"source_id":"s","sequence":99999999999999999999,"readings":['
        b'{"machine_id":"p","sensor":"t","timestamp":1e9,"value":1}]}',
    ]


def _json(data: bytes) -> None:
    body = parse_readings(data)
    content = json.loads(data)
    assert len(body.rows) == len(content["readings"])
    assert body.rows.machine_ids == [each["machine_id"] for each in content["readings"]]
    series = to_series(body.rows, NOW)
    encode(body.source_id or "api", 1 if body.sequence is None else body.sequence, series)


_TOPICS = (
    Topic(pattern="plant/{machine}/state", timestamp="at"),
    Topic(pattern="plant/{machine}/{sensor}", sensor="{sensor}", value="data.value", timestamp="data.at"),
    Topic(pattern="plant/{machine}", values={"temp": "t.c", "flow": "f"}),
    Topic(pattern="plant/{machine}", format="csv", timestamp="at"),
    Topic(pattern="plant", format="csv", machine="{id}", columns=("id", "at", "temp"), timestamp="at"),
    Topic(pattern="plant/{machine}/{sensor}", format="number", sensor="{sensor}"),
)
_LEVELS = {"machine": "m", "sensor": "s"}


def _payload_seeds() -> list[bytes]:
    return [
        b'\x00{"at": 1790000000, "temp": 1.5, "flow": true}',
        b'\x01[{"data": {"value": "1e3", "at": "2026-05-04T12:00:00"}}]',
        b'\x00{"at": "1790000000", "a": {"b": ["21.5", null, {"c": "ON"}]}, "password": "x"}',
        b'\x02{"t": {"c": 1}, "f": 2}',
        b"\x03at,temp\n1790000000,1.5\n",
        b"\x04m-1,1790000000,1.5\n",
        b"\x0512.5",
    ]


def _payload(data: bytes) -> None:
    topic = _TOPICS[data[0] % len(_TOPICS)] if data else _TOPICS[0]
    content = payloads.read_values(payloads.TopicFormat.for_topic_name(topic, _LEVELS), data[1:])
    for value in content.values:
        assert math.isfinite(value.value)
        assert value.at_us is None or abs(value.at_us) < 2**62


# YAML


def _policy_seeds() -> list[bytes]:
    return [
        (Path(__file__).parents[3] / "policies.yaml").read_bytes()[:2000],
        b"uid: a\ngeneration: 3\npolicies:\n- target: api/*/*\n  retry: {maxAttempts: 2, baseDelay: 100ms}\n",
        b"uid: &a x\ngeneration: 2026-05-04\npolicies: [*a]\n",
    ]


@cache
def _policies() -> Policies:
    return Policies("api", Settings(policy_file=_file("policy.yaml", b"")))


def _policy(data: bytes) -> None:
    policies = _policies()
    _file("policy.yaml", data)
    found = policies.read()
    assert isinstance(found, PlatformPolicyDocument | Refusal)
    if isinstance(found, Refusal):
        assert "policy.yaml" in found.reason
        return
    text = yaml.safe_dump(found.model_dump(mode="json", by_alias=True), allow_unicode=True)
    _file("policy.yaml", text.encode())
    assert policies.read() == found


def _key_seeds() -> list[bytes]:
    record = {"id": "abcdefghij", "name": "a", "roles": ["viewer"], "created": "2026-05-04T12:00:00Z"}
    record["hash"] = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g"
    return [yaml.safe_dump({"keys": [record, {**record, "sites": ["north"], "expires": None}]}).encode()]


def _keys(data: bytes) -> None:
    read_valid_keys(_file("keys.yaml", data))


# Files of the store and of the spool


def _segment_seeds() -> list[bytes]:
    regular, irregular = np.arange(300) * 1000, np.cumsum(np.arange(10) * 7)
    return [
        pack(regular, np.arange(300.0)),
        pack(irregular, np.full(10, np.nan)),
        pack(np.array([5]), np.array([1.0])),
        pack(np.array([0, 2**40, 2**41 + 5]), np.array([1.0, 2.0, 3.0])),
        pack(irregular, np.arange(10.0), _several_ranks(10)),
    ]


def _several_ranks(count: int) -> Ranks:
    places, sequences = np.arange(2), np.array([7, 9])
    return Ranks.from_runs([(1,), (2,)], places, sequences, np.array([1, count - 1]))


def _segment(data: bytes) -> None:
    """As it is, and with the checksum that it should have, so that what is behind the checksum is reached too."""
    for segment in (data, data[:8] + zlib.crc32(data[12:]).to_bytes(4, "little") + data[12:]):
        try:
            timestamps, values, ranks = unpack_ranked(segment)
        except CorruptSegmentError:
            continue
        assert ranks is None or ranks.lengths.sum() == len(values)
        assert len(timestamps) == len(values) >= 1
        if len(timestamps) == 1 or (np.diff(timestamps) >= 0).all():
            again = unpack_ranked(pack(timestamps, values, ranks))
            assert ranks is None or len(ranks.lengths) == 1 or again.ranks is not None
            assert (again[0].tobytes(), again[1].tobytes()) == (timestamps.tobytes(), values.tobytes())


def _block_seeds() -> list[bytes]:
    numbers = np.arange(40, dtype=np.int32)
    return [
        _written(pack_blocks(PackedReadings(numbers, np.full(40, each), times, times * 0.5, ranks)))
        for each, ranks in ((3, Ranks.uniform((1, 7), 120)), (3, _several_ranks(120)), (120, _several_ranks(4800)))
        for times in (np.tile(np.arange(each, dtype=np.int64) * 1000, 40),)
    ]


def _written(packed: list[PackedBlock]) -> bytes:
    return len(packed[0].head).to_bytes(2, "little") + packed[0].head + packed[0].data


def _block(data: bytes) -> None:
    """As it is, and with the checksums that its head and its first frame should have."""
    end = 2 + int.from_bytes(data[:2], "little")
    head, frames = data[2:end], data[end:]
    fixed = head[:4] + zlib.crc32(head[8:], zlib.crc32(head[:4])).to_bytes(4, "little") + head[8:]
    for each in (head, fixed):
        try:
            parsed = BlockHead(each)
        except CorruptBlockError:
            continue
        joined, problems = unpack_blocks([(parsed, frames)])
        if joined is None:
            assert problems
            continue
        assert len(joined.timestamps) == len(joined.values) == joined.lengths.sum()
        assert sum(int(ranks.lengths.sum()) for ranks in joined.ranks) == len(joined.values)


def _summary_seeds() -> list[bytes]:
    numbers = np.arange(3, dtype=np.int32)
    readings = PackedReadings(numbers, np.full(3, 4), np.tile(np.arange(4), 3), np.arange(12.0), _several_ranks(12))
    names = blocks.Names([("m", "a"), ("m", "b"), ("n", "a")])
    return [summaries.encode(names, summaries.of_readings(readings))]


def _summaries(data: bytes) -> None:
    series = SeriesIndex()
    found = summaries.decode(series, data)
    assert len(summaries.as_list(series, summaries.join([found, found]))) == len(set(found.numbers.tolist()))


def _row_seeds() -> list[bytes]:
    numbers = np.arange(40, dtype=np.int32)
    readings = PackedReadings(numbers, np.full(40, 3), np.tile(np.arange(3), 40), np.arange(120.0), _several_ranks(120))
    names = blocks.Names([(f"m{number // 4}", f"s{number % 4}") for number in range(40)])
    (row,) = blocks.rows_of((0, 0), 0, "id", readings, names, 0)
    columns = row[8:11]
    return [struct.pack("<HH", *map(len, columns[:2])) + b"".join(columns)]


def _row(data: bytes) -> None:
    names, head = struct.unpack_from("<HH", data.ljust(4, b"\0"))
    end = 4 + names + head
    row = SimpleNamespace(names=data[4 : 4 + names], head=data[4 + names : end], data=data[end:])
    all_of_it = list(blocks.read_all(row, SeriesIndex()))
    for key in blocks.decode_names(row.names):
        found = blocks.read_series(row, key)
        assert found is not None
        assert found[2].lengths.sum() == len(found[1])
        assert len(found[0]) == len(found[1])
    assert sum(len(part.numbers) for part in all_of_it) == len(blocks.decode_names(row.names))


def _log_of(*content: bytes) -> bytes:
    folder = _emptied("making")
    log = SegmentLog(folder)
    log.append_records(content, NOW)
    log.close()
    (path,) = folder.glob("*.log")
    return path.read_bytes()


def _log_seeds() -> list[bytes]:
    log = _log_of(b"one", b"", b"three" * 10)
    return [log, log[:-3], log + log[-60:], log[:40] + b"ALG\x01" * 8 + log[40:]]


def _checked(data: bytes) -> bytes:
    """With right checksums wherever a record may begin."""
    fixed = bytearray(data)
    at = data.find(b"ALG\x01")
    while at >= 0:
        length = int.from_bytes(data[at + 8 : at + 12], "little")
        end = at + OVERHEAD + length
        if end <= len(data) and at + OVERHEAD <= len(data):
            fixed[at + 4 : at + 8] = zlib.crc32(fixed[at + 8 : end]).to_bytes(4, "little")
            at = data.find(b"ALG\x01", end)
        else:
            at = data.find(b"ALG\x01", at + 1)
    return bytes(fixed)


def _log(data: bytes) -> None:
    for content in (data, _checked(data)):
        folder = _emptied("log")
        (folder / f"{1:020}.log").write_bytes(content)
        count, damage = segment_log.find_damage(folder)
        assert sum(each.bytes for each in damage) <= len(content)
        scanned = list(segment_log.scan(folder, 0))
        log = SegmentLog(folder)
        found = log.read(0, 2**40)
        assert found == scanned
        assert len(found) == count
        log.append_records([b"after"], NOW)
        log.close()
        log = SegmentLog(folder)
        assert [record.payload for record in log.read(0, 2**40)] == [*(r.payload for r in found), b"after"]
        log.close()


_STATE = b"[[0,3],[5,7]]"


def _spool_seeds() -> list[bytes]:
    plain = columns_pb2.BatchRequest(batch=_batch_seeds()[0]).SerializeToString()
    packed = zstandard.ZstdCompressor(level=1).compress(plain * 3)
    log = _log_of(b"\0" + plain, b"\1" + packed, b"\0", b"", b"\2newer", b"\1" + plain)
    states = (_STATE, b"[[0,1e999]]", b"[[0,99999999999999999999]]", b"[[-5,3]]", b"[[9,1]]")
    return [state + b"\n" + log for state in states]


def _spool(data: bytes) -> None:
    """A first line that says what is acknowledged, then the log."""
    acked, _, log = data.partition(b"\n")
    asyncio.run(_opened_spool(acked, _checked(log)))


async def _opened_spool(acked: bytes, log: bytes) -> None:
    folder = _emptied("spool")
    (folder / f"{1:020}.log").write_bytes(log)
    _put_state(folder / "acked.json", acked)
    spool = Spool(SpoolOptions(folder))
    try:
        await spool.start()
        await spool.drop_expired()
        for lane in (spool.backlog, spool.live):
            await _drained(lane)
        await (
            await spool.put(
                Batch.from_series("s", 1, [Series("m", "s", np.array([1]), np.array([1.0]))]), "", wait=True
            )
        )
        (sent,) = await _drained(spool.live)
        assert decode(parse_request(sent).batch, NOW).sequence == 1
        assert spool.batches == 0
    finally:
        await spool.close()


async def _drained(lane: Any) -> list[bytes]:
    sent, last = [], 0
    while found := await lane.batches_after(last, 100):
        sent += [waiting.data for waiting in found]
        last = found[-1].id
        await lane.acknowledge([waiting.id for waiting in found])
    return sent


def _put_state(path: Path, content: bytes) -> None:
    """A file of state with this content, with a right checksum where there can be one."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        path.write_bytes(content)
        return
    write_state(path, None)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "content": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}))


def _state_seeds() -> list[bytes]:
    return [
        _STATE,
        b'{"now_us":1790000000000000,"uptime_us":5,"boot_id":"b"}',
        b'"text"',
        *(
            b'{"now_us":%b,"uptime_us":%b,"boot_id":"b"}' % each
            for each in ((b"1e999", b"1"), (b"1e300", b"1"), (b"-1", b"1"), (b"1", b"-1e300"))
        ),
    ]


def _state(data: bytes) -> None:
    for stored in (data, None):
        folder = _emptied("state")
        path = folder / "clock.json"
        if stored is None:
            _put_state(path, data)
        else:
            path.write_bytes(stored)
        content = read_state(path)
        clock = SpoolClock(path, 0, Uptime("b", lambda: 10**12))
        first = clock.now_us()
        assert isinstance(first, int)
        assert abs(first) < 2**63
        assert clock.now_us() >= first
        clock.save()
        write_state(path, content)
        assert json.dumps(read_state(path)) == json.dumps(content)


def _letter_seeds() -> list[bytes]:
    folder = _emptied("making")
    letters = DeadLetters(folder, 10**6)
    letters.put(Refused(1, "WHY", "no"), _request_seeds()[0])
    letters.put(Refused(2, "WHY", "no"), b"junk")
    return [path.read_bytes() for path in sorted(folder.glob("*.letter"))]


def _letter(data: bytes) -> None:
    folder = _emptied("letters")
    (folder / "x.letter").write_bytes(data)
    letter = read(folder, "x")
    assert isinstance(letter.source_id, str)
    assert isinstance(letter.sequence, int)
    assert isinstance(letter.reason, str)
    letters = DeadLetters(_emptied("kept"), 10**6)
    letters.put(Refused(1, letter.reason, letter.message), letter.request)
    (name,) = names(_folder() / "kept")
    assert read(_folder() / "kept", name).request == letter.request


def _serving(data: bytes) -> None:
    folder = _folder() / "models" / "pump"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "active.json").write_bytes(data)
    serving = read_serving(_folder() / "models", "pump")
    assert serving is not None
    assert "/" not in serving.version


def _serving_seeds() -> list[bytes]:
    return [b'{"version": "1", "previous": null, "shadow": "2"}', b'{"version": "../x"}']


def _card_seeds() -> list[bytes]:
    return [b'{"format": 2, "kind": "rul", "files": {}}', b'{"format": 3}', b"[[1]]"]


def _card(data: bytes) -> None:
    folder = _folder() / "models" / "card"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").write_bytes(data)
    load_model(folder)


def _outcome_seeds() -> list[bytes]:
    line = b'{"time":1.5,"target":"a/b/C","duration":0.25,"code":"OK","attempt":1}\n'
    return [line + line, line + b"\n[1]\n"]


def _outcomes(data: bytes) -> None:
    for outcome in read_outcomes(io.BytesIO(data)):
        assert outcome.target.count("/") == 2
        assert outcome.duration >= 0


def _journal_seeds() -> list[bytes]:
    return [
        b'{"kind":"raised","machine_id":"m","rule":"r","at_us":5,"value":1.5}',
        b'{"kind":"of a newer version"}',
    ]


def _journal(data: bytes) -> None:
    found = journal.decode(data, "x")
    assert found is None or journal.decode(journal.encode(found), "x") == found


def _rules_seeds() -> list[bytes]:
    return [
        b'{"revision":1,"write_id":"a","part":0,"parts":1,"by":"Ada","reason":"x","rules":'
        b'[{"name":"hot","text":"Too hot","sensor":{"sensor":"heat","above":80}}]}',
        b'{"revision":2,"write_id":"b","part":0,"parts":1,"from_file":true,"restores":0,"changes":["hot removed"]}',
        b'{"revision":3,"write_id":"c","part":1,"parts":2}',
    ]


def _rules(data: bytes) -> None:
    event = ingestion_pb2.Event(kind=rules_revision.EVENT_KIND, at_us=1, id="x", content=data)
    for found in rules_revision.revisions_of([event]):
        if found.rules is None:
            assert rules_revision.revisions_of(rules_revision.to_events(found))[0].rules is None


TARGETS = {
    target.name: target
    for target in (
        Target("batch", _batch_seeds, _batch, (InvalidArgumentError,)),
        Target("request", _request_seeds, _request, (InvalidArgumentError,)),
        Target("sparkplug", _sparkplug_seeds, _sparkplug),
        Target("csv", _csv_seeds, _csv, (TableError,)),
        Target("cmapss", _cmapss_seeds, _cmapss, (TableError,)),
        Target("files", _files_seeds, _files, base_memory=2 * MB),
        Target("json", _json_seeds, _json, (TableError, InvalidArgumentError)),
        Target("payload", _payload_seeds, _payload, (payloads.PayloadError,)),
        Target("policy", _policy_seeds, _policy, (PolicyError,), calls=500, base_calls=50_000, base_memory=10 * MB),
        Target("keys", _key_seeds, _keys, (KeyFileError,), calls=500, base_calls=50_000, base_memory=50 * MB),
        Target("segment", _segment_seeds, _segment, (CorruptSegmentError,), memory=5 * 2**15),  # as zstd compresses
        Target("block", _block_seeds, _block, (CorruptBlockError,), memory=5 * 2**15),
        Target("block row", _row_seeds, _row, (CorruptBlockError,), memory=5 * 2**15),
        Target("summaries", _summary_seeds, _summaries, (summaries.CorruptSummaryError,), memory=5 * 2**15),
        Target("log", _log_seeds, _log, (NewerLogError,)),
        Target("spool", _spool_seeds, _spool, (NewerLogError,)),
        Target("state", _state_seeds, _state),
        Target("dead-letter", _letter_seeds, _letter, (DeadLetterError,)),
        Target("card", _card_seeds, _card, (CorruptModelError,)),
        Target("outcomes", _outcome_seeds, _outcomes, (OutcomeError,)),
        Target("journal", _journal_seeds, _journal),
        Target("alarm-rules", _rules_seeds, _rules),
        Target("serving", _serving_seeds, _serving, (CorruptModelError,)),
    )
}
