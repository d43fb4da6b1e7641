"""Known vulnerabilities of the locked packages, by PyPI's advisories."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOCK = Path(__file__).parents[2] / "requirements" / "run.txt"


@pytest.mark.proof("security")
def test_locked_packages_have_no_known_vulnerability() -> None:
    """No package that the services are built on has a known vulnerability."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--format=json", "--progress-spinner=off"]
    done = subprocess.run([*command, "-r", str(LOCK)], capture_output=True, text=True, timeout=600, check=False)
    try:
        audited = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        pytest.skip(f"PyPI's advisories cannot be asked: {done.stderr.strip().splitlines()[-1:]}")
    if all("skip_reason" in each for each in audited):
        pytest.skip("no package could be looked up: PyPI's advisories cannot be asked")
    found = [f"{each['name']} {each['version']}: {one['id']}" for each in audited for one in each.get("vulns", ())]
    assert found == []
