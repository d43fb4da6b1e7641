"""Measures the event loop of a service that a test starts, from within its process.

A turn of the loop is what it does between two looks at its sockets: whatever comes meanwhile waits for its end. It is
measured in CPU time of the loop's thread (`time.thread_time`), which grows only while that thread runs. Other processes
of a busy machine, and the time that the thread waits for its turn, therefore count for nothing.

The process and the test share a small file: the number of turns, the longest one in seconds, and how often the process
has returned its free memory, which SIGUSR1 asks for.
"""

import asyncio
import ctypes
import gc
import mmap
import os
import signal
import struct
import time
from pathlib import Path

FILE = "LOOP_TURNS_FILE"  # environment variable of the process
_LAYOUT = struct.Struct("ddd")
_TURNS, _LONGEST, _TRIMMED = range(3)


class LoopTurns:
    """The numbers of one process.

    Args:
        path: The file, which is created if it is missing.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), _LAYOUT.size)).cast("d")

    @property
    def turns(self) -> int:
        return int(self._numbers[_TURNS])

    @property
    def longest(self) -> float:
        """CPU seconds of the longest turn since `forget`."""
        return self._numbers[_LONGEST]

    @property
    def trimmed(self) -> int:
        return int(self._numbers[_TRIMMED])

    def forget(self) -> None:
        self._numbers[_LONGEST] = 0.0

    def count(self, seconds: float) -> None:
        self._numbers[_TURNS] += 1
        self._numbers[_LONGEST] = max(self._numbers[_LONGEST], seconds)

    def trim(self) -> None:
        """Returns the free memory of this process to the system, so that its resident memory is what it uses."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        self._numbers[_TRIMMED] += 1


def install() -> None:
    """Measures the event loops of this process, if FILE names a file."""
    path = os.environ.get(FILE)
    if path is None:
        return
    numbers = LoopTurns(Path(path))
    turn = asyncio.BaseEventLoop._run_once  # type: ignore[attr-defined]

    def measured(loop: asyncio.BaseEventLoop) -> None:
        started = time.thread_time()
        turn(loop)
        numbers.count(time.thread_time() - started)

    asyncio.BaseEventLoop._run_once = measured  # type: ignore[attr-defined]
    signal.signal(signal.SIGUSR1, lambda *_: numbers.trim())
