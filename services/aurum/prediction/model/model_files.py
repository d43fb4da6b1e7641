"""Models on disk in DIR/<machine type>/<version>/, and the file that states which of them serve."""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aurum.prediction.model.card import READABLE_FORMATS
from aurum.prediction.model.model import CARD, CARD_CHECKSUM, CorruptModelError, unreadable_file_error
from aurum.storage.durable_file import write_file

ACTIVE = "active.json"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Serving:
    """The versions that serve one machine type.

    Attributes:
        version: The champion, which answers requests.
        previous: The champion before this one.
        shadow: The shadow model. It scores the same requests; its results are recorded but not returned.
        forced: Whether the champion was activated by force although it has no skill.
    """

    version: str
    previous: str | None = None
    shadow: str | None = None
    forced: bool = False


def write_model(root: Path, machine_type: str, version: str, files: Mapping[str, str]) -> Path:
    """Writes a model below `root` atomically and returns its folder. Raises FileExistsError if it exists."""
    folder = root / machine_type / version
    if folder.exists():
        raise FileExistsError(errno.EEXIST, "the model exists already and is not replaced", str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        half = Path(scratch) / version
        half.mkdir()
        checksum = hashlib.sha256(files[CARD].encode()).hexdigest()
        for name, content in {**files, CARD_CHECKSUM: f"{checksum}  {CARD}\n"}.items():
            (half / name).write_text(content, encoding="utf-8")
        os.replace(half, folder)
    return folder


def read_serving(root: Path, machine_type: str) -> Serving | None:
    """Reads which versions serve a type; None if none do. Raises CorruptModelError, which names the file."""
    path = root / machine_type / ACTIVE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        serving = Serving(
            content["version"], content.get("previous"), content.get("shadow"), content.get("forced") is True
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable_file_error(path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptModelError(f"{path} is not readable: {error}; remove it or train again") from error
    others = [each for each in (serving.previous, serving.shadow) if each is not None]
    for version in (serving.version, *others):
        if not (isinstance(version, str) and _VERSION.fullmatch(version)):
            raise CorruptModelError(f"{path} contains an invalid version: {version!r}; remove it or train again")
    return serving


def write_serving(root: Path, machine_type: str, serving: Serving) -> None:
    """Replaces atomically which versions serve a type. Raises OSError."""
    content = asdict(serving)
    if not serving.forced:
        del content["forced"]  # earlier versions do not know it
    write_file(root / machine_type / ACTIVE, (json.dumps(content) + "\n").encode())


def make_champion(root: Path, machine_type: str, version: str, *, forced: bool = False) -> None:
    """Makes a version the champion of a machine type.

    The last champion becomes the previous one. If the version was the shadow model, there is none afterwards.

    Args:
        root: The folder of the models.
        machine_type: The machine type.
        version: The version.
        forced: Whether it is activated although it has no skill. What a model has no skill for is served only then.

    Raises:
        CorruptModelError: The file that states the serving versions is unreadable.
        OSError: The file cannot be written.
    """
    serving = read_serving(root, machine_type)
    if serving is None:
        write_serving(root, machine_type, Serving(version, forced=forced))
    elif serving.version != version:
        write_serving(root, machine_type, succeeded(serving, version, forced=forced))
    elif serving.forced != forced:
        write_serving(root, machine_type, replace(serving, forced=forced))


def succeeded(serving: Serving, version: str, *, forced: bool) -> Serving:
    """Returns which versions serve after another one has become the champion."""
    shadow = None if serving.shadow == version else serving.shadow
    return Serving(version, serving.version, shadow, forced)


def has_current_model(root: Path, machine_type: str) -> bool:
    """Whether a type has a champion that this version can read. Raises CorruptModelError."""
    serving = read_serving(root, machine_type)
    if serving is None:
        return False
    try:
        card = json.loads((root / machine_type / serving.version / CARD).read_text(encoding="utf-8"))
        return bool(card.get("format") in READABLE_FORMATS)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise CorruptModelError(
            f"the card of model {machine_type} {serving.version} is not readable: {error}"
        ) from error
