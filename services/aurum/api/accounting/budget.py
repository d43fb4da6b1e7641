"""Limits the memory of the accounts that are in progress at the same time."""

import contextlib
from collections.abc import Generator

from aurum.runtime.errors import ResourceExhaustedError

_RETRY_AFTER = 1.0  # seconds


class AccountBudget:
    """A budget of bytes for all accounts together.

    It is not thread-safe; use it from one event loop.

    Args:
        max_bytes: Bytes of all accounts together. A single account may exceed it while there is no other.
    """

    def __init__(self, max_bytes: int = 64_000_000) -> None:
        self._max_bytes = max_bytes
        self._reserved = 0

    @contextlib.contextmanager
    def reservation(self) -> Generator["AccountReservation"]:
        """Yields an empty reservation, and releases its bytes at the end of the block."""
        reservation = AccountReservation(self)
        try:
            yield reservation
        finally:
            reservation.resize(0)

    def exchange(self, before: int, after: int) -> None:
        """Replaces the bytes of one account in the budget.

        Args:
            before: The bytes that the account has reserved.
            after: The bytes that it needs now.

        Raises:
            ResourceExhaustedError: The budget would be exceeded. It is unchanged.
        """
        others = self._reserved - before
        if after and others and others + after > self._max_bytes:
            raise ResourceExhaustedError(
                f"accounts in progress hold {others} of {self._max_bytes} bytes; "
                f"retry later, or request fewer machines or a shorter time range",
                reason="ACCOUNT_BUDGET",
                retry_after=_RETRY_AFTER,
            )
        self._reserved = others + after


class AccountReservation:
    """The bytes that one request has reserved in an AccountBudget."""

    def __init__(self, budget: AccountBudget) -> None:
        self._budget = budget
        self._reserved = 0

    def resize(self, nbytes: int) -> None:
        """Changes the reserved bytes. Raises ResourceExhaustedError, and keeps them, if the budget is exceeded."""
        self._budget.exchange(self._reserved, nbytes)
        self._reserved = nbytes
