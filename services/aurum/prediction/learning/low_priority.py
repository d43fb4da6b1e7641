"""Becomes `aurum ARGUMENTS` with the lowest priority, and ends with the process that started it.

A service has threads, so nothing of this can happen between its fork and exec.
"""

import ctypes
import os
import signal
import sys

LEAST_PRIORITY = 19
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs `aurum` with the arguments after the first one, which is the id of the starting process."""
    parent, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):  # it ended before
            return
    os.nice(LEAST_PRIORITY)
    os.execv(sys.executable, [sys.executable, "-m", "aurum.cli", *arguments])  # noqa: S606 - the arguments are ours


if __name__ == "__main__":
    main()
