"""Services load only the libraries that they use, since each takes memory in each pod."""

import subprocess
import sys

import pytest

UNUSED = {
    "aurum.ingestion.service": ("httpx", "rich", "pygments", "fastapi", "lightgbm", "sklearn", "cassandra", "pint"),
    "aurum.prediction.service": ("httpx", "rich", "pygments", "fastapi", "sklearn", "pandas", "matplotlib"),
    "aurum.api.service": ("lightgbm", "sklearn", "pandas", "matplotlib", "cassandra"),
}


@pytest.mark.parametrize("module", UNUSED)
def test_services_load_no_library_that_they_do_not_use(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert [name for name in UNUSED[module] if name in loaded] == []
