"""Chooses the machines whose histories are used if those of all machines do not fit into memory."""

import hashlib
from collections.abc import Mapping

LEAST_MACHINES = 20
"""Machines that are always chosen, since fewer show too little of what differs between machines."""


def sample_machines(sizes: Mapping[str, int], most: int, seed: int) -> frozenset[str]:
    """Returns all machines if their sizes sum up to `most` at most; else as many as that allows.

    The choice depends on the names of the machines and the seed only, not on what their histories contain. A machine
    that is chosen for some limit is also chosen for a greater one.

    Args:
        sizes: The size of each machine's history, such as its number of rows.
        most: The greatest sum of sizes. LEAST_MACHINES are chosen in any case.
        seed: The seed of the choice.
    """
    chosen: set[str] = set()
    total = 0
    for machine in sorted(sizes, key=lambda each: (_hash(each, seed), each)):
        total += sizes[machine]
        if total > most and len(chosen) >= LEAST_MACHINES:
            break
        chosen.add(machine)
    return frozenset(chosen)


def _hash(machine: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{machine}".encode()).digest()
