"""What the tests of sustainability share."""

from collections.abc import Iterator
from time import tzset

import pytest


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock of the machine is nine hours ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XST-9")
        tzset()
        yield
    tzset()
