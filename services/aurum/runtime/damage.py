"""Registry of damaged items, such as files or records that cannot be read. All other items stay in use.

Each item is counted, logged once, and shown by `/readyz`, `/overview` and `aurum doctor` until it is repaired.
"""

import logging
import threading
import time
from collections import Counter, OrderedDict
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from aurum.runtime import metrics

logger = logging.getLogger(__name__)

Kind = Literal["segment", "block", "batch", "summary", "log record", "series", "event", "model", "card", "key", "rules"]
_KINDS: tuple[Kind, ...] = get_args(Kind)
_MOST = 1000  # remembered items per process
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Damaged:
    """A damaged item.

    Attributes:
        kind: Kind of the item.
        name: Name of the item, such as a file or an id.
        problem: What is wrong with it.
        found_at: Seconds since 1970.
    """

    kind: Kind
    name: str
    problem: str
    found_at: float


class _DamagedItems:
    """The damaged items of the process. It is thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Kind, str], Damaged] = OrderedDict()

    def insert(self, damaged: Damaged) -> bool:
        """Adds an item and returns whether it is new."""
        key = (damaged.kind, damaged.name)
        with self._lock:
            new = key not in self._known
            if new:
                self._known[key] = damaged
                if len(self._known) > _MOST:
                    self._known.popitem(last=False)
        return new

    def remove(self, kind: Kind, name: str) -> None:
        with self._lock:
            self._known.pop((kind, name), None)

    def all_items(self) -> list[Damaged]:
        with self._lock:
            return list(self._known.values())


_items = _DamagedItems()


def report(kind: Kind, name: str, problem: str, consequence: str) -> None:
    """Reports an item that cannot be read. consequence: The effect of its absence, as a clause."""
    if _items.insert(Damaged(kind, name, problem, time.time())):
        metrics.damaged_found_total.labels(kind).inc()
        logger.error("%s %s is damaged: %s; %s", kind, name, problem, consequence)
        _count()


def withdraw(kind: Kind, name: str) -> None:
    """Removes a report because the item is readable again or no longer exists."""
    _items.remove(kind, name)
    _count()


def counts() -> dict[str, int]:
    """Returns the number of damaged items by kind."""
    return dict(Counter(item.kind for item in _items.all_items()))


def latest() -> list[dict[str, Any]]:
    """Returns the latest damaged items."""
    return [asdict(item) for item in _items.all_items()[-_SHOWN:]]


def _count() -> None:
    by_kind = counts()
    for kind in _KINDS:
        metrics.damaged_items.labels(kind).set(by_kind.get(kind, 0))


for _kind in _KINDS:  # initialises the counters to 0
    metrics.damaged_found_total.labels(_kind)
_count()
