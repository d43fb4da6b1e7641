"""Fits a Weibull distribution of the life to few failures, with an informative prior of its shape.

The prior of the shape is lognormal around 2, which is usual for wear, and that of the scale is wide around the median
of the observed lives. Lives that did not end in a failure count as far as they are known, and lives whose beginning was
not observed count from where they are (Lawless, 2003). The posterior is computed on a grid.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from aurum.prediction.model import card as parts
from aurum.prediction.model.lifetime import Lifetime
from aurum.prediction.training.columns import ages_of
from aurum.prediction.training.table import Bools, Floats, Outcomes, Table
from aurum.prediction.training.validation import HeldOut, evaluate, within
from aurum.readings.history import Run

_SHAPE, _SHAPE_SPREAD = np.log(2.0), 0.5  # of the prior, as logarithms
_SCALE_SPREAD = 1.0
_SHAPES, _SCALES = 61, 121  # points of the grid
_SAMPLE = 200


def fit_lifetime(
    runs: Sequence[Run], table: Table, target: Outcomes, axis: str, seed: int
) -> tuple[parts.LifetimePart, parts.Evaluation]:
    """Fits the distribution to all lives, and evaluates it by leaving each life out.

    Args:
        runs: The lives.
        table: Their rows, whose first feature is the age.
        target: The outcome of each row.
        axis: The sensor that counts life.
        seed: Seed of the sample.
    """
    begins, ends, failed = _lives(runs, axis)
    count = len(table)
    risk, rul, inside = np.zeros(count), np.zeros(count), np.zeros(count, dtype=bool)
    left = np.full(count, np.nan) if target.left is None else target.left
    for run in np.unique(table.run):
        rows, others = table.run == run, np.arange(len(runs)) != run
        model = _sampled(begins[others], ends[others], failed[others], target, seed)
        risk[rows], rul[rows], quantiles = model(_ages(table, runs, rows))
        inside[rows] = within(left[rows], quantiles[:, 0], quantiles[:, -1])
    known = target.known
    held_out = HeldOut(
        risk[known],
        target.soon[known],
        rul[known],
        left[known],
        table.run[known],
        table.run[known],
        table.failed[known],
    )
    protocol = "a Weibull distribution, since there are few failures; each life is predicted from the others"
    evaluation = evaluate(held_out, risk[known], inside[known], protocol)
    sampled = _sampled(begins, ends, failed, target, seed)
    part = parts.LifetimePart(
        shapes=sampled.shapes.round(5).tolist(), scales=sampled.scales.round(5).tolist(), failures=int(failed.sum())
    )
    return part, evaluation


def _lives(runs: Sequence[Run], axis: str) -> tuple[Floats, Floats, Bools]:
    """Returns the age at the first reading and at the end of each life, and whether it failed."""
    ages = [ages_of(run, axis) - run.begun for run in runs]
    begins = np.array([max(float(np.nanmin(each)), 0.0) for each in ages])
    ends = np.array([float(np.nanmax(each)) + run.left for each, run in zip(ages, runs, strict=True)])
    return begins, np.maximum(ends, begins + 1e-9), np.array([run.failed for run in runs])


def _ages(table: Table, runs: Sequence[Run], rows: npt.NDArray[np.bool_]) -> Floats:
    begun = np.array([runs[run].begun for run in table.run[rows]])
    ages: Floats = table.features[rows, 0] - begun
    return ages


def _sampled(begins: Floats, ends: Floats, failed: Bools, target: Outcomes, seed: int) -> Lifetime:
    """Returns the distribution with a sample of the posterior of its parameters."""
    middle = np.log(max(float(np.median(ends)), 1e-9))
    log_shape = _SHAPE + _SHAPE_SPREAD * np.linspace(-3, 3, _SHAPES)
    log_scale = middle + _SCALE_SPREAD * np.linspace(-3, 3, _SCALES)
    shape, scale = (each.ravel() for each in np.meshgrid(np.exp(log_shape), np.exp(log_scale), indexing="ij"))
    prior = -0.5 * (((np.log(shape) - _SHAPE) / _SHAPE_SPREAD) ** 2 + ((np.log(scale) - middle) / _SCALE_SPREAD) ** 2)
    likelihood = np.zeros(len(shape))
    for begin, end, ended in zip(begins.tolist(), ends.tolist(), failed.tolist(), strict=True):
        likelihood -= (end / scale) ** shape - (begin / scale) ** shape
        if ended:
            likelihood += np.log(shape / scale) + (shape - 1) * np.log(end / scale)
    posterior = prior + likelihood
    weights = np.exp(posterior - posterior.max())
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(shape), _SAMPLE, p=weights / weights.sum())
    return Lifetime(shape[drawn], scale[drawn], target.horizon, target.cap)
