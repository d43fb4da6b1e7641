"""The arrival times of a broker's latest messages, in a file that survives a restart.

A broker sends a message again until it is acknowledged. A repeated message keeps the time of its first
arrival, so its readings have the same times and are recognised as already stored. This also holds if the message has
no time and the gateway was killed in between. The file is not synced, so a power cut may lose times.
"""

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from aurum.edge.inputs.common.mapped_file import open_mapped_file

_SLOT_COUNT = 65_536  # one for each MQTT packet identifier
_SLOT = struct.Struct("<QqdI")  # order of arrival, time, skew, checksum


class Arrival(NamedTuple):
    """The first arrival of a message.

    Attributes:
        at_us: The time in µs since the epoch.
        skew_us: The µs by which its device's clock was estimated to be ahead; None to use the present estimate.
    """

    at_us: int
    skew_us: float | None = None


class RedeliveryCache:
    """The first arrival of each message that the broker may send again."""

    def __init__(self, path: Path, window: int) -> None:
        """Opens or creates the file.

        Args:
            path: The file.
            window: The greatest number of messages that the broker has sent without an acknowledgement. An older
                message was acknowledged, so its number now belongs to another message.

        Raises:
            OSError: If the file cannot be created.
        """
        self._slots = open_mapped_file(path, _SLOT.size * _SLOT_COUNT)
        self._window = window
        self._order = max(order for order, *_ in _SLOT.iter_unpack(self._slots))

    def first_arrival(self, number: int, topic: str, payload: bytes) -> Arrival | None:
        """Returns the first arrival of a repeated message; None if it is unknown."""
        order, at_us, skew_us, checksum = _SLOT.unpack_from(self._slots, number * _SLOT.size)
        if checksum != _checksum(topic, payload) or not order or self._order - order >= self._window:
            return None
        return Arrival(at_us, skew_us)

    def record_arrival(self, number: int, topic: str, payload: bytes, arrival: Arrival) -> None:
        """Records the first arrival of a message with the packet identifier `number`."""
        self._order += 1
        _SLOT.pack_into(
            self._slots,
            number * _SLOT.size,
            self._order,
            arrival.at_us,
            arrival.skew_us or 0.0,
            _checksum(topic, payload),
        )


def _checksum(topic: str, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(topic.encode()))
