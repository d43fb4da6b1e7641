"""A YAML file that holds one document of a given shape."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

_MOST = 10  # fields that a sentence names

Document = TypeVar("Document", bound=BaseModel)


def read_yaml(path: Path, shape: type[Document], refused: type[Exception]) -> Document:
    """Raises `refused` with a sentence that names the file and the fields."""
    try:
        return shape.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise refused(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise refused(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        found = [(each["loc"], each["msg"]) for each in error.errors()]
        # What is wrong inside something makes pydantic find that wrong too
        inner = [
            (loc, told) for loc, told in found if not any(len(o) > len(loc) and o[: len(loc)] == loc for o, _ in found)
        ]
        wrong = [f"{'.'.join(map(str, loc)) or 'top'}: {told}" for loc, told in inner[:_MOST]]
        raise refused(f"{path}, {'; '.join(wrong)}") from error
