"""Reads a YAML file with one document of a given schema."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aurum.resilience import plain_yaml
from aurum.resilience.plain_yaml import Bounds, YamlError, at_line

OTHER = "*"  # stands for machine types and sites that a file does not name
_MOST = 10  # fields that an error names
_LONGEST = 300  # characters of the description of one field
_MESSAGES = {"extra_forbidden": "is not a field that there is here", "missing": "is missing"}
BOUNDS = Bounds(size=16 << 20, nodes=2_000_000)  # a gateway may list 100,000 registers

Document = TypeVar("Document", bound=BaseModel)


def read_yaml(path: Path, shape: type[Document], refused: type[Exception]) -> Document:
    """Reads and validates a document.

    Args:
        path: The file.
        shape: The model of the document.
        refused: The type of the error to raise.

    Raises:
        refused: The file is invalid. The message names the file, the fields and their lines. No other error is raised.
    """
    try:
        text = plain_yaml.read_text(path, BOUNDS)
    except YamlError as error:
        raise refused(f"{path} {error}") from error
    try:
        return shape.model_validate(plain_yaml.load(text, BOUNDS))
    except YamlError as error:
        raise refused(f"{path}: {error}") from error
    except ValidationError as error:
        errors = [_field_and_message(item) for item in error.errors()]
        # pydantic reports the parents of an invalid field too
        inner = [
            (loc, message)
            for loc, message in errors
            if not any(len(o) > len(loc) and o[: len(loc)] == loc for o, _ in errors)
        ][:_MOST]
        lines = plain_yaml.lines_of(text, [loc for loc, _ in inner], BOUNDS)
        wrong = [
            f"{'.'.join(map(str, loc)) or 'top'}: {message[:_LONGEST]}{at_line(line)}"
            for (loc, message), line in zip(inner, lines, strict=True)
        ]
        raise refused(f"{path}, {'; '.join(wrong)}") from error


def _field_and_message(item: ErrorDetails) -> tuple[tuple[int | str, ...], str]:
    """Returns the field of an error of pydantic, and what is wrong with it."""
    context = item.get("ctx", {})
    choices = str(context.get("expected_tags", "")).replace("'", "")
    field = str(context.get("discriminator", "")).strip("'")
    match item["type"]:
        case "union_tag_invalid":
            return (*item["loc"], field), f"is {context['tag']!r}; use one of {choices}"
        case "union_tag_not_found":
            return (*item["loc"], field), "is missing; it selects the other fields"
    return item["loc"], _MESSAGES.get(item["type"], item["msg"])
