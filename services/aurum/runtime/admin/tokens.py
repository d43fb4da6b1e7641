"""The tokens of the admin servers: one that is sent, and several that are accepted while they are replaced.

The folder has the format of a mounted Secret: the file `token`, and during a rotation also `previous`. It can be
replaced at any time. A process that has read new tokens goes on accepting the ones before for a
while, because other processes read the folder later.
"""

import hmac
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from aurum.runtime.settings import Settings

logger = logging.getLogger(__name__)

TOKEN, PREVIOUS = "token", "previous"  # files of the folder
GRACE = 600.0  # seconds for which a replaced token is accepted; the kubelet updates a volume within two minutes
_SHORTEST = 16  # characters
_LARGEST = 4096  # bytes of a file
_MOST = 8  # replaced tokens that are remembered

Stamps = tuple[tuple[int, int, int] | None, ...]


class AdminTokens:
    """The admin tokens of a process. Those of a folder are read again whenever they have changed.

    Args:
        fixed: A token that does not change, or None.
        folder: Folder with the tokens, or None. Without tokens in it, no request is authorized.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self, fixed: str | None, folder: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._current: tuple[str, ...] = (fixed,) if fixed else ()
        self._replaced: dict[str, float] = {}  # token → until when it is accepted
        self._stamps: Stamps = ()
        if folder is not None:
            self._refresh()
            if not self._current:
                logger.warning("%s has no admin token yet; until it has, the admin server answers probes only", folder)

    @classmethod
    def of(cls, settings: Settings) -> "AdminTokens | None":
        """Returns the tokens of the settings, or None if admin servers require none."""
        fixed = settings.admin_token.get_secret_value() if settings.admin_token else None
        if fixed is None and settings.admin_token_folder is None:
            return None
        return cls(fixed, settings.admin_token_folder)

    def accepts(self, authorization: str) -> bool:
        """Whether a request with this Authorization header is authorized. Each comparison takes constant time."""
        stated = authorization.encode()
        found = [hmac.compare_digest(stated, each.encode()) for each in self.authorizations()]
        return any(found)

    def authorizations(self) -> tuple[str, ...]:
        """Returns the Authorization headers to send, the present one first, then those that a server may still want."""
        with self._lock:
            self._refresh()
            now = self._clock()
            self._replaced = {token: until for token, until in self._replaced.items() if until > now}
            return tuple(f"Bearer {token}" for token in (*self._current, *self._replaced))

    def _refresh(self) -> None:
        if self._folder is None:
            return
        stamps = tuple(_stamp(self._folder / name) for name in (TOKEN, PREVIOUS))
        if stamps == self._stamps:
            return
        try:
            tokens = _read_tokens(self._folder)
        except (OSError, ValueError) as error:
            logger.warning("the admin tokens cannot be read, the last ones stay in use: %s", error)
            self._stamps = stamps
            return
        self._stamps = stamps
        if not tokens or tokens == self._current:
            return
        until = self._clock() + GRACE
        for token in self._current:
            if token not in tokens:
                self._replaced[token] = until
        for token in (*tokens, *list(self._replaced)[:-_MOST]):
            self._replaced.pop(token, None)
        if self._current:
            logger.info("new admin tokens are in use; those before are accepted for %.0f s more", GRACE)
        self._current = tokens


def admin_headers(settings: Settings) -> dict[str, str]:
    """Returns the headers of one request to an admin server: the present admin token, if there is one."""
    tokens = AdminTokens.of(settings)
    found = tokens.authorizations() if tokens else ()
    return {"Authorization": found[0]} if found else {}


def _read_tokens(folder: Path) -> tuple[str, ...]:
    """Returns the tokens of a folder, the present one first. Raises OSError, or ValueError for an unusable one."""
    tokens = []
    for name in (TOKEN, PREVIOUS):
        try:
            with (folder / name).open("rb") as file:
                content = file.read(_LARGEST + 1)
        except FileNotFoundError:
            continue
        token = content.decode("ascii", "replace").strip()
        if len(content) > _LARGEST or len(token) < _SHORTEST or not token.isprintable() or not token.isascii():
            raise ValueError(
                f"{folder / name} must have from {_SHORTEST} to {_LARGEST} printable ASCII characters; write another "
                "one to the Secret or folder of AURUM_ADMIN_TOKEN_FOLDER"
            )
        tokens.append(token)
    return tuple(dict.fromkeys(tokens))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
