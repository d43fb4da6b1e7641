"""A socket with buffered reads and, on request, buffered writes.

An MQTT client reads a few bytes at a time, and each of them would be a system call.
"""

import contextlib
import socket
import ssl
from collections.abc import Iterator

_CHUNK = 65_536  # bytes


class BufferedSocket:
    """A buffered socket with the interface that paho requires (its SocketLike)."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self._data = b""
        self._position = 0
        self._batching = False
        self._unsent = bytearray()

    def recv(self, size: int) -> bytes:
        """Returns up to `size` bytes; b"" at the end of the stream. Raises BlockingIOError if none have arrived."""
        if self._position == len(self._data):
            self._data, self._position = b"", 0
            self._data = self._inner.recv(_CHUNK)
        start, self._position = self._position, min(self._position + size, len(self._data))
        return self._data[start : self._position]

    def pending(self) -> int:
        """Returns how many bytes are buffered or decrypted. These do not make the file descriptor readable."""
        decrypted = self._inner.pending() if isinstance(self._inner, ssl.SSLSocket) else 0
        return len(self._data) - self._position + decrypted

    def send(self, data: bytes) -> int:
        """Sends data. Raises BlockingIOError if the socket accepts none now."""
        if self._batching:
            self._unsent += data
            return len(data)
        if not self.flush():
            raise BlockingIOError
        return self._inner.send(data)

    @contextlib.contextmanager
    def batched_sends(self) -> Iterator[None]:
        """Collects the data that is sent in the block, and sends it at the end. `flush` sends the rest later."""
        self._batching = True
        try:
            yield
        finally:
            self._batching = False
            self.flush()

    def flush(self) -> bool:
        """Sends the remaining data. Returns whether all of it was sent."""
        with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
            while self._unsent:
                del self._unsent[: self._inner.send(self._unsent)]
        return not self._unsent

    def fileno(self) -> int:
        """Returns the file descriptor of the socket."""
        return self._inner.fileno()

    def setblocking(self, flag: bool) -> None:
        """Sets whether the socket blocks."""
        self._inner.setblocking(flag)

    def close(self) -> None:
        """Closes the socket. Data that is not sent yet is lost."""
        self._inner.close()
