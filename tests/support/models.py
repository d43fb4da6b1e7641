"""Models that tests serve: each is trained once, and kept under a hash of everything it depends on."""

import fcntl
import functools
import hashlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from aurum.prediction.model.model import CARD, CARD_CHECKSUM
from aurum.prediction.model.model_files import make_champion, write_model
from aurum.prediction.training.train import TrainingOptions, train
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "models"
_SOURCES = (
    "services/aurum/prediction",
    "services/aurum/readings",
    "services/aurum/rules",
    "services/aurum/commands",
    "simulators/aurum_sim",
    "tests/support/models.py",
)


def pump_model(folder: Path) -> None:
    """Copies a small model of a pump, made by `aurum train`, into a folder of models."""

    def make(made: Path) -> None:
        command = [sys.executable, "-m", "aurum.cli", "train", "--machine-type", "pump", "--machines", "12"]
        subprocess.run([*command, "--out", str(made)], check=True, capture_output=True)

    shutil.copytree(_once("pump", make), folder, dirs_exist_ok=True)


def pump_version(root: Path, version: str, seed: int = 1, *, activate: bool = True) -> str:
    """Adds a version of a pump's model, trained on few runs of this seed, to a folder of models; returns its name."""

    def make(made: Path) -> None:
        _, files = train("pump", run_to_failure(PUMP, 8, seed=seed), "test", TrainingOptions(rows=4000, rounds=60))
        write_model(made, "pump", "trained", files)

    trained = _once(f"seed {seed}", make) / "pump" / "trained"
    files = {path.name: path.read_text() for path in trained.iterdir()}
    card = {**json.loads(files[CARD]), "version": version}
    write_model(root, "pump", version, {**files, CARD: json.dumps(card)})
    if activate:
        make_champion(root, "pump", version)
    return version


def unskilled_version(root: Path, version: str = "unskilled") -> str:
    """Adds a version of a pump's model whose card denies its skill, without activating it; returns its name."""
    pump_version(root, f"{version}-base", activate=False)
    folder = root / "pump" / f"{version}-base"
    files = {path.name: path.read_text() for path in folder.iterdir() if path.name != CARD_CHECKSUM}
    card = json.loads(files[CARD])
    for skill in card["evaluation"]["skill"]:
        skill |= {"skill": -0.1, "low": -0.2, "high": 0.05}
    write_model(root, "pump", version, {**files, CARD: json.dumps({**card, "version": version, "later_lives": None})})
    shutil.rmtree(folder)
    return version


def doubtful_version(root: Path, version: str, doubtful: str) -> str:
    """Adds a champion of a pump whose card denies the skill of one quantity, risk or rul; returns its name.

    The skill of the other one is as small as a proven skill can be.
    """
    pump_version(root, f"{version}-base", activate=False)
    folder = root / "pump" / f"{version}-base"
    files = {path.name: path.read_text() for path in folder.iterdir() if path.name != CARD_CHECKSUM}
    card = json.loads(files[CARD])
    for skill in card["evaluation"]["skill"]:
        denied = {"skill": -0.1, "low": -0.2, "high": 0.05}
        skill.update(denied if skill["quantity"] == doubtful else {"skill": 0.001, "low": 0.0005})
    write_model(root, "pump", version, {**files, CARD: json.dumps({**card, "version": version, "later_lives": None})})
    shutil.rmtree(folder)
    make_champion(root, "pump", version)
    return version


def _once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` has filled, now or in an earlier run with the same inputs."""
    CACHE.mkdir(parents=True, exist_ok=True)
    kept = CACHE / _digest() / name
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers start at the same time
        if not kept.exists():
            for old in CACHE.glob("*/"):
                if old != kept.parent:
                    shutil.rmtree(old)
            unfinished = kept.with_name(f"unfinished {name}")
            make(unfinished)
            unfinished.rename(kept)
    return kept


@functools.cache
def _digest() -> str:
    """Of the code that makes histories and models, the locked packages, and Python."""
    found = hashlib.sha256(repr((platform.python_version(), platform.machine())).encode())
    sources = [path for source in _SOURCES for path in (ROOT / source, *sorted((ROOT / source).rglob("*.py")))]
    for path in (ROOT / "requirements" / "run.txt", *sources):
        if path.is_file():
            found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]
