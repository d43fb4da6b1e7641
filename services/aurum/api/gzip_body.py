"""Decompresses request bodies in parts, so that a small body that becomes a huge one does not fill the memory."""

import zlib

from aurum.runtime.errors import InvalidArgumentError

_PART = 65_536  # bytes that are decompressed at a time
_GZIP = 31  # zlib's number for a gzip header and the largest window


class GzipBody:
    """The parts of a body that is compressed with gzip.

    Attributes:
        ended: Whether all of the compressed body has been fed.
    """

    def __init__(self) -> None:
        self.ended = False
        self._compressed = b""
        self._stream = zlib.decompressobj(_GZIP)
        self._begun = False

    def feed(self, compressed: bytes, *, more: bool) -> None:
        """Takes the next bytes, after `next_part` has returned all parts of those before."""
        self._compressed += compressed
        self.ended = not more

    def next_part(self) -> bytes:
        """Returns the next part; empty if more bytes are needed. Raises InvalidArgumentError if it is damaged."""
        part = b""
        try:
            while not part and self._compressed:
                if self._stream.eof:  # another member follows
                    self._stream = zlib.decompressobj(_GZIP)
                self._begun = True
                part = self._stream.decompress(self._compressed, _PART)
                self._compressed = self._stream.unconsumed_tail or self._stream.unused_data
        except zlib.error as error:
            raise InvalidArgumentError.for_field("body", f"is not compressed with gzip: {error}") from error
        if not part and self.ended and not self._stream.eof:
            problem = "ends within its gzip compression" if self._begun else "is empty instead of compressed with gzip"
            raise InvalidArgumentError.for_field("body", problem)
        return part
