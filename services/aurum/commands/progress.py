"""A progress bar on a terminal; elsewhere only a line at the beginning."""

import contextlib
import sys
from collections.abc import Callable, Generator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

Update = Callable[[float, str], None]


@contextlib.contextmanager
def progress_bar(title: str) -> Generator[Update]:
    """Shows a progress bar during the block. Yields a function of the share done, from 0 to 1, and a description."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(title, file=sys.stderr, flush=True)
        yield lambda share, what: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=1.0)
        yield lambda share, what: progress.update(task, completed=share, description=f"{title}: {what}")
