"""A YAML file that holds one document of a given shape."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

Document = TypeVar("Document", bound=BaseModel)


def read_yaml(path: Path, shape: type[Document], refused: type[Exception]) -> Document:
    """Raises `refused` with a sentence that names the file and the field."""
    try:
        return shape.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise refused(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise refused(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise refused(f"{path}, {'.'.join(map(str, first['loc'])) or 'top'}: {first['msg']}") from error
