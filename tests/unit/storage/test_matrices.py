"""The matrices of other files in full; in `make test` they are small, or are left out."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MATRICES = {
    "store": ["tests/unit/storage/test_store_model.py", "-p", "tests.support.larger", "--examples=200", "--steps=40"],
    "tenants": ["tests/security/test_tenants.py"],
    "costs": ["tests/faults/test_costs.py", "--proof=costs"],
}


@pytest.mark.proof("matrices")
@pytest.mark.parametrize("matrix", MATRICES)
def test_matrix_holds_in_full(matrix: str) -> None:
    """The model of the store holds in hundreds of long histories, and the matrices of tenants and of costs hold."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--timeout=1700", *MATRICES[matrix]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
