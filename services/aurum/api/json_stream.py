"""Reads a large JSON text value by value, so that only the value at hand is in memory as objects."""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

_BLOCK = 16_384  # bytes that are decoded at a time
_SPACE = re.compile(r"[ \t\n\r]*")


class JsonError(ValueError):
    """The text is not JSON, or one of its values is longer than allowed."""


class JsonStream:
    """A position in a JSON text.

    Args:
        text: The text in UTF-8.
        longest: Maximum number of characters of a value that is read at once.
        hook: Makes the object of the pairs of each JSON object in such a value.
    """

    def __init__(self, text: bytes | bytearray, longest: int, hook: Callable[[list[tuple[str, Any]]], Any]) -> None:
        self._bytes = memoryview(text)
        self._longest = longest
        self._decoder = json.JSONDecoder(object_pairs_hook=hook)
        self._utf_8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._taken = 0  # decoded bytes
        self._buffer = ""
        self._at = 0  # position in the buffer
        self._passed = 0  # characters before the buffer

    def peek(self) -> str:
        """Returns the next character that is no space; empty at the end."""
        while True:
            self._at = _SPACE.match(self._buffer, self._at).end()  # type: ignore[union-attr] # matches everywhere
            if self._at < len(self._buffer) or not self._more():
                return self._buffer[self._at : self._at + 1]

    def value(self) -> Any:
        """Reads a value. Raises JsonError."""
        self.peek()
        while len(self._buffer) - self._at <= self._longest and self._more():
            pass
        try:
            value, end = self._decoder.raw_decode(self._buffer, self._at)
        except json.JSONDecodeError as error:
            if len(self._buffer) - self._at > self._longest:
                raise self._too_long() from error
            raise JsonError(f"{error.msg} at character {self._passed + error.pos + 1}") from error
        except RecursionError as error:
            raise self._error("it is nested too deeply") from error
        except ValueError as error:  # Python refuses integers with more than 4,300 digits
            raise self._error("a number has too many digits") from error
        if end - self._at > self._longest:
            raise self._too_long()
        self._at = end
        return value

    def members(self) -> Iterator[str]:
        """Reads an object: yields the name of each field, whose value has to be read before the next.

        Raises JsonError.
        """
        for _ in self._list("{", "}"):
            if self.peek() != '"':
                raise self._error("the name of a field is missing")
            name = self.value()
            self._take(":")
            yield name

    def elements(self) -> Iterator[None]:
        """Reads an array: yields before each element, which has to be read before the next. Raises JsonError."""
        return self._list("[", "]")

    def end(self) -> None:
        """Raises JsonError unless the whole text has been read."""
        if self.peek():
            raise self._error("there is more after its end")

    def _list(self, begin: str, end: str) -> Iterator[None]:
        self._take(begin)
        if self.peek() != end:
            yield
            while self.peek() == ",":
                self._take(",")
                yield
        self._take(end)

    def _take(self, char: str) -> None:
        if self.peek() != char:
            raise self._error(f"{char} is missing")
        self._at += 1

    def _more(self) -> bool:
        """Decodes the next block. Returns whether there was one."""
        if self._taken == len(self._bytes):
            return False
        block = self._bytes[self._taken : self._taken + _BLOCK]
        self._taken += len(block)
        try:
            text = self._utf_8.decode(block, final=self._taken == len(self._bytes))
        except UnicodeDecodeError as error:
            raise JsonError("it is not UTF-8") from error
        self._buffer = self._buffer[self._at :] + text
        self._passed += self._at
        self._at = 0
        return True

    def _too_long(self) -> JsonError:
        return self._error(f"a value has more than {self._longest} characters")

    def _error(self, problem: str) -> JsonError:
        return JsonError(f"{problem} at character {self._passed + self._at + 1}")
