"""`aurum up` with processes that fail: what it says, what it starts again, and what it logs."""

import json
import shutil
import socket
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from aurum.prediction.model.card import FORMAT
from aurum.prediction.model.model import CARD
from aurum.prediction.model.model_files import make_champion, write_model
from aurum_sim.machine_types import MACHINE_TYPES
from tests.support.commands import command
from tests.support.ports import free_port


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the cards of models, so that nothing has to be trained."""
    for name in MACHINE_TYPES:
        write_model(tmp_path / "models", name, "v1", {CARD: json.dumps({"format": FORMAT})})
        make_champion(tmp_path / "models", name, "v1")
    return tmp_path


def up(folder: Path, scripts: dict[str, str], more: str = "", **environment: str) -> CompletedProcess[str]:
    """Runs `aurum up` with a Python script for each process, and more lines of the Procfile."""
    lines = [more]
    for name, script in scripts.items():
        (folder / f"{name}.py").write_text(script)
        lines.append(f"{name}: {sys.executable} -I -S {folder / f'{name}.py'}\n")
    (folder / "Procfile").write_text("".join(lines))
    names = [*scripts, *(line.partition(":")[0] for line in more.splitlines())]
    targets = ",".join(f"{name}=127.0.0.1:{free_port()}" for name in names)
    state = {"AURUM_STATE_DIR": str(folder), "AURUM_ADMIN_TARGETS": targets, **environment}
    return command("up", "--procfile", str(folder / "Procfile"), environment=state)


def logged(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "logs" / f"{name}.log").read_text().splitlines()]


def test_up_ends_with_last_words_of_a_misconfigured_process(folder: Path) -> None:
    script = (
        "print('{\"message\": \"ready\"}'); print('a warning'); print('aurum: PORT is no number'); raise SystemExit(2)"
    )
    ended = up(folder, {"odd": script, "other": "import time; time.sleep(60)"})
    assert ended.returncode == 1
    assert "odd cannot start: PORT is no number" in ended.stderr
    ready, warning, _ = logged(folder, "odd")
    assert ready == {"message": "ready"}
    assert (warning["message"], warning["service"], warning["severity"]) == ("a warning", "odd", "ERROR")


def test_up_starts_a_failed_process_again_but_not_for_ever(folder: Path) -> None:
    script = """
import os, sys
if not os.path.exists(sys.argv[0] + ".started"):
    open(sys.argv[0] + ".started", "w").close()
    os.kill(os.getpid(), 9)
raise SystemExit(1)
"""
    ended = up(folder, {"odd": script})
    assert ended.returncode == 1
    assert ended.stdout.count("odd was killed by SIGKILL; restarting it") == 1
    assert "odd cannot start: see its log" in ended.stderr


def test_up_names_the_setting_of_a_port_in_use(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = up(folder, {"api": "raise SystemExit(2)"}, AURUM_API_PORT=str(port))
    assert ended.returncode == 1
    assert f"port {port} (AURUM_API_PORT) is in use by another program" in ended.stderr
    assert not (folder / "logs").exists(), "nothing was started"


def test_up_bounds_log_files_and_survives_endless_lines(folder: Path) -> None:
    script = (
        "import sys\n"
        "for number in range(60): print('x' * 200_000)\n"
        "print('y' * 3_000_000)\n"
        "print('aurum: the end')\n"
        "sys.exit(2)\n"
    )
    ended = up(folder, {"loud": script})
    assert "loud cannot start: the end" in ended.stderr
    older, newer = (folder / "logs" / name for name in ("loud.log.1", "loud.log"))
    assert 10_000_000 < older.stat().st_size < 10_500_000
    assert newer.stat().st_size < 10_000_000
    assert logged(folder, "loud")[-1]["message"] == "aurum: the end"


def test_up_tells_the_services_what_is_simulated(folder: Path) -> None:
    """The speed of the simulator, and the types whose models are trained; nothing is trained before the start."""
    script = (
        "import os\n"
        "print('aurum:', os.environ['AURUM_CONSOLE_SIMULATION_SPEED'], os.environ['AURUM_PREDICTION_TRAIN_MISSING'])\n"
        "raise SystemExit(2)\n"
    )
    shutil.rmtree(folder / "models")
    ended = up(folder, {"odd": script}, more="iot-sim: aurum iot-sim --speed-up 33 --help\n")
    assert f"odd cannot start: 33 {','.join(MACHINE_TYPES)}" in ended.stderr
    assert "Training" not in ended.stdout
    ended = up(folder, {"odd": script}, AURUM_PREDICTION_TRAIN_MISSING="pump", AURUM_CONSOLE_SIMULATION_SPEED="5")
    assert "odd cannot start: 5 pump" in ended.stderr
