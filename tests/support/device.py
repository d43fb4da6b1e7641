"""A device as a process of its own: sends numbered batches and writes down, synced, what was acknowledged.

    python -m tests.support.device ADDRESS SOURCE LEDGER PAUSE

Killed and started again, it goes on after the last batch in its ledger, so it may send some again. Every tenth
stream it sends what was acknowledged once more, and now and then batches in another order.
"""

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

READINGS = 3  # of a batch


def batch(source: str, start_us: int, sequence: int) -> ingestion_pb2.Batch:
    """Three readings whose value is the sequence."""
    at = start_us + sequence * 1000 + np.arange(READINGS)
    return encode(source, sequence, [Series("ledger", source, at, np.full(READINGS, float(sequence)))])


def acknowledged(ledger: Path) -> tuple[int, int]:
    """Time of the first batch, and the last sequence up to which all are acknowledged."""
    if not ledger.exists() or not (lines := [line for line in ledger.read_text().split("\n") if line.endswith(".")]):
        return 0, 0
    start, *numbers = (int(line[:-1]) for line in lines)
    return start, numbers[-1] if numbers else 0


def main(address: str, source: str, ledger: Path, pause: float) -> None:
    """pause: seconds between two batches."""
    start_us, last = acknowledged(ledger)
    chance = random.Random(source)
    with ledger.open("a") as book:

        def note(number: int) -> None:
            book.write(f"{number}.\n")
            book.flush()
            os.fsync(book.fileno())

        if not start_us:
            start_us = int(time.time() * 1e6)
            note(start_us)
        streams = 0
        while True:
            streams += 1
            base = max(0, last - 20) if streams % 10 == 0 else last  # again, which must change nothing

            def requests(base: int = base) -> Iterator[ingestion_pb2.IngestRequest]:
                sequence = base
                while True:
                    group = list(range(sequence + 1, sequence + 6))
                    if chance.random() < 0.1:
                        chance.shuffle(group)
                    for number in group:
                        yield ingestion_pb2.IngestRequest(batch=batch(source, start_us, number))
                        time.sleep(pause)
                    sequence += 5

            with grpc.insecure_channel(address) as channel:
                try:
                    stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
                    for response in stub.Ingest(requests(), timeout=30):
                        # Within a group of five the order may be another, so only whole groups count
                        whole = base + response.acknowledged // 5 * 5
                        if whole > last:
                            last = whole
                            note(last)
                except grpc.RpcError:
                    time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
