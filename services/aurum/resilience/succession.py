"""Decides which pipelines continue when another document divides the calls differently.

A pipeline is identified by the calls that it governs, not by the text of its pattern. A pattern that is renamed or
moved in the document keeps its state as long as it governs the same calls.
"""

import collections
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Succession(Generic[K]):
    """The relation between old and new pipelines, by their keys.

    Attributes:
        continues: For a new pipeline, the old one that it continues. Each old one is continued at most once.
        sources: For each new pipeline, the old ones that governed its calls, the one with most shared calls first.
        parts: The number of new pipelines among which the calls of each old one are divided.
    """

    continues: dict[K, K]
    sources: dict[K, list[K]]
    parts: dict[K, int]

    @property
    def rearranged(self) -> set[K]:
        """The old pipelines that were divided or merged."""
        return {
            source
            for sources in self.sources.values()
            if len(sources) > 1 or self.parts[sources[0]] > 1
            for source in sources
        }


def succession(moves: Iterable[tuple[K, K]]) -> Succession[K]:
    """Matches old and new pipelines.

    A pipeline continues as the one that governs most of its calls. Ties are resolved in favour of the same key, then of
    the earliest call.

    Args:
        moves: For each call, the keys of its old and its new pipeline.
    """
    shared = collections.Counter(moves)  # number of shared calls by pair, in order of the first call
    pairs = sorted(shared, key=lambda pair: (-shared[pair], pair[0] != pair[1]))
    continues: dict[K, K] = {}
    sources: dict[K, list[K]] = {after: [] for _, after in shared}
    taken: set[K] = set()
    for before, after in pairs:
        sources[after].append(before)
        if before not in taken and after not in continues:
            continues[after] = before
            taken.add(before)
    return Succession(continues, sources, dict(collections.Counter(before for before, _ in shared)))
