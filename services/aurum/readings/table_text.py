"""Reads the text of tables as other programs write it: compressed or not, in UTF-8, UTF-16 or Windows-1252.

The text is read in parts, so that the memory does not depend on the size of the table.
"""

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

PARQUET = frozenset({".parquet", ".pq"})  # names of tables that are no text
_PART = 65_536  # bytes
_MAX_LINE = 4_000_000  # characters; a longer line is passed on in parts, for the reader to refuse
_GZIP = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # the longer ones first, since a mark of UTF-32 begins with one of UTF-16
_NAMES = {"utf-8-sig": "UTF-8", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "cp1252": "Windows-1252"}


class TextError(ValueError):
    """The content is not text in the declared or recognised encoding, or is damaged. The message says which.

    Attributes:
        before: The text between the part that was returned last and the mistake.
    """

    def __init__(self, message: str, before: str = "") -> None:
        super().__init__(message)
        self.before = before


class _Decoder(Protocol):
    @property
    def name(self) -> str: ...

    def decode(self, part: bytes, final: bool) -> str: ...


class TableText:
    """The lines of a table. The encoding is the declared one, or recognised by these rules.

    A byte order mark, or bytes that are zero in every second place, tell the encoding. Otherwise it is UTF-8, or
    Windows-1252 if a byte is not UTF-8 and everything before was ASCII.

    Args:
        content: The bytes.
        encoding: The declared encoding; None to recognise it.
        max_bytes: The greatest size of the decompressed content; None for no limit.
        decompress: Whether content that is compressed with gzip is decompressed.
    """

    def __init__(
        self,
        content: io.BufferedReader,
        encoding: str | None = None,
        max_bytes: int | None = None,
        *,
        decompress: bool = True,
    ) -> None:
        self.compressed = decompress and content.peek(2)[:2] == _GZIP
        self._source = content
        self._content: BinaryIO = cast(BinaryIO, gzip.GzipFile(fileobj=content)) if self.compressed else content
        self._max_bytes = max_bytes
        self._declared = encoding
        self._decoder: _Decoder | None = None
        self._read = 0

    @property
    def encoding(self) -> str:
        """The name of the encoding, as far as it has been recognised."""
        return "" if self._decoder is None else self._decoder.name

    @property
    def position(self) -> int:
        """The position in the content, in bytes before decompression; 0 in a pipe."""
        return self._source.tell() if self._source.seekable() else 0

    def parts(self) -> Iterator[str]:
        """Yields the text in parts. Raises TextError."""
        while True:
            part = self._next_bytes()
            if self._decoder is None:
                self._decoder = _decoder_of(self._declared or _recognised(part))
                yield self._decoder.decode(part, not part).removeprefix("\ufeff")
            else:
                yield self._decoder.decode(part, not part)
            if not part:
                return

    def __iter__(self) -> Iterator[str]:
        """Yields the lines with their ends. Raises TextError."""
        rest = ""
        try:
            for part in self.parts():
                *lines, rest = io.StringIO(rest + part, newline="") if rest or part else ("",)
                yield from lines
                if rest.endswith("\n") or len(rest) > _MAX_LINE:
                    yield rest
                    rest = ""
        except TextError as error:
            yield from list(io.StringIO(rest + error.before, newline=""))[:-1]
            raise
        if rest:
            yield rest

    def _next_bytes(self) -> bytes:
        try:
            part = self._content.read(_PART)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TextError(f"the gzip compression is damaged: {error}") from error
        self._read += len(part)
        if self._max_bytes is not None and self._read > self._max_bytes:
            raise TextError(f"has more than {self._max_bytes} bytes{' decompressed' if self.compressed else ''}")
        return part


class _OneEncoding:
    """Decodes a declared encoding, or one that the first bytes tell."""

    def __init__(self, encoding: str) -> None:
        self.name = _NAMES.get(encoding, encoding.upper())
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def decode(self, part: bytes, final: bool) -> str:
        """Returns the text of the next bytes. Raises TextError."""
        try:
            return self._decoder.decode(part, final)
        except UnicodeDecodeError as error:
            raise _not_text(error, f"is not {self.name} text") from error


class _Utf8OrWindows:
    """Decodes UTF-8, or Windows-1252 from the first byte on that is not UTF-8."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._beyond_ascii = False
        self._windows: codecs.IncrementalDecoder | None = None

    @property
    def name(self) -> str:
        """The encoding so far."""
        return "UTF-8" if self._windows is None else "Windows-1252"

    def decode(self, part: bytes, final: bool) -> str:
        """Returns the text of the next bytes. Raises TextError."""
        if self._windows is not None:
            return self._decode_windows(self._windows, part, final)
        held = self._utf8.getstate()[0]
        try:
            text = self._utf8.decode(part, final)
        except UnicodeDecodeError as error:
            if self._beyond_ascii or not error.object[: error.start].isascii():
                raise _not_text(error, "is not UTF-8 text, as the rows before") from error
            self._windows = codecs.getincrementaldecoder("cp1252")()
            return self._decode_windows(self._windows, held + part, final)
        self._beyond_ascii = self._beyond_ascii or not text.isascii()
        return text

    @staticmethod
    def _decode_windows(decoder: codecs.IncrementalDecoder, part: bytes, final: bool) -> str:
        try:
            return decoder.decode(part, final)
        except UnicodeDecodeError as error:
            raise _not_text(error, "is neither UTF-8, UTF-16 nor Windows-1252 text") from error


def _not_text(error: UnicodeDecodeError, problem: str) -> TextError:
    before = error.object[: error.start].decode(error.encoding, errors="replace")
    wrong = error.object[error.start : error.start + 1].hex()
    return TextError(f"{problem} (byte 0x{wrong}); declare its encoding", before)


def _decoder_of(encoding: str) -> _Decoder:
    return _OneEncoding(encoding) if encoding else _Utf8OrWindows()


@contextlib.contextmanager
def open_table(path: Path, encoding: str | None = None, max_bytes: int | None = None) -> Generator[TableText]:
    """Opens the text of a table. The arguments are those of TableText. Raises OSError."""
    with path.open("rb") as content:
        yield TableText(content, encoding, max_bytes)


def text_encoding_problem(name: str) -> str | None:
    """Returns what is wrong with the name of a text encoding, or None."""
    try:
        b" ".decode(name, "replace")
    except (LookupError, ValueError):
        return f"{name[:40]!r} is not a text encoding; use one such as utf-8, utf-16 or windows-1252"
    return None


def _recognised(start: bytes) -> str:
    """Returns the encoding that the first bytes of a text tell; empty if they do not."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    head = start[:1000]
    for first, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = head[first::2], head[1 - first :: 2]
        if len(head) > 3 and zeros.count(0) > 0.9 * len(zeros) and not others.count(0):
            return name
    return ""
