"""Sessions of the console: a signed cookie with the identity and the expiry. The server keeps no state of a session."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Container

from aurum.security.identity import Identity, Role

COOKIE = "aurum_session"
_ID_LENGTH = 32
_LONGEST = 4000  # characters, as browsers allow
_VERSION = b"aurum-session-1\n"


class Sessions:
    """Makes and checks session cookies."""

    def __init__(
        self,
        secret: bytes,
        seconds: float,
        clock: Callable[[], float] = time.time,
        ended: Container[str] = frozenset(),
    ) -> None:
        """Checks the secret and stores the parameters.

        Args:
            secret: Key of the signature, at least 32 bytes, the same in all replicas.
            seconds: Longest duration of a session.
            clock: Seconds since 1970.
            ended: Ids of the sessions that were signed out before they expired.

        Raises:
            ValueError: The secret is too short.
        """
        if len(secret) < 32:
            raise ValueError("the secret of sessions must have at least 32 bytes")
        self._secret = secret
        self._seconds = seconds
        self._clock = clock
        self._ended = ended

    @property
    def seconds(self) -> int:
        """The longest duration of a session in seconds."""
        return int(self._seconds)

    def begin(self, identity: Identity) -> str:
        """Returns the cookie of a new session. It expires no later than the proof of the identity."""
        content = {
            "user": identity.user_id,
            "roles": sorted(role.value for role in identity.roles),
            "sites": sorted(identity.sites),
            "key": identity.key_id,
            "until": min(self._clock() + self._seconds, identity.until),
        }
        body = json.dumps(content, separators=(",", ":")).encode()
        return f"{_encode(body)}.{_encode(self._sign(body))}"

    def identify(self, cookie: str) -> Identity | None:
        """Returns the identity of a session, or None if the cookie is invalid, expired or signed out.

        Whether the session's API key is still valid is not checked here.
        """
        if len(cookie) > _LONGEST:
            return None
        try:
            body, signature = (_decode(part) for part in cookie.split("."))
        except ValueError:
            return None
        if not hmac.compare_digest(signature, self._sign(body)) or session_id(cookie) in self._ended:
            return None
        content = json.loads(body)  # cannot fail, since the signature is ours
        if content["until"] <= self._clock():
            return None
        roles = frozenset(Role(name) for name in content["roles"])
        sites = frozenset(content["sites"])
        return Identity(content["user"], roles, "session", sites, content["key"], content["until"])

    def _sign(self, body: bytes) -> bytes:
        return hmac.new(self._secret, _VERSION + body, hashlib.sha256).digest()


def session_id(cookie: str) -> str:
    """Returns the id of a session. The cookie cannot be derived from it."""
    return hashlib.sha256(_VERSION + cookie.encode()).hexdigest()[:_ID_LENGTH]


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
