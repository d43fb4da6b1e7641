"""Uses a column of the remaining life, and checks that it has the unit of the life."""

from dataclasses import replace

import numpy as np

from aurum.commands.table_roles import Roles, TableRoleError
from aurum.readings.batch import Timestamps, Values
from aurum.readings.history import Run
from aurum.runtime.time_units import HOUR_US

_SAME_UNIT = 1.5  # ratio of changes of the remaining life and of the life from which on they have different units


def with_remaining_life(run: Run, left: Values, at: Timestamps) -> Run:
    """Returns a run with the life left at its last reading, if it is known.

    Args:
        run: The run.
        left: The remaining life at each row of the machine, NaN where it is not known.
        at: The times of these rows in µs since the epoch.
    """
    last = float(left[int(np.searchsorted(at, run.timestamps[-1]))])
    return run if np.isnan(last) else replace(run, failed=True, left=max(last, 0.0))


def fall_of(run: Run, left: Values, at: Timestamps, life: str | None) -> float:
    """Returns by how much the remaining life of a run falls for each unit of its life, NaN if it does not."""
    ages = run.timestamps / HOUR_US if life is None else run.columns[life]
    changes = -np.diff(left[np.searchsorted(at, run.timestamps)]), np.diff(ages)
    falling = (changes[0] > 0) & (changes[1] > 0)
    return float(np.median(changes[0][falling] / changes[1][falling])) if falling.any() else float("nan")


def check_fall(falls: Values, roles: Roles) -> None:
    """Raises TableRoleError if the remaining life is in another unit than the life."""
    falls = falls[~np.isnan(falls)]
    if len(falls) and not 1 / _SAME_UNIT < (fall := float(np.median(falls))) < _SAME_UNIT:
        life = repr(roles.life) if roles.life else "hours of time"
        raise TableRoleError(
            f"the remaining life in {roles.left!r} falls by {fall:.4g} while the life ({life}) grows by 1, so their "
            f"units differ; name the column that counts life in the same unit (--life), or convert {roles.left!r}"
        )
