"""A restricted YAML reader: plain data within bounds, safe for any text.

A plain scalar becomes null, a boolean or a number only where YAML 1.1 and the core schema of YAML 1.2 agree. Every
other scalar is a string, for example a date, `yes`, `1:30` or `1e3`. The schema that validates the document converts it
to the type of its field. Keys are strings, and duplicate keys are errors. Only the tags of strings, lists and mappings
are allowed. An alias counts as many nodes as the value that it refers to, and cannot be part of that value.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # only its events are used
_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_DECIMAL = re.compile(r"(?:[-+]?[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_LONGEST_NUMBER = 40  # characters; longer scalars are strings
_LONGEST_SHOWN = 60  # characters of a key or tag in an error
_TAG = "tag:yaml.org,2002:"
_MERGE: Final = object()

FieldPath = tuple[str | int, ...]


class YamlError(ValueError):
    """Raised for a text that cannot be read.

    Attributes:
        problem: What is wrong, without the place.
        field: Path of the invalid field, empty for the whole text.
        line: Line counted from 1, or 0 if unknown.
    """

    def __init__(self, problem: str, *, field: str = "", line: int = 0) -> None:
        place = f"{field}: " if field else ""
        super().__init__(f"{place}{problem}{at_line(line)}")
        self.problem = problem
        self.field = field
        self.line = line


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on the size of a text.

    Attributes:
        size: Bytes.
        nodes: Values and keys. The nodes behind an alias count each time that it is used.
        depth: Nesting of lists and mappings.
    """

    size: int = 1 << 20
    nodes: int = 300_000
    depth: int = 32


ONE_DOCUMENT: Final = Bounds()


def load(text: str, bounds: Bounds = ONE_DOCUMENT) -> Any:
    """Returns the data of a text with at most one document, or None for an empty text. Raises only YamlError."""
    reader = _Reader(text, bounds)
    reader.read()
    if len(reader.documents) > 1:
        raise YamlError("has more than one document", line=reader.begins[1])
    return reader.documents[0] if reader.documents else None


def load_all(text: str, bounds: Bounds = ONE_DOCUMENT) -> list[Any]:
    """Returns the data of all documents of a text. Raises only YamlError."""
    reader = _Reader(text, bounds)
    reader.read()
    return reader.documents


