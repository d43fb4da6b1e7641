"""Runs `aurum` with a system clock that stands still, until a file tells that it is set.

`STOPPED_CLOCK_US` is what the clock shows, in µs since 1970, and `SET_CLOCK_FILE` the file. Waiting is not affected.
"""

import os
import time
from pathlib import Path

from aurum import cli


def main() -> None:
    stopped_ns = int(os.environ["STOPPED_CLOCK_US"]) * 1000
    is_set, read = Path(os.environ["SET_CLOCK_FILE"]), time.time_ns

    def time_ns() -> int:
        return read() if is_set.exists() else stopped_ns

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9
    cli.main()
