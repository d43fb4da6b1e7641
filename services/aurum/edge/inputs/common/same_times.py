"""Finds values that a later value of the same sensor and time replaces, since the store keeps one value for each time.

Devices that send several values a second with times in whole seconds lose all but one of them.
"""

import numpy as np
import numpy.typing as npt

from aurum.readings.batch import Timestamps, Values


def replaced_positions(sensors: npt.NDArray[np.int32], times: Timestamps, values: Values) -> npt.NDArray[np.int64]:
    """Returns the positions of values that a different one of the same sensor and time follows.

    Args:
        sensors: What tells sensors apart, sorted.
        times: The times of each sensor in the order of arrival, in µs since the epoch.
        values: The values, likewise.
    """
    suspicious = (sensors[1:] == sensors[:-1]) & (times[1:] <= times[:-1])
    if not suspicious.any():  # the times of each sensor increase
        return np.empty(0, np.int64)
    order = np.lexsort((times, sensors))  # stable: in the order of arrival at each time
    sensors, times, values = sensors[order], times[order], values[order]
    replaced = (sensors[1:] == sensors[:-1]) & (times[1:] == times[:-1]) & (values[1:] != values[:-1])
    return np.sort(order[:-1][replaced])
