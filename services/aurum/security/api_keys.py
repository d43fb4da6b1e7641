"""API keys of the form `aurum_ID_SECRET`.

The key file contains only the id and an argon2id hash of the secret (RFC 9106), so a stolen file grants no access.
"""

import asyncio
import base64
import collections
import contextlib
import fcntl
import hashlib
import logging
import math
import re
import secrets
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import yaml
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from aurum.runtime import damage
from aurum.runtime.errors import RATE_LIMIT, ResourceExhaustedError
from aurum.runtime.yaml_file import read_yaml
from aurum.security.identity import KEY_USER_PREFIX, Identity, ProofKind, parse_roles
from aurum.security.rate_limits import RateLimits
from aurum.storage.durable_file import write_file

logger = logging.getLogger(__name__)

PREFIX = "aurum"
_FORM = re.compile(rf"{PREFIX}_([a-z2-7]{{10}})_([A-Za-z0-9_\-]{{43}})")
_SECRET_BYTES = 32
_MOST_KEYS = 1000
_REMEMBERED = 1000  # recently verified keys, since a hash takes tens of milliseconds of CPU and 19 MiB
_REMEMBERED_FOR = 60.0  # seconds
_CHECK_EVERY = 5.0  # seconds between two checks whether the file has changed
_GUESSES = 0.2, 20.0  # allowed wrong secrets for one key from one address: per second, and as a burst
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)  # OWASP's minimum for argon2id


class KeyFileError(ValueError):
    """The key file cannot be used. The message names the file and the field."""


class KeyRecord(BaseModel):
    """An entry of the key file. `expires` is null for a key that never expires. Times without a zone are in UTC."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z2-7]{10}$")
    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w .@:\-]+$")
    roles: tuple[str, ...]
    # An empty name would match the machines without a site
    sites: tuple[Annotated[str, Field(min_length=1, max_length=64, pattern=r"\S")], ...] = ()
    created: datetime
    expires: datetime | None = None
    hash: str = Field(pattern=r"^\$argon2id\$")

    @field_validator("roles")
    @classmethod
    def _known(cls, roles: tuple[str, ...]) -> tuple[str, ...]:
        parse_roles(roles)
        return roles

    @field_validator("created", "expires")
    @classmethod
    def _with_zone(cls, moment: datetime | None) -> datetime | None:
        """Returns the time with a zone. A time that was written without one is taken as UTC."""
        return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment

    def identity(self, kind: ProofKind = "key") -> Identity:
        """Returns the identity that the key proves. kind: how it is proved, by the key itself or by a session."""
        until = self.expires.timestamp() if self.expires else math.inf
        return Identity(
            f"{KEY_USER_PREFIX}{self.name}", parse_roles(self.roles), kind, frozenset(self.sites), self.id, until
        )


class KeyFile(BaseModel):
    """The content of the key file."""

    model_config = ConfigDict(extra="forbid")

    keys: tuple[KeyRecord, ...] = Field((), max_length=_MOST_KEYS)


class _AnyKeys(BaseModel):
    """A key file whose entries are not validated yet."""

    model_config = ConfigDict(extra="forbid")

    keys: tuple[Any, ...] = Field((), max_length=_MOST_KEYS)


def make_key(
    name: str, roles: tuple[str, ...], sites: tuple[str, ...] = (), expires: datetime | None = None
) -> tuple[str, KeyRecord]:
    """Makes a new key and returns it with its record. The key itself is not stored anywhere.

    Raises:
        ValueError: A role is unknown.
    """
    parse_roles(roles)
    id_ = base64.b32encode(secrets.token_bytes(7)).decode().lower()[:10]
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    record = KeyRecord(
        id=id_,
        name=name,
        roles=roles,
        sites=sites,
        created=datetime.now(UTC).replace(microsecond=0),
        expires=expires,
        hash=_HASHER.hash(secret),
    )
    return f"{PREFIX}_{id_}_{secret}", record


def read_keys(path: Path) -> KeyFile:
    """Reads a key file; without a file there are no keys. Raises KeyFileError if any part of it is invalid."""
    return read_yaml(path, KeyFile, KeyFileError) if path.exists() else KeyFile()


def read_valid_keys(path: Path) -> list[KeyRecord]:
    """Returns the valid keys of a file. Invalid entries are reported as damaged and skipped.

    Raises:
        KeyFileError: The file is not a list of keys.
    """
    if not path.exists():
        return []
    keys: list[KeyRecord] = []
    for index, content in enumerate(read_yaml(path, _AnyKeys, KeyFileError).keys):
        name = f"{index} of {path}"
        try:
            keys.append(KeyRecord.model_validate(content))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            problem = f"{'.'.join(map(str, first['loc'])) or 'key'}: {first['msg']}"
            damage.report("key", name, problem, "it grants no access; correct or remove it")
        else:
            damage.withdraw("key", name)
    return keys


def write_keys(path: Path, keys: KeyFile) -> None:
    """Replaces the key file atomically, with permissions for its owner only. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = yaml.safe_dump(keys.model_dump(mode="json"), sort_keys=False)
    write_file(path, content.encode(), mode=0o600)


