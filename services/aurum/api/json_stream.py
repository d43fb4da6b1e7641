"""Parses a large JSON text value by value, so that only the current value is in memory as objects."""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

_BLOCK_BYTES = 16_384  # that are decoded at a time
_SPACE = re.compile(r"[ \t\n\r]*")


class JsonError(ValueError):
    """The text is not JSON, or one of its values is longer than allowed."""


class JsonStream:
    """A position in a JSON text.

    Args:
        text: The text in UTF-8.
        max_value_characters: Maximum length of a value that `value` reads.
        object_pairs_hook: Converts the name and value pairs of each JSON object in such a value.
    """

    def __init__(
        self,
        text: bytes | bytearray,
        max_value_characters: int,
        object_pairs_hook: Callable[[list[tuple[str, Any]]], Any],
    ) -> None:
        self._bytes = memoryview(text)
        self._max_value_characters = max_value_characters
        self._decoder = json.JSONDecoder(object_pairs_hook=object_pairs_hook)
        self._utf_8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._decoded = 0  # bytes
        self._buffer = ""
        self._position = 0  # in the buffer
        self._before = 0  # characters before the buffer

    def peek(self) -> str:
        """Returns the next character other than whitespace; empty at the end."""
        while True:  # _SPACE matches everywhere
            self._position = _SPACE.match(self._buffer, self._position).end()  # type: ignore[union-attr]
            if self._position < len(self._buffer) or not self._decode_block():
                return self._buffer[self._position : self._position + 1]

    def value(self) -> Any:
        """Reads a value. Raises JsonError."""
        self.peek()
        while len(self._buffer) - self._position <= self._max_value_characters and self._decode_block():
            pass
        try:
            value, end = self._decoder.raw_decode(self._buffer, self._position)
        except json.JSONDecodeError as error:
            if len(self._buffer) - self._position > self._max_value_characters:
                raise self._too_long() from error
            raise JsonError(f"{error.msg} at character {self._before + error.pos + 1}") from error
        except RecursionError as error:
            raise self._error("nested too deeply") from error
        except ValueError as error:  # Python refuses integers with more than 4,300 digits
            raise self._error("number with too many digits") from error
        if end - self._position > self._max_value_characters:
            raise self._too_long()
        self._position = end
        return value

    def members(self) -> Iterator[str]:
        """Yields the name of each field of an object. Read its value before the next name.

        Raises:
            JsonError: The text is not JSON.
        """
        for _ in self._items("{", "}"):
            if self.peek() != '"':
                raise self._error("name of a field expected")
            name = self.value()
            self._expect(":")
            yield name

    def elements(self) -> Iterator[None]:
        """Yields before each element of an array. Read the element before the next. Raises JsonError."""
        return self._items("[", "]")

    def end(self) -> None:
        """Checks that nothing but whitespace remains. Raises JsonError."""
        if self.peek():
            raise self._error("content after the end")

    def _items(self, begin: str, end: str) -> Iterator[None]:
        self._expect(begin)
        if self.peek() != end:
            yield
            while self.peek() == ",":
                self._expect(",")
                yield
        self._expect(end)

    def _expect(self, char: str) -> None:
        if self.peek() != char:
            raise self._error(f"{char} expected")
        self._position += 1

    def _decode_block(self) -> bool:
        """Decodes the next block. Returns False at the end of the text."""
        if self._decoded == len(self._bytes):
            return False
        block = self._bytes[self._decoded : self._decoded + _BLOCK_BYTES]
        self._decoded += len(block)
        try:
            text = self._utf_8.decode(block, final=self._decoded == len(self._bytes))
        except UnicodeDecodeError as error:
            raise JsonError("not UTF-8") from error
        self._buffer = self._buffer[self._position :] + text
        self._before += self._position
        self._position = 0
        return True

    def _too_long(self) -> JsonError:
        return self._error(f"value of more than {self._max_value_characters} characters")

    def _error(self, problem: str) -> JsonError:
        return JsonError(f"{problem} at character {self._before + self._position + 1}")
