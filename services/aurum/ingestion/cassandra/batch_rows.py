"""Batches as rows in Cassandra: the message, compressed, and which machines it has."""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard

from aurum.ingestion.cassandra.schema import machine_hash
from aurum.readings.batch import Batch
from aurum.readings.batch_decoding import decode
from aurum.runtime.errors import InvalidArgumentError
from aurum.storage.frames import decompress
from aurum.storage.ranks import Rank

_END_OF_TIME = 2**61  # µs
_local = threading.local()


class CorruptBatchError(Exception):
    """The bytes of a row are not a batch, or are damaged."""


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch that is in a slot, with its rank."""

    slot: int
    batch: Batch
    rank: Rank


def encode_members(machine_ids: tuple[str, ...]) -> bytes:
    """Returns what says which machines a row has."""
    hashes = np.fromiter(map(machine_hash, machine_ids), "<u4", len(machine_ids))
    hashes.sort()
    return hashes.tobytes()


def may_have(members: bytes, machine_id: str) -> bool:
    """Returns whether a row may have readings of a machine."""
    hashes, wanted = np.frombuffer(members, "<u4"), machine_hash(machine_id)
    place = int(np.searchsorted(hashes, wanted))
    return place < len(hashes) and int(hashes[place]) == wanted


def encode_batch(batch: Batch) -> bytes:
    """Returns the message of a batch, compressed."""
    if not hasattr(_local, "compressor"):
        # The checksum is verified when the frame is decompressed
        _local.compressor = zstandard.ZstdCompressor(level=1, write_content_size=True, write_checksum=True)
    data: bytes = _local.compressor.compress(batch.data)
    return data


def decode_batch(slot: int, row: Any) -> StoredBatch:
    """Returns the batch of a row. Raises CorruptBatchError."""
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    try:
        # It was checked when it was accepted, so its times may be ahead of this clock
        batch = decode(decompress(_local.decompressor, row.data), now=_END_OF_TIME)
    except (zstandard.ZstdError, MemoryError, InvalidArgumentError) as error:
        raise CorruptBatchError(str(error)) from error
    if (batch.source_id, batch.sequence) != (row.source, row.sequence):
        raise CorruptBatchError(f"it is batch {batch.sequence} of source {batch.source_id}")
    return StoredBatch(slot, batch, (row.source_us, row.source, row.sequence))
