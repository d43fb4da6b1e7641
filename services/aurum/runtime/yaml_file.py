"""A YAML file that holds one document of a given shape."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from aurum.resilience import plain_yaml
from aurum.resilience.plain_yaml import Bounds, YamlError, at_line

_MOST = 10  # fields that a sentence names
_LONGEST = 300  # characters of what is wrong with one
_BOUNDS = Bounds(size=16 << 20, nodes=2_000_000)  # a gateway may list 100,000 registers

Document = TypeVar("Document", bound=BaseModel)


def read_yaml(path: Path, shape: type[Document], refused: type[Exception]) -> Document:
    """Raises `refused`, and nothing else, with a sentence that names the file, the fields and their lines."""
    try:
        text = plain_yaml.read_text(path, _BOUNDS)
    except YamlError as error:
        raise refused(f"{path} {error}") from error
    try:
        return shape.model_validate(plain_yaml.load(text, _BOUNDS))
    except YamlError as error:
        raise refused(f"{path}: {error}") from error
    except ValidationError as error:
        found = [(each["loc"], each["msg"]) for each in error.errors()]
        # What is wrong inside something makes pydantic find that wrong too
        inner = [
            (loc, told) for loc, told in found if not any(len(o) > len(loc) and o[: len(loc)] == loc for o, _ in found)
        ][:_MOST]
        lines = plain_yaml.lines_of(text, [loc for loc, _ in inner], _BOUNDS)
        wrong = [
            f"{'.'.join(map(str, loc)) or 'top'}: {told[:_LONGEST]}{at_line(line)}"
            for (loc, told), line in zip(inner, lines, strict=True)
        ]
        raise refused(f"{path}, {'; '.join(wrong)}") from error
