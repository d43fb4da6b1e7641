"""A sender that keeps a ledger of what was acknowledged, and its comparison with what is stored."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np

from aurum.readings.batch import Series, encode, now_us
from aurum.storage.block_unpacking import BlockHead, unpack_blocks
from aurum.storage.segment import unpack
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc


class Sender:
    """A device that sends numbered readings and writes down what was acknowledged."""

    def __init__(self, address: str, source_id: str) -> None:
        self.address = address
        self.source_id = source_id
        self.start_us = now_us() - 3_600_000_000
        self.next = 1  # sequence to send; everything before it is acknowledged

    def batch(self, sequence: int) -> ingestion_pb2.Batch:
        at = self.start_us + sequence * 1000 + np.arange(3)
        return encode(self.source_id, sequence, [Series("ledger", self.source_id, at, np.full(3, float(sequence)))])

    def send(self, seconds: float) -> None:
        """Streams for so long, opening the stream again after every failure, from the last acknowledgement on."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            base = self.next

            def requests(base: int = base) -> Iterator[ingestion_pb2.IngestRequest]:
                sequence = base
                while time.monotonic() < deadline:
                    yield ingestion_pb2.IngestRequest(batch=self.batch(sequence))
                    sequence += 1
                    time.sleep(0.002)

            with grpc.insecure_channel(self.address) as channel:
                try:
                    for response in ingestion_pb2_grpc.IngestionServiceStub(channel).Ingest(requests(), timeout=30):
                        self.next = base + response.acknowledged
                except grpc.RpcError:
                    time.sleep(0.05)


def stored_readings(path: Path, source_id: str) -> list[tuple[int, float]]:
    """Every reading of a source in the store's segments and blocks, as often as it is there."""
    connection = sqlite3.connect(path)
    segments = connection.execute(
        "SELECT data FROM segments JOIN series ON segments.series = series.id WHERE sensor = ?", (source_id,)
    ).fetchall()
    series = {row[0] for row in connection.execute("SELECT id FROM series WHERE sensor = ?", (source_id,))}
    blocks = connection.execute("SELECT bucket, head, data FROM blocks").fetchall()
    connection.close()
    columns = [unpack(data) for (data,) in segments]
    for bucket, head, data in blocks:
        joined, problems = unpack_blocks([(BlockHead(head), data)])
        assert joined is not None
        assert not problems
        readings = joined.packed(bucket)
        for number, start, end in zip(readings.numbers, readings.ends - readings.lengths, readings.ends, strict=True):
            if number in series:
                columns.append((readings.timestamps[start:end], readings.values[start:end]))
    return [pair for each in columns for pair in zip(*(column.tolist() for column in each), strict=True)]


def stored(path: Path, source_id: str) -> list[float]:
    """The values of a source, in the order of time; fails if a reading is there twice."""
    readings = stored_readings(path, source_id)
    assert len({at for at, _ in readings}) == len(readings), "a reading is stored twice"
    return [value for _, value in sorted(readings)]


def check_ledger(sender: Sender, values: list[float]) -> None:
    sequences = [int(value) for value in values]
    assert sequences == sorted(sequences)
    counts = {sequence: sequences.count(sequence) for sequence in set(sequences)}
    assert all(count == 3 for count in counts.values()), "a batch is stored in part"
    missing = set(range(1, sender.next)) - counts.keys()
    assert not missing, f"acknowledged and lost: {sorted(missing)[:5]}"
