"""The registry of models: the champion and the shadow model of each machine type."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from aurum.prediction.model.card import ModelCard
from aurum.prediction.model.model import CARD, CorruptModelError, Model, for_serving, load_model
from aurum.prediction.model.model_files import ACTIVE, Serving, read_serving, succeeded, write_serving
from aurum.prediction.model.skill import lacking_skill, refusal
from aurum.runtime import damage
from aurum.runtime.errors import FailedPreconditionError, NotFoundError

_MOST_LISTED = 1000


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model in a list.

    Attributes:
        card: Its model card.
        active: Whether it is the champion.
        shadow: Whether it is the shadow model.
        previous: Whether a rollback makes it the champion again.
        forced: Whether it is the champion by force, although it has no skill.
    """

    card: ModelCard
    active: bool
    shadow: bool = False
    previous: bool = False
    forced: bool = False


@dataclass(frozen=True, slots=True)
class _Loaded:
    serving: Serving
    champion: Model
    shadow: Model | None


class ModelRegistry:
    """Keeps the serving models in memory; the others stay on disk.

    A change of model replaces one reference. Predictions in progress finish with the model that they began with.
    """

    def __init__(self, root: Path, false_alarms: float = 1.0) -> None:
        """Loads the serving models. A model that cannot be loaded is reported as damaged, and its type has none.

        Args:
            root: The folder of the models.
            false_alarms: Allowed false alarms of the anomaly score, for each machine and month.
        """
        self._root = root
        self._false_alarms = false_alarms
        self._loaded: dict[str, _Loaded] = {}
        self._seen: dict[str, int] = {}  # machine type → modification time of its active.json
        for machine_type, stamp in self._stamps().items():
            self._seen[machine_type] = stamp
            self._try_to_load(machine_type, "machines of this type are assessed by the fallback rule")

    def active(self, machine_type: str) -> Model | None:
        """Returns the champion of a type, or None."""
        loaded = self._loaded.get(machine_type)
        return loaded.champion if loaded else None

    def shadow(self, machine_type: str) -> Model | None:
        """Returns the shadow model of a type, or None."""
        loaded = self._loaded.get(machine_type)
        return loaded.shadow if loaded else None

    @property
    def types(self) -> list[str]:
        """The machine types that have a champion, sorted."""
        return sorted(self._loaded)

    def refresh(self) -> list[Model]:
        """Loads the models whose active.json has changed, and returns the new champions.

        If a model cannot be loaded, the last one keeps serving.
        """
        new_champions = []
        for machine_type, stamp in self._stamps().items():
            if self._seen.get(machine_type) == stamp:
                continue
            self._seen[machine_type] = stamp
            before = self.active(machine_type)
            self._try_to_load(machine_type, "the present model keeps serving")
            champion = self.active(machine_type)
            if champion is not None and champion is not before:
                new_champions.append(champion)
        return new_champions

    def get(self, machine_type: str, version: str) -> ModelEntry:
        """Returns a version of a type's model, or the champion if `version` is empty. Raises NotFoundError."""
        loaded = self._loaded.get(machine_type)
        if loaded is not None and version in ("", loaded.champion.card.version):
            return ModelEntry(loaded.champion.card, active=True, forced=loaded.serving.forced)
        for entry in self.list():
            if entry.card.machine_type == machine_type and entry.card.version == version:
                return entry
        raise NotFoundError(
            f"there is no model {f'version {version} ' if version else ''}for machine type {machine_type!r}",
            reason="MODEL_NOT_FOUND",
        )

    def list(self) -> list[ModelEntry]:
        """Lists all readable models, ordered by type and version."""
        entries = []
        for path in sorted(self._root.glob(f"*/*/{CARD}"))[:_MOST_LISTED]:
            try:
                card = ModelCard.model_validate_json(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                damage.report("card", str(path), _first_line(error), "its model is not listed")
                continue
            damage.withdraw("card", str(path))
            loaded = self._loaded.get(card.machine_type)
            serving = loaded.serving if loaded else Serving("")
            entries.append(
                ModelEntry(
                    card,
                    active=serving.version == card.version,
                    shadow=serving.shadow == card.version,
                    previous=serving.previous == card.version,
                    forced=serving.version == card.version and serving.forced,
                )
            )
        return entries

    def activate(self, machine_type: str, version: str, *, force: bool = False) -> ModelEntry:
        """Makes a version the champion.

        Args:
            machine_type: The machine type.
            version: The version.
            force: Whether to activate it even if it has no skill. Its answers are then labelled.

        Raises:
            NotFoundError: There is no such model.
            FailedPreconditionError: The model has no skill or is corrupt, or the folder is not writable.
        """
        entry = self.get(machine_type, version)
        refused = refusal(entry.card)
        if refused and not force:
            raise FailedPreconditionError(
                f"{refused}; it is not activated: train it on more or other data, or activate it by force, which "
                f"labels its answers",
                reason="NO_SKILL",
            )
        forced = force and bool(lacking_skill(entry.card))

        def change(serving: Serving | None) -> Serving:
            if serving is None:
                return Serving(entry.card.version, forced=forced)
            if serving.version == entry.card.version:
                return replace(serving, forced=forced)
            return succeeded(serving, entry.card.version, forced=forced)

        return self._change(machine_type, entry.card.version, change)

    def set_shadow(self, machine_type: str, version: str) -> ModelEntry:
        """Makes a version the shadow model, or removes the shadow model if `version` is empty.

        Raises the errors of `activate`, and FailedPreconditionError if the version is the champion.
        """
        champion = self.get(machine_type, "")
        if version == champion.card.version:
            raise FailedPreconditionError(
                f"model {machine_type} {version} is the champion, and cannot be its own shadow", reason="IS_CHAMPION"
            )
        entry = self.get(machine_type, version) if version else champion
        return self._change(
            machine_type, entry.card.version, lambda serving: replace(_require_serving(serving), shadow=version or None)
        )

    def roll_back(self, machine_type: str) -> ModelEntry:
        """Makes the previous champion the champion again. One without skill was activated by force and is so again.

        Raises the errors of `activate`, and FailedPreconditionError if there is no previous champion.
        """
        loaded = self._loaded.get(machine_type)
        previous = loaded.serving.previous if loaded else None
        if previous is None:
            raise FailedPreconditionError(
                f"machine type {machine_type!r} has no previous champion; activate a version by its name",
                reason="NO_PREVIOUS_MODEL",
            )
        return self.activate(machine_type, previous, force=bool(refusal(self.get(machine_type, previous).card)))

    def _change(self, machine_type: str, version: str, change: Callable[[Serving | None], Serving]) -> ModelEntry:
        """Loads the models that are to serve, stores the choice, and puts it into effect."""
        loaded = self._loaded.get(machine_type)
        serving = change(loaded.serving if loaded else None)
        try:
            changed = self._read(machine_type, serving)
        except CorruptModelError as error:
            raise FailedPreconditionError(str(error), reason="CORRUPT_MODEL") from error
        try:
            write_serving(self._root, machine_type, serving)
        except OSError as error:
            raise FailedPreconditionError(
                f"{self._root} cannot be written: {error.strerror}; models can be changed only where the folder of "
                f"models is writable; otherwise deploy another image or volume",
                reason="MODELS_READ_ONLY",
            ) from error
        self._loaded[machine_type] = changed
        damage.withdraw("model", machine_type)
        self._seen[machine_type] = self._stamps()[machine_type]
        card = (
            changed.shadow.card if changed.shadow and changed.shadow.card.version == version else changed.champion.card
        )
        active = card is changed.champion.card
        return ModelEntry(card, active=active, shadow=not active, forced=active and serving.forced)

    def _try_to_load(self, machine_type: str, otherwise: str) -> None:
        """Loads the models of a type. If that fails, reports the damage and `otherwise`, what happens instead."""
        try:
            self._load(machine_type)
        except CorruptModelError as error:
            damage.withdraw("model", machine_type)  # replaces an earlier report
            damage.report("model", machine_type, str(error), otherwise)
        else:
            damage.withdraw("model", machine_type)

    def _load(self, machine_type: str) -> None:
        serving = read_serving(self._root, machine_type)
        if serving is not None:
            self._loaded[machine_type] = self._read(machine_type, serving)

    def _read(self, machine_type: str, serving: Serving) -> _Loaded:
        """Loads the models of a type, reusing those in memory. Raises CorruptModelError."""
        loaded = self._loaded.get(machine_type)
        models = {each.card.version: each for each in (loaded.champion, loaded.shadow) if each} if loaded else {}
        champion = models.get(serving.version) or load_model(self._root / machine_type / serving.version)
        if loaded is None or champion is not loaded.champion or serving.forced != loaded.serving.forced:
            champion = for_serving(champion, forced=serving.forced, false_alarms=self._false_alarms)
        shadow = None
        if serving.shadow is not None:
            shadow = models.get(serving.shadow) or load_model(self._root / machine_type / serving.shadow)
        for model in (champion, shadow):
            if model is not None and model.card.machine_type != machine_type:
                raise CorruptModelError(
                    f"model {model.card.machine_type} {model.card.version} is in the folder of {machine_type!r}; a "
                    f"model serves the type that it was trained on"
                )
        return _Loaded(serving, champion, shadow)

    def _stamps(self) -> dict[str, int]:
        """Returns the modification time in ns of each type's active.json."""
        return {path.parent.name: path.stat().st_mtime_ns for path in self._root.glob(f"*/{ACTIVE}")}


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _require_serving(serving: Serving | None) -> Serving:
    """Returns the serving versions. Raises NotFoundError if the type has none."""
    if serving is None:
        raise NotFoundError("there is no model for this machine type", reason="MODEL_NOT_FOUND")
    return serving
