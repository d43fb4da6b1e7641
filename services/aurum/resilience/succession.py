"""Which pipeline continues as which when another document divides the calls in other ways.

A pipeline stands for the calls that it governs, not for the text of its pattern: a pattern that is renamed, or that
moves in the document, keeps what is known as long as it governs the same calls.
"""

import collections
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Succession(Generic[K]):
    """Keys of pipelines before and after. Each is in the order in which calls were given.

    continues: the pipeline before that continues as this one; each does so at most once. sources: the pipelines before
    that governed its calls, that of most calls first. parts: into how many the calls of a pipeline before are divided.
    """

    continues: dict[K, K]
    sources: dict[K, list[K]]
    parts: dict[K, int]

    @property
    def rearranged(self) -> set[K]:
        """The pipelines before that were divided or joined."""
        return {
            source
            for sources in self.sources.values()
            if len(sources) > 1 or self.parts[sources[0]] > 1
            for source in sources
        }


def succession(moves: Iterable[tuple[K, K]]) -> Succession[K]:
    """moves: for each call, the key of its pipeline before and after.

    A pipeline continues as the one that governs most of its calls; among equals as the one with its own key, then as
    the one of the earliest call.
    """
    shared = collections.Counter(moves)  # calls that two have in common, in the order of the first
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
