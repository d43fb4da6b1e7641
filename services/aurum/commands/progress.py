"""A progress bar on a terminal; elsewhere a line at the beginning, and one every few seconds."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

Update = Callable[[float, str], None]
_SECONDS = 5.0  # between two lines


@contextlib.contextmanager
def progress_bar(title: str) -> Generator[Update]:
    """Shows a progress bar during the block. Yields a function of the share done, from 0 to 1, and a description."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(title, file=sys.stderr, flush=True)
        yield _lines(title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda share, what: progress.update(task, completed=share, description=f"{title}: {what}")


def _lines(title: str) -> Update:
    """Returns a function that prints how far the work is, if the last line was printed a while ago."""
    printed = time.monotonic()

    def update(share: float, what: str) -> None:
        nonlocal printed
        if time.monotonic() - printed >= _SECONDS:
            printed = time.monotonic()
            print(f"{title}: {share:.0%}, {what}", file=sys.stderr, flush=True)

    return update
