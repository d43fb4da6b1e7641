"""A folder that files are dropped in: which of them are complete, and where they are put away.

No program tells when it has written the last byte of a file. A file therefore counts as complete when it has not
changed for a while. It is looked at again after it was read, and also after it was put away: a writer whose connection
stalled goes on writing into the same file under its new name.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from aurum.storage.durable_file import write_file

_MAX_FILES = 10_000  # checked in one round; the others wait
_DONE, _REFUSED = "done", "refused"
_PUT_AWAY_INTERVAL = 2.0  # seconds between two looks at files that were put away
_KEPT_SECONDS = 600.0  # for which every file is kept, so that a writer that goes on is noticed
_PREFIX = re.compile(r"(\d{13})-")  # of files that were put away: the time in ms
_MS = 1_000_000  # ns


class Version(NamedTuple):
    """What tells that a file has changed."""

    size: int
    mtime_ns: int
    inode: int


class DropFolder:
    """The files in a folder. It must be used from one thread at a time.

    Args:
        folder: The folder. It is created if it does not exist.
        pattern: The pattern of file names, in upper or lower case. It also matches names with .gz appended.
        settled: Seconds without a change after which a file is complete.
        keep: The number of stored files that are kept.
    """

    def __init__(self, folder: Path, pattern: str, settled: float, keep: int) -> None:
        self._folder = folder
        self._patterns = [_ignoring_case(pattern), _ignoring_case(f"{pattern}.gz")]
        self._parent = PurePath(pattern).parent
        self._settled = settled
        self._keep = keep
        self._seen: dict[Path, tuple[Version, float]] = {}  # version, and since when it has been unchanged
        self._put_away: dict[Path, Version] | None = None  # None until the folder is looked at
        self._changed: list[Path] = []  # files that were put away and have changed since
        self._looked_at_put_away = 0.0

    def complete_files(self) -> list[Path]:
        """Returns the files that have not changed for a while, oldest first. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        present, settled, now = {}, [], time.monotonic()
        for path in [*self._dropped(), *self._changed_after_put_away(now)]:
            version = self.version(path)
            if version is None:
                continue
            seen = self._seen.get(path)
            since = seen[1] if seen is not None and seen[0] == version else now
            present[path] = version, since
            if now - since >= self._settled:
                settled.append((version.mtime_ns, path))
        self._seen = present
        return [path for _, path in sorted(settled)]

    @staticmethod
    def version(path: Path) -> Version | None:
        """Returns the present version of a file, or None if it does not exist."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        return Version(status.st_size, status.st_mtime_ns, status.st_ino)

    def was_put_away(self, path: Path) -> bool:
        """Whether a complete file was put away before, and has changed since."""
        return self._put_away is not None and path in self._put_away

    def put_away(self, path: Path, version: Version, problem: str | None) -> None:
        """Moves a file to `done`, or to `refused` if there is a problem, which is written beside it.

        Args:
            path: The file.
            version: The version that was read.
            problem: Why the file is refused; None if it is stored.
        """
        again = self.was_put_away(path)
        base = path.parent.parent if again else path.parent
        target = base / (_DONE if problem is None else _REFUSED)
        target.mkdir(exist_ok=True)
        name = f"{time.time_ns() // _MS}-{_PREFIX.sub('', path.name, count=1) if again else path.name}"
        if problem is not None:  # written before the file is moved, so that watchers of the folder find it complete
            write_file(target / f"{name}.problem.txt", (problem + "\n").encode(), sync=False)
        path.replace(target / name)
        known = self._known()
        if again:
            known.pop(path, None)
            path.with_name(f"{path.name}.problem.txt").unlink(missing_ok=True)
        known[target / name] = version
        while len(known) > _MAX_FILES:
            del known[next(iter(known))]
        if problem is None:
            self._remove_old(target)

    def _dropped(self) -> list[Path]:
        found = {path for pattern in self._patterns for path in self._folder.glob(pattern)}
        files = (path for path in sorted(found) if not path.name.startswith("."))
        return [path for path in files if path.is_file() and not path.is_symlink()][:_MAX_FILES]

    def _known(self) -> dict[Path, Version]:
        if self._put_away is None:
            self._put_away = dict(self._read_put_away())
        return self._put_away

    def _read_put_away(self) -> Iterator[tuple[Path, Version]]:
        """Yields the files that an earlier process put away, with the version at that time as far as it is known."""
        bases = {self._folder, *(self._folder.glob(str(self._parent)) if self._parent.parts else ())}
        files = [path for base in bases for kind in (_DONE, _REFUSED) for path in (base / kind).glob("*-*")]
        for path in sorted(files, key=lambda path: path.name)[-_MAX_FILES:]:
            prefix, version = _PREFIX.match(path.name), self.version(path)
            if prefix is not None and version is not None and not path.name.endswith(".problem.txt"):
                changed = version.mtime_ns // _MS > int(prefix[1])
                yield path, version._replace(size=-1) if changed else version

    def _changed_after_put_away(self, now: float) -> list[Path]:
        """Returns the files that were put away and have changed since."""
        known = self._known()
        if now - self._looked_at_put_away >= _PUT_AWAY_INTERVAL:
            self._looked_at_put_away = now
            for path in list(known):
                if self.version(path) is None:
                    del known[path]
            for folder in {path.parent for path in known if path.parent.name == _DONE}:
                self._remove_old(folder)
            self._changed = [path for path, version in known.items() if self.version(path) != version]
        return [path for path in self._changed if path in known]

    def _remove_old(self, folder: Path) -> None:
        """Removes the oldest stored files beyond the number that is kept."""
        oldest = (time.time() - _KEPT_SECONDS) * 1000
        for old in sorted(folder.iterdir())[: -self._keep or None]:
            prefix = _PREFIX.match(old.name)
            if prefix is None or int(prefix[1]) < oldest:
                old.unlink(missing_ok=True)


def _ignoring_case(pattern: str) -> str:
    """Returns a pattern that matches names in upper and lower case. One with brackets stays as it is."""
    if "[" in pattern:
        return pattern
    return re.sub("[a-zA-Z]", lambda found: f"[{found[0].lower()}{found[0].upper()}]", pattern)
