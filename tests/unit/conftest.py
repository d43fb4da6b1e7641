"""What tests of the same process must not leave to each other."""

from collections.abc import Iterator

import pytest

from aurum.runtime import damage


@pytest.fixture(autouse=True)
def forgotten_damage() -> Iterator[None]:
    """A test counts only the items that it has damaged itself: the registry is one for the process."""
    _forget_damage()
    yield
    _forget_damage()


def _forget_damage() -> None:
    while known := damage.latest():
        for each in known:
            damage.withdraw(each["kind"], each["name"])
