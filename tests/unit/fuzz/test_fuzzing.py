"""The decoders under an engine that keeps the inputs which reach new code, and goes on from them."""

import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.disks import scratch_place
from tests.support.fuzzing.inputs import FOLDER
from tests.support.fuzzing.oracle import measure_input
from tests.support.fuzzing.targets import TARGETS

ROOT = Path(__file__).parents[3]
SECONDS = int(os.environ.get("AURUM_FUZZ_SECONDS", "60"))  # for each decoder


@pytest.mark.proof("fuzz")
@pytest.mark.parametrize("name", TARGETS)
def test_decoder_withstands_a_guided_search(name: str, tmp_path: Path) -> None:
    """No input makes a decoder raise an undocumented error, or take memory or calls beyond a multiple of its size."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: it is for Linux, and for versions of Python that it has a wheel for")
    command = [sys.executable, "-m", "tests.support.fuzzing.engine", name, str(tmp_path), str(SECONDS)]
    with tempfile.TemporaryDirectory(prefix="aurum-fuzz-", dir=scratch_place()) as place:  # the engine removes nothing
        environment = {**os.environ, "AURUM_SCRATCH": place}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
    found = [path for path in tmp_path.iterdir() if path.is_file()]
    for path in found:
        kept = FOLDER / name / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(path.read_bytes())
    _, _, told = done.stderr.partition("=== Uncaught Python exception: ===")
    assert not found, (
        f"{[path.name for path in found]} are kept in {FOLDER / name}: {told[:3000] or done.stderr[-3000:]}"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logging.disable(logging.CRITICAL)
    try:
        for path in sorted((tmp_path / "corpus").iterdir()):
            measure_input(TARGETS[name], path.read_bytes())
    finally:
        logging.disable(logging.NOTSET)
