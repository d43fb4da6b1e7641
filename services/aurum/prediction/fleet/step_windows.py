"""Windows of steps of many machines, kept up to date reading by reading.

The means of the steps are the same, bit by bit, as those that `steps_of` computes from all readings at once: the sum of
a step grows in the order of the readings, and is divided by their number.
"""

import numpy as np
import numpy.typing as npt

from aurum.prediction.model.features import WINDOW, Matrix, to_single
from aurum.readings.batch import Values

Integers = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]

NO_STEP = np.iinfo(np.int64).min
_STEP_BYTES, _SINGLE_BYTES = 8, 4
_OPEN_BYTES = 24  # step, sum and number of readings of the open step of a sensor


class StepWindows:
    """The last WINDOW steps of machines, as rows of one array. Memory is used by rows that were added only.

    Attributes:
        last_step: The last step of each row in which any sensor has a value; NO_STEP without any.
    """

    def __init__(self, sensors: int, capacity: int, *, single: bool = False) -> None:
        """Creates windows without machines.

        Args:
            sensors: Number of sensors.
            capacity: Greatest number of machines.
            single: Whether means are kept in single precision, see FeatureSpec.
        """
        self._single = single
        # Memory that is not touched is not used, so the arrays have their greatest size from the beginning
        self._means = np.empty((capacity, sensors, WINDOW), np.float32 if single else np.float64)
        self._open_step = np.empty((capacity, sensors), np.int64)
        self._open_sum = np.empty((capacity, sensors))
        self._open_count = np.empty((capacity, sensors), np.int64)
        self.last_step = np.empty(capacity, np.int64)

    @staticmethod
    def row_bytes(sensors: int, *, single: bool = False) -> int:
        """Returns the memory of one machine, in bytes."""
        return sensors * (WINDOW * (_SINGLE_BYTES if single else _STEP_BYTES) + _OPEN_BYTES) + _STEP_BYTES

    def clear(self, row: int) -> None:
        """Removes all steps of a machine."""
        self._means[row] = np.nan
        self._open_step[row] = NO_STEP
        self._open_sum[row] = 0.0
        self._open_count[row] = 0
        self.last_step[row] = NO_STEP

    def copy_row(self, row: int) -> "StepWindows":
        """Returns windows of one machine, row 0, with the steps of `row`."""
        copy = StepWindows(self._means.shape[1], 1, single=self._single)
        copy._means[0] = self._means[row]
        copy._open_step[0] = self._open_step[row]
        copy._open_sum[0] = self._open_sum[row]
        copy._open_count[0] = self._open_count[row]
        copy.last_step[0] = self.last_step[row]
        return copy

    def add(self, rows: Rows, sensors: Rows, steps: Integers, values: Values) -> None:
        """Adds readings, sorted by row, sensor and time, later than those that were added before. No value is NaN.

        Args:
            rows: The row of each reading.
            sensors: The index of its sensor.
            steps: Its step. The steps of a sensor do not decrease.
            values: Its value.
        """
        if not len(rows):
            return
        self._advance(rows, steps)
        first = np.empty(len(rows), np.bool_)  # of the readings of a sensor in a step
        first[0] = True
        series_begins = (rows[1:] != rows[:-1]) | (sensors[1:] != sensors[:-1])
        first[1:] = series_begins | (steps[1:] != steps[:-1])
        begins = np.flatnonzero(first)
        group = np.cumsum(first) - 1
        group_row, group_sensor, group_step = rows[begins], sensors[begins], steps[begins]
        of_series = np.empty(len(begins), np.bool_)  # the first step of a sensor
        of_series[0] = True
        of_series[1:] = series_begins[begins[1:] - 1]
        continues = np.flatnonzero(of_series & (self._open_step[group_row, group_sensor] == group_step))
        # The former sum comes first, so that the sum is formed in the order of the readings
        sums = np.bincount(
            np.concatenate([continues, group]),
            weights=np.concatenate([self._open_sum[group_row[continues], group_sensor[continues]], values]),
            minlength=len(begins),
        )
        counts = np.bincount(group, minlength=len(begins))
        counts[continues] += self._open_count[group_row[continues], group_sensor[continues]]
        inside = group_step > self.last_step[group_row] - WINDOW
        means = sums[inside] / counts[inside]
        self._means[group_row[inside], group_sensor[inside], group_step[inside] % WINDOW] = (
            to_single(means) if self._single else means
        )
        last = np.append(np.flatnonzero(of_series)[1:] - 1, len(begins) - 1)
        at = group_row[last], group_sensor[last]
        self._open_step[at], self._open_sum[at], self._open_count[at] = group_step[last], sums[last], counts[last]

    def windows(self, rows: Rows) -> Matrix:
        """Returns windows[row, step, sensor] up to the last step of each row, which must have one."""
        ordered = np.empty((len(rows), *self._means.shape[1:]))
        first = ((self.last_step[rows] + 1) % WINDOW).tolist()
        # Copying two blocks for each machine is faster than picking each value by an index
        for index, (row, start) in enumerate(zip(rows.tolist(), first, strict=True)):
            ordered[index, :, : WINDOW - start] = self._means[row, :, start:]
            ordered[index, :, WINDOW - start :] = self._means[row, :, :start]
        return np.moveaxis(ordered, 1, 2)

    def _advance(self, rows: Rows, steps: Integers) -> None:
        """Makes the greatest of the steps of each row its last step, and clears the steps in between."""
        begins = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
        machines, latest = rows[begins], np.maximum.reduceat(steps, begins)
        before = self.last_step[machines]
        ahead = latest > before
        machines, latest, before = machines[ahead], latest[ahead], before[ahead]
        if not len(machines):
            return
        # The difference of the least int64 and a step may exceed int64
        count = np.where(before == NO_STEP, 0, np.minimum(latest - np.maximum(before, latest - WINDOW), WINDOW))
        for back in range(int(count.max(initial=0))):
            cleared = count > back
            self._means[machines[cleared], :, (latest[cleared] - back) % WINDOW] = np.nan
        self.last_step[machines] = latest
