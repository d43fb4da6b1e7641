"""A device that runs as a process: sends numbered batches and records the acknowledged ones in a synced ledger.

    python -m tests.support.device ADDRESS SOURCE LEDGER PAUSE

After a restart it continues after the last batch in its ledger, so it may send some again. Every tenth stream repeats
acknowledged batches, and some groups are sent in another order.
"""

import contextlib
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import grpc
import numpy as np

from aurum.readings.batch import Series, encode
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

READINGS = 3  # of a batch


def batch(source: str, start_us: int, sequence: int) -> ingestion_pb2.Batch:
    """Returns a batch of three readings whose value is the sequence."""
    at = start_us + sequence * 1000 + np.arange(READINGS)
    return encode(source, sequence, [Series("ledger", source, at, np.full(READINGS, float(sequence)))])


def last_acknowledged(ledger: Path) -> tuple[int, int]:
    """Returns the time of the first batch in µs, and the sequence up to which all are acknowledged."""
    if not ledger.exists() or not (lines := [line for line in ledger.read_text().split("\n") if line.endswith(".")]):
        return 0, 0
    start, *numbers = (int(line[:-1]) for line in lines)
    return start, numbers[-1] if numbers else 0


def main(address: str, source: str, ledger: Path, pause: float) -> None:
    """Sends batches until killed, with `pause` seconds between two of them."""
    start_us, last = last_acknowledged(ledger)
    chance = random.Random(source)
    with ledger.open("a") as ledger_file:
        if not start_us:
            start_us = int(time.time() * 1e6)
            _append(ledger_file, start_us)
        streams = 0
        while True:
            streams += 1
            base = max(0, last - 20) if streams % 10 == 0 else last  # repeated batches must change nothing
            requests = _requests(source, start_us, base, chance, pause)
            with grpc.insecure_channel(address) as channel, contextlib.suppress(grpc.RpcError):
                stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
                for response in stub.Ingest(requests, timeout=30):
                    # The order within a group of five may differ, so only whole groups count
                    whole = base + response.acknowledged // 5 * 5
                    if whole > last:
                        last = whole
                        _append(ledger_file, last)
            time.sleep(0.05)


def _append(ledger_file: TextIO, number: int) -> None:
    ledger_file.write(f"{number}.\n")
    ledger_file.flush()
    os.fsync(ledger_file.fileno())


def _requests(
    source: str, start_us: int, base: int, chance: random.Random, pause: float
) -> Iterator[ingestion_pb2.IngestRequest]:
    sequence = base
    while True:
        group = list(range(sequence + 1, sequence + 6))
        if chance.random() < 0.1:
            chance.shuffle(group)
        for number in group:
            yield ingestion_pb2.IngestRequest(batch=batch(source, start_us, number))
            time.sleep(pause)
        sequence += 5


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
