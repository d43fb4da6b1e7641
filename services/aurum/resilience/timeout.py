"""Timeouts of the phases of a call, in seconds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class TimeoutConfig:
    """Timeouts in seconds.

    Attributes:
        connect: Wait for a connection.
        read: Wait for data.
        write: Wait until data can be sent.
        pool: Wait for a free connection of the pool.
        db: Wait for a statement of the store.
    """

    connect: float = 5.0
    read: float = 30.0
    write: float = 30.0
    pool: float = 5.0
    db: float = 10.0

    def __post_init__(self) -> None:
        for name in ("connect", "read", "write", "pool", "db"):
            if not getattr(self, name) > 0:
                raise ValueError(f"timeout {name} must be above 0 seconds, not {getattr(self, name)}")

    def to_httpx(self) -> "httpx.Timeout":
        """Returns the timeouts for httpx, which has no db timeout."""
        import httpx  # noqa: PLC0415 - it takes 10 MB, and most services call none by HTTP

        return httpx.Timeout(connect=self.connect, read=self.read, write=self.write, pool=self.pool)

    def within(self, seconds: float) -> "TimeoutConfig":
        """Returns the timeouts, each limited to `seconds`."""
        return TimeoutConfig(
            *(min(seconds, each) for each in (self.connect, self.read, self.write, self.pool, self.db))
        )
