"""Which retained messages were stored, in a file that survives a restart of the gateway.

A broker sends the retained message of a topic at each new subscription. The latest one of each topic is remembered; two
topics may share a place in the file, and then the earlier one is forgotten. A forgotten message is stored again under
its own time, so it is the same reading. The file is therefore neither synced nor larger than it is now.
"""

import hashlib
from pathlib import Path

from aurum.edge.inputs.common.mapped_file import open_mapped_file
from aurum.edge.inputs.mqtt.connection import Message

_PLACES = 262_144  # 2 MB
_DIGEST_SIZE = 8  # bytes


class RetainedLog:
    """The latest stored retained message of each topic, as digests."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises OSError if it cannot be created."""
        self._digests = open_mapped_file(path, _PLACES * _DIGEST_SIZE)

    def __contains__(self, message: Message) -> bool:
        """Returns whether a message is the latest one that was stored of its topic."""
        place, digest = _place_and_digest(message)
        return self._digests[place : place + _DIGEST_SIZE] == digest

    def record(self, message: Message) -> None:
        """Records that a message is stored."""
        place, digest = _place_and_digest(message)
        self._digests[place : place + _DIGEST_SIZE] = digest


def _place_and_digest(message: Message) -> tuple[int, bytes]:
    topic = hashlib.blake2b(message.topic.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_SIZE).digest()
    digest = hashlib.blake2b(message.payload, digest_size=_DIGEST_SIZE, key=topic).digest()
    return int.from_bytes(topic, "little") % _PLACES * _DIGEST_SIZE, digest
