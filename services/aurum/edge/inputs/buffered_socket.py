"""A socket that is read, and on request written, in large pieces: an MQTT client wants a few bytes at a time, and each
question costs."""

import contextlib
import socket
import ssl
from collections.abc import Iterator

_PIECE = 65_536  # bytes


class BufferedSocket:
    """What paho wants of a socket (its SocketLike)."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self._data = b""
        self._at = 0
        self._together = False
        self._unsent = bytearray()

    def recv(self, size: int) -> bytes:
        """Raises BlockingIOError if nothing has come, as of a socket that does not block; b"" if nothing more will."""
        if self._at == len(self._data):
            self._data, self._at = b"", 0
            self._data = self._inner.recv(_PIECE)
        start, self._at = self._at, min(self._at + size, len(self._data))
        return self._data[start : self._at]

    def pending(self) -> int:
        """Bytes that have been read or decrypted, so that the file descriptor does not tell of them."""
        decrypted = self._inner.pending() if isinstance(self._inner, ssl.SSLSocket) else 0
        return len(self._data) - self._at + decrypted

    def send(self, data: bytes) -> int:
        """Raises BlockingIOError if it takes nothing now."""
        if self._together:
            self._unsent += data
            return len(data)
        if not self.flush():
            raise BlockingIOError
        return self._inner.send(data)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is sent in the block goes as one piece, when it ends; what does not, with `flush`."""
        self._together = True
        try:
            yield
        finally:
            self._together = False
            self.flush()

    def flush(self) -> bool:
        """Sends what is left of a piece; whether all of it could be."""
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
