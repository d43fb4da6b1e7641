"""The models on disk: DIR/<machine type>/<version>/, and which version serves each type."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from aurum.prediction.card import ModelCard
from aurum.prediction.model import CARD, CorruptModelError, Model, load_model
from aurum.prediction.training import activate
from aurum.runtime.errors import FailedPreconditionError, NotFoundError

logger = logging.getLogger(__name__)

_MOST_LISTED = 1000


@dataclass(frozen=True, slots=True)
class ModelEntry:
    card: ModelCard
    active: bool


class ModelRegistry:
    """Holds the active model of each machine type in memory; the others stay on disk."""

    def __init__(self, root: Path) -> None:
        """Raises CorruptModelError if an active model cannot be loaded."""
        self._root = root
        self._active: dict[str, Model] = {}
        self._seen: dict[str, int] = {}  # machine type → when its active.json was written
        for machine_type, stamp in self._stamps().items():
            self._active[machine_type] = load_model(self._folder(machine_type))
            self._seen[machine_type] = stamp

    def active(self, machine_type: str) -> Model | None:
        """The model that serves a type."""
        return self._active.get(machine_type)

    @property
    def types(self) -> list[str]:
        return sorted(self._active)

    def refresh(self) -> list[Model]:
        """Loads what became active on disk since the last look; one that cannot be loaded leaves the last in place."""
        loaded = []
        for machine_type, stamp in self._stamps().items():
            if self._seen.get(machine_type) == stamp:
                continue
            self._seen[machine_type] = stamp
            try:
                model = load_model(self._folder(machine_type))
            except CorruptModelError as error:
                logger.error("a new model was not taken, the last one stays: %s", error)
                continue
            self._active[machine_type] = model
            loaded.append(model)
        return loaded

    def get(self, machine_type: str, version: str) -> ModelEntry:
        """Raises NotFoundError."""
        active = self._active.get(machine_type)
        if active is not None and version in ("", active.card.version):
            return ModelEntry(active.card, True)
        for entry in self.list():
            if entry.card.machine_type == machine_type and entry.card.version == version:
                return entry
        raise NotFoundError(
            f"there is no model {f'version {version} ' if version else ''}for machine type {machine_type!r}",
            reason="MODEL_NOT_FOUND",
        )

    def list(self) -> list[ModelEntry]:
        """All models that can be read, by type and version."""
        entries = []
        for path in sorted(self._root.glob(f"*/*/{CARD}"))[:_MOST_LISTED]:
            try:
                card = ModelCard.model_validate_json(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                logger.error("%s is not a model card: %s", path, error)
                continue
            active = self._active.get(card.machine_type)
            entries.append(ModelEntry(card, active is not None and active.card.version == card.version))
        return entries

    def activate(self, machine_type: str, version: str) -> ModelEntry:
        """Makes a version serve its type. Raises NotFoundError, or FailedPreconditionError if it cannot be loaded."""
        entry = self.get(machine_type, version)
        try:
            model = load_model(self._root / machine_type / entry.card.version)
        except CorruptModelError as error:
            raise FailedPreconditionError(str(error), reason="CORRUPT_MODEL") from error
        activate(self._root, machine_type, entry.card.version)
        self._active[machine_type] = model
        self._seen[machine_type] = self._stamps()[machine_type]
        return ModelEntry(model.card, True)

    def _stamps(self) -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in self._root.glob("*/active.json")}

    def _folder(self, machine_type: str) -> Path:
        path = self._root / machine_type / "active.json"
        try:
            version = json.loads(path.read_text(encoding="utf-8"))["version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptModelError(f"{path} is not readable: {error}; remove it or train again") from error
        if not isinstance(version, str) or "/" in version or version.startswith("."):
            raise CorruptModelError(f"{path} names no version: {version!r}; remove it or train again")
        return self._root / machine_type / version
