"""Divides machines among members, such as the live scorers, by rendezvous hashing.

Each machine falls to the member with the highest weight for it (Thaler and Ravishankar, 1998). A member that joins or
leaves moves only its own share of the machines. The weight is a mix (the finalizer of SplitMix64, Steele et al., 2014)
of the hashes of both names, so that it is computed for many machines at once.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


def name_hash(name: str) -> int:
    """Returns the 64-bit hash of the name of a machine or of a member. It is the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def owners_of(machine_hashes: Hashes, members: Sequence[str]) -> npt.NDArray[np.intp]:
    """Returns for each machine the index of the member to which it falls.

    Args:
        machine_hashes: The hashes of the machines' names, see `name_hash`.
        members: The names of the members, in any order; at least one. The result depends on the set of names only.
    """
    order = sorted(range(len(members)), key=lambda index: members[index])  # the first name wins a tie
    best = np.zeros(len(machine_hashes), np.intp)
    highest = np.zeros(len(machine_hashes), np.uint64)
    for rank, index in enumerate(order):
        weights = _mix(machine_hashes ^ np.uint64(name_hash(members[index])))
        wins = weights > highest if rank else np.ones(len(machine_hashes), np.bool_)
        best[wins] = index
        highest[wins] = weights[wins]
    return best


def _mix(values: Hashes) -> Hashes:
    """Returns well distributed 64-bit numbers, in the way of SplitMix64."""
    mixed = values.copy()
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
