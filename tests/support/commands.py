"""The `aurum` command within the process of a test: as fast as a function, for commands that start nothing."""

import contextlib
import io
import subprocess
import sys
from collections.abc import Mapping

import pytest

from aurum import cli


def command(
    *arguments: str, environment: Mapping[str, str] | None = None, given: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Runs `aurum ARGUMENTS` to its end, with more variables in the environment, and with `given` on stdin."""
    output, errors = io.StringIO(), io.StringIO()
    status: str | int | None = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["aurum", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                cli.main()
            except SystemExit as end:
                status = end.code
    assert status is None or isinstance(status, int)
    return subprocess.CompletedProcess(["aurum", *arguments], status or 0, output.getvalue(), errors.getvalue())
