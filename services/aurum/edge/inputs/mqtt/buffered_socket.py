"""A socket with buffered reads and, on request, buffered writes.

An MQTT client reads a few bytes at a time, and each system call costs.
"""

import contextlib
import socket
import ssl
from collections.abc import Iterator

_PIECE = 65_536  # bytes


class BufferedSocket:
    """A buffered socket with the interface that paho requires (its SocketLike)."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self._data = b""
        self._at = 0
        self._together = False
        self._unsent = bytearray()

    def recv(self, size: int) -> bytes:
        """Returns up to `size` bytes; b"" at the end of the stream. Raises BlockingIOError if none have arrived."""
        if self._at == len(self._data):
            self._data, self._at = b"", 0
            self._data = self._inner.recv(_PIECE)
        start, self._at = self._at, min(self._at + size, len(self._data))
        return self._data[start : self._at]

    def pending(self) -> int:
        """Returns how many bytes are buffered or decrypted. These do not make the file descriptor readable."""
        decrypted = self._inner.pending() if isinstance(self._inner, ssl.SSLSocket) else 0
        return len(self._data) - self._at + decrypted

    def send(self, data: bytes) -> int:
        """Sends data. Raises BlockingIOError if the socket accepts none now."""
        if self._together:
            self._unsent += data
            return len(data)
        if not self.flush():
            raise BlockingIOError
        return self._inner.send(data)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Sends everything in the block as one piece when it ends. `flush` sends what remains."""
        self._together = True
        try:
            yield
        finally:
            self._together = False
            self.flush()

    def flush(self) -> bool:
        """Sends the remaining data. Returns whether all of it was sent."""
        with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
            while self._unsent:
                del self._unsent[: self._inner.send(self._unsent)]
        return not self._unsent

    def fileno(self) -> int:
        return self._inner.fileno()

    def setblocking(self, flag: bool) -> None:
        self._inner.setblocking(flag)

    def close(self) -> None:
        self._inner.close()
