"""Finds the operating settings of machines in their histories, and the regimes that these form.

A column is a setting if its values lie in a few narrow bands, if machines change between the bands repeatedly, and if
it does not change with the machine's age, unlike a sensor that reflects wear: neither the values within a band, nor the
share of the readings that each band has early and late in the lives of many machines. The fewest settings that explain
the sensors define the regimes: each combination of their bands is one.
"""

from collections.abc import Sequence

import numpy as np

from aurum.prediction.model.regimes import Floats, Indices, Regimes
from aurum.readings.history import Run

_MOST_BANDS = 12  # of a column
_MOST_REGIMES = 24
_GAP = 0.02  # least gap between two bands, as a share of the column's range
_NARROW = 0.01  # greatest standard deviation within a band, as a share of the column's range
_LEAST_SHARE = 0.01  # of the readings, in each band
_LEAST_EXPLAINED = 0.3  # share of the median sensor's variance that the regimes must explain
_MAX_AGE_CORRELATION = 0.1  # greatest correlation of a setting within its bands with the elapsed share of life
_TOLERATED_STANDARD_ERRORS = 4.0  # standard errors of that correlation, which are always tolerated
_LEAST_CHANGES = 6.0  # mean number of changes between bands in a run
_EARLY_SHARE, _LATE_SHARE = 0.4, 0.7  # of each life: readings before the first and after the second are compared
_LEAST_LIVES = 5  # with readings in both parts
_MAX_BAND_SHIFT = 0.02  # share of the readings that may always move to another band between the two parts
_LEAST_GAIN = 0.1  # share of the unexplained variance that a further setting must explain


def find_settings(runs: Sequence[Run], candidates: Sequence[str]) -> tuple[str, ...]:
    """Returns the columns that are settings; empty if the machines run under one condition."""
    shares = [np.linspace(0, 1, len(run.timestamps)) for run in runs]  # elapsed share of each life
    return tuple(name for name in candidates if _is_setting([run.columns[name] for run in runs], shares))


