"""The machines that are used if not all fit into memory, and the joined features of machines."""

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aurum.commands.machine_sampling import LEAST_MACHINES, sample_machines
from aurum.prediction.model.features import FeatureSpec
from aurum.prediction.training.table import join_machines, tabulate
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure

SIZES = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 1000), max_size=60)


@given(SIZES, st.integers(0, 60_000), st.integers(0, 60_000), st.integers(0, 3))
def test_sample_grows_with_its_limit_up_to_all(sizes: dict[str, int], most: int, more: int, seed: int) -> None:
    chosen = sample_machines(sizes, most, seed)
    assert chosen <= sizes.keys()
    assert chosen <= sample_machines(sizes, most + more, seed)
    total = sum(sizes[each] for each in chosen)
    assert total <= most or len(chosen) == min(LEAST_MACHINES, len(sizes))
    assert len(chosen) >= min(LEAST_MACHINES, len(sizes))
    if sum(sizes.values()) <= most:
        assert chosen == sizes.keys()


@given(SIZES, st.integers(0, 30_000), st.randoms(use_true_random=False))
def test_sample_does_not_depend_on_the_order(sizes: dict[str, int], most: int, random: Random) -> None:
    names = list(sizes)
    random.shuffle(names)
    assert sample_machines({name: sizes[name] for name in names}, most, 7) == sample_machines(sizes, most, 7)


def test_features_of_machines_are_joined_alike() -> None:
    runs = run_to_failure(PUMP, 6, 5)
    spec = FeatureSpec("operating_hours", 1.0, ("flow_m3_h", "power_kw"))
    whole = tabulate(runs, spec, 10**6)
    joined = join_machines([tabulate([run], spec, 10**6) for run in runs], [1] * len(runs), spec)
    for name in ("features", "left", "failed", "share", "age", "group", "run", "step"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name), err_msg=name)
    assert joined.steps.keys() == whole.steps.keys()
    for number, steps in whole.steps.items():
        np.testing.assert_array_equal(joined.steps[number].means, steps.means)
    assert len(join_machines([], [], spec)) == 0
