"""Operating regimes: a machine that is run now at one setting and now at another looks different at each, worn or not.

A column is a setting if its values keep to a few narrow bands, a machine changes between them again and again, and
within its band it does not go with the machine's age, as a sensor does that sees wear. Each combination of bands is a
regime, if most sensors depend on it, and these are then told in standard deviations from their mean in that regime
(Peel, 2008, on varying operating conditions).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.readings.history import Run

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_MOST_BANDS = 12  # of a column
_MOST_REGIMES = 24
_GAP = 0.02  # of a column's range: what separates two bands
_NARROW = 0.01  # of a column's range: greatest standard deviation within a band
_LEAST_SHARE = 0.01  # of the readings, in each band
_LEAST_EXPLAINED = 0.3  # of the variance of the median sensor, by the regimes
_GOES_WITH_AGE = 0.1  # correlation of a setting within its bands with the share of life that has passed, at most
_CHANCE = 4.0  # standard errors of that
_LEAST_CHANGES = 6.0  # between bands in a run, on average


@dataclass(frozen=True, slots=True)
class Regimes:
    """columns: the settings. centers[regime, column], in their units; scale[column], to measure distances by.

    sensors: those that are told relative to mean[regime, sensor] and deviation[regime, sensor].
    """

    columns: tuple[str, ...]
    centers: Floats
    scale: Floats
    sensors: tuple[str, ...]
    mean: Floats
    deviation: Floats

    def of(self, settings: Floats) -> Indices:
        """The nearest regime of settings[reading, column]; -1 where one of them is not known."""
        known = ~np.isnan(settings).any(axis=1)
        distances = (((settings[:, None, :] - self.centers[None, :, :]) / self.scale) ** 2).sum(axis=2)
        return np.where(known, np.nan_to_num(distances, nan=np.inf).argmin(axis=1), -1)

    def relative(self, sensor: str, values: Floats, regimes: Indices) -> Floats:
        """values in standard deviations of their regime; NaN where that is not known."""
        index = self.sensors.index(sensor)
        scaled: Floats = (values - self.mean[regimes, index]) / self.deviation[regimes, index]
        return np.where(regimes >= 0, scaled, np.nan)


def find_settings(runs: Sequence[Run], candidates: Sequence[str]) -> tuple[str, ...]:
    """The columns that are settings; empty if the machines run under one condition."""
    shares = np.concatenate([np.linspace(0, 1, len(run.timestamps)) for run in runs])  # of each life
    return tuple(name for name in candidates if _is_setting([run.columns[name] for run in runs], shares))


def fit_regimes(runs: Sequence[Run], settings: Sequence[str], sensors: Sequence[str]) -> Regimes | None:
    """The regimes of these settings; None if there is only one, too many to know any of them well, or if sensors hardly
    depend on them."""
    if not settings or not sensors:
        return None
    settings = _fewest(runs, settings)
    rows = _settings_of(runs, settings)
    rows = rows[~np.isnan(rows).any(axis=1)]
    bands = _bands(rows)
    combinations, which, counts = np.unique(bands, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    common = np.flatnonzero(counts >= _LEAST_SHARE * len(rows))
    if not 2 <= len(combinations[common]) <= _MOST_REGIMES:
        return None
    centers = np.stack([rows[which == each].mean(axis=0) for each in common])
    scale = np.maximum(np.ptp(rows, axis=0), 1e-12)
    found = Regimes(tuple(settings), centers, scale, tuple(sensors), np.empty((0, 0)), np.empty((0, 0)))
    mean = np.zeros((len(centers), len(sensors)))
    deviation = np.ones_like(mean)
    of_rows = found.of(_settings_of(runs, settings))
    explained = []
    for index, sensor in enumerate(sensors):
        values = np.concatenate([run.columns[sensor] for run in runs])
        there = ~np.isnan(values) & (of_rows >= 0)
        within = 0.0
        for regime in range(len(centers)):
            part = values[there & (of_rows == regime)]
            if len(part):
                within += float(part.var()) * len(part)
                mean[regime, index] = part.mean()
                # A sensor that does not vary in a regime says nothing there; rounding must not be blown up.
                spread = float(part.std())
                deviation[regime, index] = spread if spread > 1e-9 * max(1.0, abs(float(part.mean()))) else np.inf
        explained.append(1 - within / max(float(values[there].var()) * int(there.sum()), 1e-300))
    if float(np.median(explained)) < _LEAST_EXPLAINED:
        return None
    return Regimes(tuple(settings), centers, scale, tuple(sensors), mean, deviation)


def _fewest(runs: Sequence[Run], settings: Sequence[str]) -> tuple[str, ...]:
    """Those that tell the regimes apart; what others add is nothing. Those that are called settings come first."""
    chosen: tuple[str, ...] = ()
    regimes = 1
    for name in sorted(settings, key=lambda each: ("setting" not in each.lower(), each)):
        rows = _settings_of(runs, (*chosen, name))
        rows = rows[~np.isnan(rows).any(axis=1)]
        _, counts = np.unique(_bands(rows), axis=0, return_counts=True)
        found = int((counts >= _LEAST_SHARE * len(rows)).sum())
        if found > regimes:
            chosen, regimes = (*chosen, name), found
    return chosen or tuple(settings[:1])


def _settings_of(runs: Sequence[Run], settings: Sequence[str]) -> Floats:
    return np.concatenate([np.column_stack([run.columns[name] for name in settings]) for run in runs])


def _bands(rows: Floats) -> Indices:
    """The band of each value[reading, column]."""
    return np.column_stack([np.searchsorted(_edges(column), column) for column in rows.T])


def settings_at(
    regimes: Regimes, columns: Mapping[str, tuple[npt.NDArray[np.int64], Floats]], times: npt.NDArray[np.int64]
) -> Floats:
    """settings[time, column]: each as it was last read at or before that time."""
    settings = np.full((len(times), len(regimes.columns)), np.nan)
    for index, name in enumerate(regimes.columns):
        if name not in columns:
            continue
        at, values = columns[name]
        there = ~np.isnan(values)
        at, values = at[there], values[there]
        if len(at):
            latest = np.searchsorted(at, times, side="right") - 1
            settings[:, index] = np.where(latest >= 0, values[np.maximum(latest, 0)], np.nan)
    return settings


def _is_setting(columns: Sequence[Floats], shares: Floats) -> bool:
    values = np.concatenate(columns)
    there = ~np.isnan(values)
    values, shares = values[there], shares[there]
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
        _GOES_WITH_AGE, _CHANCE / np.sqrt(len(values))
    ):
        return False
    changes = [np.count_nonzero(np.diff(np.searchsorted(edges, part[~np.isnan(part)]))) for part in columns]
    return float(np.mean(changes)) >= _LEAST_CHANGES


def _edges(values: Floats) -> Floats:
    """Where one band ends and the next begins: the middles of wide gaps."""
    distinct = np.unique(values)
    gaps = np.diff(distinct)
    wide = np.flatnonzero(gaps > _GAP * np.ptp(distinct))
    return (distinct[wide] + distinct[wide + 1]) / 2
