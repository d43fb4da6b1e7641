"""When a broker's latest messages arrived, in a file that outlives the process.

A broker sends again what it does not know to have arrived. A reading is the same one if its time is the same, so such
a message keeps the time that it got when it came first: what had been stored already is not stored twice, also if it
tells no time itself and the gateway was killed in between. Nothing is synced, so a power cut may take it.
"""

import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

_NUMBERS = 65_536  # of messages, as MQTT has them; each has its place in the file
_PLACE = struct.Struct("<QqdI")  # order of arrival, when, skew, check


class Arrival(NamedTuple):
    """at_us: microseconds since the epoch. skew_us: that its device's clock was taken to be ahead; None: as it is
    estimated now."""

    at_us: int
    skew_us: float | None = None


class Arrivals:
    def __init__(self, path: Path, window: int) -> None:
        """window: messages that the broker has sent and not heard of at most; an older one was acknowledged, and its
        number is another message's. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = _PLACE.size * _NUMBERS
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(file, 0, size)  # a full disk is noticed now, not by a signal later
            self._places = mmap.mmap(file, size)
        finally:
            os.close(file)
        self._window = window
        self._order = max(order for order, *_ in _PLACE.iter_unpack(self._places))

    def first(self, number: int, topic: str, payload: bytes) -> Arrival | None:
        """When a message that comes again came first; None if nobody knows."""
        order, at_us, skew_us, check = _PLACE.unpack_from(self._places, number * _PLACE.size)
        if check != _check(topic, payload) or not order or self._order - order >= self._window:
            return None
        return Arrival(at_us, skew_us)

    def note(self, number: int, topic: str, payload: bytes, arrival: Arrival) -> None:
        self._order += 1
        _PLACE.pack_into(
            self._places,
            number * _PLACE.size,
            self._order,
            arrival.at_us,
            arrival.skew_us or 0.0,
            _check(topic, payload),
        )


def _check(topic: str, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(topic.encode()))