def read_text(path: Path, bounds: Bounds = ONE_DOCUMENT) -> str:
    """Returns the text of a file, reading no more than the bounds allow. Raises only YamlError."""
    try:
        with path.open("rb") as file:
            content = file.read(bounds.size + 1)
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror or error}") from error
    if len(content) > bounds.size:
        raise YamlError(f"is larger than {bounds.size} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise YamlError(f"is not UTF-8: {error.reason} at byte {error.start}") from error


def lines_of(text: str, paths: Sequence[Sequence[str | int]], bounds: Bounds = ONE_DOCUMENT) -> list[int]:
    """Returns the line of each field, or of its nearest parent in the text, or 0 if there is none.

    Parts of a path that are not in the text are skipped, such as the tags by which a schema distinguishes variants.
    """
    reader = _Reader(text, bounds, keep_lines=True)
    try:
        reader.read()
    except YamlError:
        return [0] * len(paths)
    lines = []
    for path in paths:
        known_path: FieldPath = ()
        for part in path:
            if (*known_path, part) in reader.lines:
                known_path = (*known_path, part)
        lines.append(reader.lines.get(known_path, 0))
    return lines


def shown_path(path: Sequence[str | int]) -> str:
    """Returns a path as errors show it, such as policies[0].timeout."""
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{_shortened(part)}" for part in path)
    return shown.lstrip(".")


def at_line(line: int) -> str:
    """Returns the end of an error message that names the line."""
    return f" (line {line})" if line else ""


@dataclass(slots=True)
class _Anchored:
    """A value that an alias may refer to. nodes: Its number of nodes. height: Its nesting depth."""

    value: Any
    nodes: int
    height: int


@dataclass(slots=True)
class _Open:
    """A list or mapping that has not ended yet.

    Attributes:
        began: Number of nodes before it.
        height: Nesting depth of its content so far.
        key: The key that waits for its value.
        lines: Lines of its keys.
        merged: Mappings merged with `<<`.
    """

    value: Any
    anchor: str | None
    began: int
    height: int = 1
    key: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    merged: list[dict[str, Any]] = field(default_factory=list)


class _Reader:
    """Builds data from the parser's events without recursion, so that nesting does not use up the stack."""

    def __init__(self, text: str, bounds: Bounds, *, keep_lines: bool = False) -> None:
        self.documents: list[Any] = []
        self.begins: list[int] = []
        self.lines: dict[FieldPath, int] = {}
        self._text = text
        self._bounds = bounds
        self._keep_lines = keep_lines
        self._open: list[_Open] = []
        self._anchors: dict[str, _Anchored] = {}
        self._nodes = 0
        self._line = 0

    def read(self) -> None:
        """Reads all documents. Raises only YamlError."""
        try:
            if len(self._text) > self._bounds.size or len(self._text.encode()) > self._bounds.size:
                raise YamlError(f"is larger than {self._bounds.size} bytes")
            for event in yaml.parse(self._text, Loader=_PARSER):
                self._line = event.start_mark.line + 1 if event.start_mark else self._line
                self._handle_event(event)
        except YamlError:
            raise
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = ", ".join(each for each in (error.context, error.problem) if each)
            raise self._not_yaml(problem, mark.line + 1 if mark else self._line) from error
        except Exception as error:  # a parser may raise anything for arbitrary text
            raise self._not_yaml(str(error) or type(error).__name__, self._line) from error

    def _not_yaml(self, problem: str, line: int) -> YamlError:
        return YamlError(f"is not YAML: {' '.join(problem.split())[:300]}", line=line)

    def _handle_event(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._begin_collection(event, {}, "map")
        elif isinstance(event, yaml.SequenceStartEvent):
            self._begin_collection(event, [], "seq")
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end_collection()
        elif isinstance(event, yaml.DocumentStartEvent):
            self.begins.append(self._line)
            self._anchors.clear()

    def _scalar(self, event: Any) -> None:
        if event.tag not in (None, "!", f"{_TAG}str"):
            raise self._error(f"has the tag {_shortened(event.tag)}, which is not allowed; remove it")
        text = event.value
        text.encode()  # raises an error for lone surrogates, which cannot be encoded
        self._count_nodes(1)
        plain = event.tag is None and event.implicit[0]
        if self._wants_key():
            self._key(text, plain=plain)
        else:
            self._append_value(_value(text) if plain else text, 1, 0, event.anchor)

    def _alias(self, event: Any) -> None:
        anchored = self._anchors.get(event.anchor)
        if anchored is None:
            raise self._error(f"*{_shortened(event.anchor)} stands for nothing that ends before it")
        if self._wants_key():
            raise self._error("a key cannot be an alias; write it out")
        self._count_nodes(anchored.nodes)
        self._check_depth(anchored.height)
        self._append_value(anchored.value, anchored.nodes, anchored.height, None)

    def _begin_collection(self, event: Any, value: Any, kind: str) -> None:
        if event.tag not in (None, "!", f"{_TAG}{kind}"):
            raise self._error(f"has the tag {_shortened(event.tag)}, which is not allowed; remove it")
        if self._wants_key():
            raise self._error("a key must be a word, not a list or mapping")
        self._check_depth(1)
        if self._keep_lines:
            self.lines.setdefault(self._path(), self._line)
        self._open.append(_Open(value, event.anchor, self._nodes))
        self._count_nodes(1)

    def _end_collection(self) -> None:
        ended = self._open.pop()
        for each in ended.merged:
            for key, value in each.items():
                ended.value.setdefault(key, value)
        self._append_value(ended.value, self._nodes - ended.began, ended.height, ended.anchor)

    def _wants_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is None

    def _key(self, text: str, *, plain: bool) -> None:
        around = self._open[-1]
        if text in around.lines:
            raise self._error(f"{_shortened(text)} is given twice, first in line {around.lines[text]}")
        around.lines[text] = self._line
        around.key = _MERGE if plain and text == "<<" else text
        if self._keep_lines:
            self.lines[self._path()] = self._line

    def _append_value(self, value: Any, nodes: int, height: int, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = _Anchored(value, nodes, height)
        if not self._open:
            self.documents.append(value)
            return
        around = self._open[-1]
        around.height = max(around.height, height + 1)
        if isinstance(around.value, list):
            if self._keep_lines:
                self.lines.setdefault(self._path(), self._line)
            around.value.append(value)
            return
        if around.key is _MERGE:
            parts = value if isinstance(value, list) else [value]
            if not all(isinstance(part, dict) for part in parts):
                raise self._error("<< takes mappings")
            around.merged.extend(parts)
        else:
            around.value[around.key] = value
        around.key = None

    def _count_nodes(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > self._bounds.nodes:
            raise self._error(f"has more than {self._bounds.nodes} values, those behind aliases counted each time")

    def _check_depth(self, height: int) -> None:
        if len(self._open) + height > self._bounds.depth:
            raise self._error(f"is nested more than {self._bounds.depth} deep")

    def _path(self) -> FieldPath:
        """The path of the next value."""
        parts = (len(each.value) if isinstance(each.value, list) else each.key for each in self._open)
        return tuple("<<" if part is _MERGE else part for part in parts if part is not None)

    def _error(self, problem: str) -> YamlError:
        return YamlError(problem, field=shown_path(self._path()), line=self._line)


def _value(text: str) -> Any:
    """Converts a plain scalar to its value."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _DECIMAL.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