def fit_regimes(runs: Sequence[Run], settings: Sequence[str], sensors: Sequence[str]) -> Regimes | None:
    """Returns the regimes of these settings.

    Returns None if there is only one, if there are too many to estimate each of them, or if the sensors hardly depend
    on them.
    """
    if not settings or not sensors:
        return None
    settings = _needed_settings(runs, settings, sensors)
    rows = _setting_rows(runs, settings)
    rows = rows[~np.isnan(rows).any(axis=1)]
    bands = _bands(rows)
    combinations, which, counts = np.unique(bands, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    common = np.flatnonzero(counts >= _LEAST_SHARE * len(rows))
    if not 2 <= len(combinations[common]) <= _MOST_REGIMES:
        return None
    centers = np.stack([rows[which == each].mean(axis=0) for each in common])
    scale = np.maximum(np.ptp(rows, axis=0), 1e-12)
    unfitted = Regimes(tuple(settings), centers, scale, tuple(sensors), np.empty((0, 0)), np.empty((0, 0)))
    mean = np.zeros((len(centers), len(sensors)))
    deviation = np.ones_like(mean)
    of_rows = unfitted.nearest(_setting_rows(runs, settings))
    explained = []
    for index, sensor in enumerate(sensors):
        values = np.concatenate([run.columns[sensor] for run in runs])
        present = ~np.isnan(values) & (of_rows >= 0)
        within = 0.0
        for regime in range(len(centers)):
            part = values[present & (of_rows == regime)]
            if len(part):
                within += float(part.var()) * len(part)
                mean[regime, index] = part.mean()
                # A sensor that is constant in a regime gets an infinite deviation, so that rounding is not amplified
                spread = float(part.std())
                deviation[regime, index] = spread if spread > 1e-9 * max(1.0, abs(float(part.mean()))) else np.inf
        explained.append(1 - within / max(float(values[present].var()) * int(present.sum()), 1e-300))
    if float(np.median(explained)) < _LEAST_EXPLAINED:
        return None
    return Regimes(tuple(settings), centers, scale, tuple(sensors), mean, deviation)


def _needed_settings(runs: Sequence[Run], settings: Sequence[str], sensors: Sequence[str]) -> tuple[str, ...]:
    """Returns the fewest settings whose combinations of bands explain the sensors.

    The setting that explains most is added as long as it explains a tenth of what the others leave unexplained. Among
    equal ones, columns named as settings are preferred.
    """
    candidates = sorted(settings, key=lambda each: ("setting" not in each.lower(), each))
    rows = _setting_rows(runs, candidates)
    complete = ~np.isnan(rows).any(axis=1)
    bands = dict(zip(candidates, _bands(rows[complete]).T, strict=True))
    values = [np.concatenate([run.columns[name] for run in runs])[complete] for name in sensors]
    chosen: tuple[str, ...] = ()
    unexplained = 1.0
    while len(chosen) < len(candidates):
        left = {
            name: _unexplained(np.column_stack([bands[each] for each in (*chosen, name)]), values)
            for name in candidates
            if name not in chosen
        }
        least = min(left.values())
        if chosen and least > (1 - _LEAST_GAIN) * unexplained - 1e-9:
            break
        best = next(name for name, share in left.items() if share <= least + 1e-9)
        chosen, unexplained = (*chosen, best), least
    return tuple(name for name in candidates if name in chosen)


def _unexplained(bands: Indices, sensors: Sequence[Floats]) -> float:
    """Returns the mean share of the sensors' variance that remains within combinations of bands[reading, column].

    Combinations with few readings are left out, as they are when regimes are fitted.
    """
    _, which, counts = np.unique(bands, axis=0, return_inverse=True, return_counts=True)
    common = counts >= _LEAST_SHARE * len(bands)
    which = which.reshape(-1)
    shares = []
    for values in sensors:
        present = ~np.isnan(values) & common[which]
        group, part = which[present], values[present]
        if not len(part) or np.ptp(part) == 0:
            continue
        sizes = np.maximum(np.bincount(group, minlength=len(counts)), 1)
        off = part - (np.bincount(group, part, minlength=len(counts)) / sizes)[group]
        shares.append(float((off * off).mean()) / float(part.var()))
    return float(np.mean(shares)) if shares else 1.0


def _setting_rows(runs: Sequence[Run], settings: Sequence[str]) -> Floats:
    """Returns settings[reading, column] of all runs, one run after the other."""
    return np.concatenate([np.column_stack([run.columns[name] for name in settings]) for run in runs])


def _bands(rows: Floats) -> Indices:
    """Returns the band of each element of rows[reading, column]."""
    return np.column_stack([np.searchsorted(_edges(column), column) for column in rows.T])


def _is_setting(columns: Sequence[Floats], shares_of_runs: Sequence[Floats]) -> bool:
    """Whether a column is a setting, see above.

    Args:
        columns: The values of each run.
        shares_of_runs: The elapsed share of life at each reading of each run.
    """
    values, shares = np.concatenate(columns), np.concatenate(shares_of_runs)
    present = ~np.isnan(values)
    values, shares = values[present], shares[present]
    if not len(values) or np.ptp(values) == 0:
        return False
    edges = _edges(values)
    if not 1 <= len(edges) < _MOST_BANDS:
        return False
    bands = np.searchsorted(edges, values)
    off = np.zeros(len(values))
    for band in range(len(edges) + 1):
        part = values[bands == band]
        if len(part) < _LEAST_SHARE * len(values) or part.std() > _NARROW * np.ptp(values):
            return False
        off[bands == band] = (part - part.mean()) / max(float(part.std()), 1e-9 * float(np.ptp(values)))
    if abs(float(np.mean(off * (shares - shares.mean()))) / max(float(shares.std()), 1e-12)) > max(
        _MAX_AGE_CORRELATION, _TOLERATED_STANDARD_ERRORS / np.sqrt(len(values))
    ):
        return False
    changes = [np.count_nonzero(np.diff(np.searchsorted(edges, part[~np.isnan(part)]))) for part in columns]
    return float(np.mean(changes)) >= _LEAST_CHANGES and not _moves_with_age(columns, shares_of_runs, edges)


def _moves_with_age(columns: Sequence[Floats], shares: Sequence[Floats], edges: Floats) -> bool:
    """Whether a column is in other bands late in lives than early in them, in the same way in most machines.

    The share of the readings in each band late in a life, minus that early in the same life, is compared with its
    standard error over the lives. A setting that is chosen independently of age moves no more than by chance.
    """
    shifts = []
    for values, share in zip(columns, shares, strict=True):
        present = ~np.isnan(values)
        bands = np.searchsorted(edges, values[present])
        early, late = bands[share[present] < _EARLY_SHARE], bands[share[present] > _LATE_SHARE]
        if len(early) and len(late):
            count = len(edges) + 1
            shifts.append(
                np.bincount(late, minlength=count) / len(late) - np.bincount(early, minlength=count) / len(early)
            )
    if len(shifts) < _LEAST_LIVES:
        return False
    moved = np.array(shifts)
    mean, error = moved.mean(axis=0), moved.std(axis=0, ddof=1) / np.sqrt(len(moved))
    return bool((np.abs(mean) > np.maximum(_MAX_BAND_SHIFT, _TOLERATED_STANDARD_ERRORS * error)).any())


def _edges(values: Floats) -> Floats:
    """Returns the boundaries between bands, which are the middles of wide gaps."""
    distinct = np.unique(values)
    gaps = np.diff(distinct)
    wide = np.flatnonzero(gaps > _GAP * np.ptp(distinct))
    return (distinct[wide] + distinct[wide + 1]) / 2