@contextlib.contextmanager
def locked_key_file(path: Path) -> Generator[None]:
    """Holds an exclusive lock for a read-modify-write of the key file, so that concurrent commands lose no key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class ApiKeys:
    """The keys of a file. The file is read again when it changes.

    Args:
        path: The key file.
        clock: Monotonic time in seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the file. Raises KeyFileError if it is not a list of keys."""
        self._path = path
        self._clock = clock
        self._records: dict[str, KeyRecord] = {}
        self._stamp: tuple[int, int] | None = None
        self._checked_at = float("-inf")
        self._remembered: collections.OrderedDict[bytes, tuple[float, str]] = collections.OrderedDict()
        self._guesses = RateLimits(*_GUESSES, clock=clock)
        self._thread = ThreadPoolExecutor(1, "api-keys")
        self._load()

    async def identify(self, key: str, address: str) -> Identity | None:
        """Returns the identity of a key, or None if it is unknown, revoked or expired.

        Args:
            key: The whole key, `aurum_ID_SECRET`.
            address: The address of the client.

        Raises:
            ResourceExhaustedError: The address sent too many wrong secrets for this key. Each costs a hash.
        """
        match = _FORM.fullmatch(key)
        record = self._active_record(match.group(1)) if match else None
        if match is None or record is None:
            return None
        digest = hashlib.sha256(key.encode()).digest()
        if self._is_remembered(digest, record):
            return record.identity()
        guesser = f"{record.id} {address}"
        if wait := self._guesses.wait(guesser):
            raise ResourceExhaustedError(
                "too many refused attempts from this address", reason=RATE_LIMIT, retry_after=wait
            )
        if await self._matches(digest, match.group(2), record):
            return record.identity()
        self._guesses.take(guesser)
        return None

    def session_identity(self, id_: str) -> Identity | None:
        """Returns the identity of a session that began with a key, with the key's present roles and sites.

        Returns None if the key was revoked or has expired.
        """
        record = self._active_record(id_)
        return record.identity("session") if record else None

    def _active_record(self, id_: str) -> KeyRecord | None:
        """Returns the record of a key that is neither revoked nor expired, or None. Reads a changed file again."""
        if self._clock() - self._checked_at >= _CHECK_EVERY:
            try:
                self._load()
            except KeyFileError as error:
                logger.error("the key file cannot be used; the last valid keys stay in force: %s", error)
        record = self._records.get(id_)
        if record is None or (record.expires is not None and record.expires <= datetime.now(UTC)):
            return None
        return record

    def _is_remembered(self, digest: bytes, record: KeyRecord) -> bool:
        at, verified_hash = self._remembered.get(digest, (float("-inf"), ""))
        return verified_hash == record.hash and self._clock() - at < _REMEMBERED_FOR

    async def _matches(self, digest: bytes, secret: str, record: KeyRecord) -> bool:
        """Whether a secret is the one of the record. Remembers it if so."""
        # On one separate thread, so that guesses do not take memory and CPU from requests
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(self._thread, _verify, record.hash, secret):
            return False
        self._remembered[digest] = (self._clock(), record.hash)
        self._remembered.move_to_end(digest)
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return True

    def _load(self) -> None:
        self._checked_at = self._clock()
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
        except OSError:
            stamp = None
        if stamp != self._stamp or not self._records:
            self._records = {record.id: record for record in read_valid_keys(self._path)}
            self._stamp = stamp


def _verify(hash_: str, secret: str) -> bool:
    """Whether the secret has this hash."""
    try:
        return _HASHER.verify(hash_, secret)
    except (VerificationError, InvalidHashError):  # a wrong secret, or a damaged hash
        return False
