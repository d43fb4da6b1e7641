"""The model that tests serve: trained once, and kept under a hash of everything it depends on."""

import fcntl
import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from aurum.prediction.model_files import make_champion, write_model
from aurum.prediction.training import TrainingOptions, train
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "models"
_ARGUMENTS = ("--machine-type", "pump", "--machines", "12")
_SOURCES = (
    "services/aurum/prediction",
    "services/aurum/readings",
    "services/aurum/rules",
    "services/aurum/commands",
    "simulators/aurum_sim",
)


def train_once(folder: Path) -> None:
    """Copies a small model of a pump into a folder; trains it if no earlier run with the same inputs did."""
    CACHE.mkdir(parents=True, exist_ok=True)
    kept = CACHE / _digest()
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers start at the same time
        if not kept.exists():
            for old in CACHE.glob("*/"):
                shutil.rmtree(old)
            made = CACHE / "unfinished"
            command = [sys.executable, "-m", "aurum.cli", "train", *_ARGUMENTS, "--out", str(made)]
            subprocess.run(command, check=True, capture_output=True)
            made.rename(kept)
    shutil.copytree(kept, folder, dirs_exist_ok=True)


def _digest() -> str:
    """Of the code that makes the histories and the model, the locked packages, Python, and the arguments."""
    found = hashlib.sha256(repr((_ARGUMENTS, platform.python_version(), platform.machine())).encode())
    sources = [path for source in _SOURCES for path in sorted((ROOT / source).rglob("*.py"))]
    for path in (ROOT / "requirements" / "run.txt", *sources):
        found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def trained(root: Path, seed: int, *, activate: bool = True) -> str:
    model, files = train("pump", run_to_failure(PUMP, 8, seed=seed), "test", TrainingOptions())
    version = f"{seed}-{model.card.version}"
    card = model.card.model_copy(update={"version": version})
    write_model(root, "pump", version, {**files, "card.json": card.model_dump_json()})
    if activate:
        make_champion(root, "pump", version)
    return version
