"""Computes how often an alarm rule would have raised alarms in the last week, from stored readings and predictions."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from aurum.alarms.conditions import Observation
from aurum.alarms.replay import RuleReplay
from aurum.alarms.rules import AlarmRule
from aurum.api.backends import IngestionBackend
from aurum.api.machine_cache import MachineCache
from aurum.readings.transport.query_columns import decode_columns
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import InvalidArgumentError, NotFoundError, ResourceExhaustedError
from aurum.runtime.time_units import DAY_US
from aurum.v1 import columns_pb2, ingestion_pb2, prediction_pb2

_SPAN_US = 7 * DAY_US
_MOST_MACHINES = 500
_MOST_READINGS = 5_000_000  # readings and predictions of all machines
_MOST_OF_A_QUERY = 1_000_000  # readings, which are in memory at a time
_MOST_PREDICTIONS = 11_000  # of one machine: one a minute for the week
_MOST_SECONDS = 10.0
_MOST_AT_ONCE = 8  # machines of a query; it begins with one, since each may have very many readings
_MOST_LISTED = 10  # machines in the answer

StoppedBy = Literal["machines", "readings", "time"]


@dataclass(frozen=True, slots=True)
class PreviewedMachine:
    """How often a rule would have raised the alarm of one machine, and when last, in µs since 1970."""

    machine_id: str
    raised: int
    last_us: int


@dataclass(slots=True)
class Preview:
    """The alarms that a rule would have raised. Times are in µs since 1970.

    Attributes:
        start_us: The beginning of the week.
        end_us: Its end.
        machines_in_all: Machines to which the rule applies and which have its sensor.
        raised: Alarms.
        machines: Machines that were examined.
        machines_with_data: Those that had readings or predictions.
        readings: Readings or predictions that were examined.
        data_from_us: Time of the earliest one; 0 if there were none.
        stopped_by: The limit that ended it early; None if all machines were examined.
        most: The machines with most alarms.
    """

    start_us: int
    end_us: int
    machines_in_all: int
    raised: int = 0
    machines: int = 0
    machines_with_data: int = 0
    readings: int = 0
    data_from_us: int = 0
    stopped_by: StoppedBy | None = None
    most: list[PreviewedMachine] = field(default_factory=list)

    def add(self, replays: Mapping[str, RuleReplay]) -> None:
        """Adds machines that have been replayed to the end."""
        for machine_id, replay in replays.items():
            self.machines += 1
            if replay.values:
                self.machines_with_data += 1
                self.data_from_us = min(self.data_from_us or replay.first_us, replay.first_us)
            if replay.raised:
                self.raised += replay.raised
                self.most.append(PreviewedMachine(machine_id, replay.raised, replay.last_us))
        self.most.sort(key=lambda each: (-each.raised, each.machine_id))
        del self.most[_MOST_LISTED:]


class RulesPreview:
    """Computes previews, one at a time."""

    def __init__(
        self,
        ingestion: IngestionBackend,
        machines: MachineCache,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """clock: Present time in seconds since 1970."""
        self._ingestion = ingestion
        self._machines = machines
        self._clock = clock
        self._running = asyncio.Lock()

    async def compute(self, rule: AlarmRule) -> Preview:
        """Returns the preview of a rule.

        Raises:
            ResourceExhaustedError: Another preview is being computed.
            AurumError: The store did not answer.
        """
        if self._running.locked():
            raise ResourceExhaustedError(
                "another preview is being computed; try again in a few seconds", reason="PREVIEW_RUNNING", retry_after=5
            )
        async with self._running:
            with criticality_scope(Criticality.BATCH):
                return await self._compute(rule)

    async def _compute(self, rule: AlarmRule) -> Preview:
        deadline = time.monotonic() + _MOST_SECONDS
        machine_ids = self._concerned(rule)
        end_us = int(self._clock() * 1e6)
        preview = Preview(end_us - _SPAN_US, end_us, len(machine_ids))
        for batch in _batches(machine_ids[:_MOST_MACHINES]):
            replays = {machine_id: RuleReplay(rule) for machine_id in batch}
            preview.stopped_by = await self._replay(rule, replays, preview, deadline)
            if preview.stopped_by is not None:
                return preview  # machines of which a part was read do not count
            preview.add(replays)
        if len(machine_ids) > _MOST_MACHINES:
            preview.stopped_by = "machines"
        return preview

    def _concerned(self, rule: AlarmRule) -> list[str]:
        """Returns the machines to which a rule applies and which have its sensor, sorted."""
        sensor = rule.sensor_name
        return sorted(
            view.machine.machine_id
            for view in self._machines.changed_since(-1)
            if rule.applies_to(view.machine.machine_type)
            and (not sensor or any(state.sensor == sensor for state in view.machine.sensors))
        )

    async def _replay(
        self, rule: AlarmRule, replays: Mapping[str, RuleReplay], preview: Preview, deadline: float
    ) -> StoppedBy | None:
        """Replays the week of some machines. Returns the limit that ended it; None at the end of the week."""
        if rule.stale is None and not rule.sensor_name:
            return await self._replay_predictions(replays, preview, deadline)
        for start_us in range(preview.start_us, preview.end_us, DAY_US):
            if preview.readings >= _MOST_READINGS:
                return "readings"
            if time.monotonic() > deadline:
                return "time"
            try:
                columns = await self._ingestion.query_readings(
                    ingestion_pb2.QueryRequest(
                        machine_ids=list(replays),
                        sensors=[rule.sensor_name] if rule.sensor_name else [],
                        start_us=start_us,
                        end_us=min(start_us + DAY_US, preview.end_us),
                        max_readings=_MOST_OF_A_QUERY,
                        once=True,
                    )
                )
            except InvalidArgumentError:  # they have more readings than one query may return
                return "readings"
            preview.readings += await asyncio.to_thread(_add, rule, replays, columns)
        for replay in replays.values():
            replay.finish(preview.end_us)
        return None

    async def _replay_predictions(
        self, replays: Mapping[str, RuleReplay], preview: Preview, deadline: float
    ) -> StoppedBy | None:
        for machine_id, replay in replays.items():
            if preview.readings >= _MOST_READINGS:
                return "readings"
            if time.monotonic() > deadline:
                return "time"
            try:
                predictions = await self._ingestion.list_predictions(
                    machine_id, preview.start_us, preview.end_us, _MOST_PREDICTIONS
                )
            except NotFoundError:  # it is known from the view only
                continue
            preview.readings += await asyncio.to_thread(_add_predictions, replay, predictions, preview.end_us)
        return None


def _batches(machine_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    start, size = 0, 1
    while start < len(machine_ids):
        yield machine_ids[start : start + size]
        start, size = start + size, min(2 * size, _MOST_AT_ONCE)


def _add(rule: AlarmRule, replays: Mapping[str, RuleReplay], columns: Sequence[columns_pb2.QueriedColumns]) -> int:
    """Adds the readings of a day to the replays. Returns their number."""
    count = 0
    decoded = decode_columns(columns)
    for machine_id, series in itertools.groupby(decoded, key=lambda each: each[0].machine_id):
        replay = replays.get(machine_id)
        if replay is None:
            continue
        if rule.stale is not None:
            all_times = [times for _, times, _ in series]
            count += sum(map(len, all_times))
            replay.add_times(np.unique(np.concatenate(all_times)))
            continue
        for _, times, values in series:
            count += len(times)
            replay.add_readings(times, values)
    return count


def _add_predictions(replay: RuleReplay, predictions: Sequence[prediction_pb2.PredictResponse], end_us: int) -> int:
    """Adds the predictions of a machine, which are the newest first, to its replay. Returns their number."""
    for prediction in reversed(predictions):
        if prediction.model_version and not prediction.rescored:
            replay.add_prediction(_observed(prediction))
    replay.finish(end_us)
    return len(predictions)


def _observed(prediction: prediction_pb2.PredictResponse) -> Observation:
    """Returns what alarm rules see of a prediction."""
    unknown = prediction.degraded or bool(prediction.risk_unknown_reason)
    return Observation(
        prediction.as_of_us,
        prediction.as_of_us,
        {},
        risk=None if unknown else prediction.risk_score,
        rul=prediction.rul.estimate if prediction.HasField("rul") else None,
        anomaly=prediction.anomaly_score,
        predicted_us=prediction.as_of_us,
        anomaly_threshold=prediction.anomaly_threshold,
    )
