"""The API as a target of very many connections."""

from pathlib import Path

from tests.support.platform import Platform


def memory(api: Platform) -> int:
    """Resident bytes of the API."""
    status = Path(f"/proc/{api.processes['api'].popen.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
