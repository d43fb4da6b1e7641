"""Reads what a machine measured of late, and finds the stops after which it reads as at the beginning of its life."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aurum.api.backends import IngestionBackend
from aurum.api.record_events import decode_record
from aurum.maintenance.lives import stops_of
from aurum.maintenance.records import RECORD, Record
from aurum.maintenance.renewal_signs import RenewalSign, renewal_signs
from aurum.readings.batch import Column
from aurum.readings.history import AXES, FAULT, LIFE_NUMBERS, align, split_runs
from aurum.readings.transport.query_columns import decode_columns
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.time_units import DAY_US
from aurum.v1 import columns_pb2, ingestion_pb2

SPAN_DAYS = 90  # that are examined
MOST_SENSORS = 32
_POINTS = 3000  # to which each series is reduced
_SENSORS_AT_ONCE = 4  # in a query
_MOST_SECONDS = 5.0  # for the queries of a request
_TELLING = AXES.keys() | LIFE_NUMBERS | {FAULT}  # sensors that tell of lives, without which known ones are suggested
_MOST_RECORDS = 1000
_WITHOUT_RECORD = "it is left out of what is known of the machine's lives"
_EXAMINATION = ThreadPoolExecutor(1, thread_name_prefix="life-suggestions")


@dataclass(frozen=True, slots=True)
class LifeSuggestions:
    """What the readings of a machine suggest of its lives.

    Attributes:
        since_us: The beginning of what was examined, in µs since 1970.
        sensors: The sensors that were examined.
        left_out: The number of sensors that were not.
        signs: The stops after which it reads as at the beginning of its life, the newest first.
    """

    since_us: int
    sensors: Sequence[str]
    left_out: int
    signs: Sequence[RenewalSign]


async def life_suggestions(ingestion: IngestionBackend, machine_id: str) -> LifeSuggestions:
    """Returns what the last readings of a machine suggest of its lives. Raises AurumError.

    Lives are divided first by what is known of them: records, life counters and fault signals.
    """
    machine = await ingestion.get_machine(machine_id)
    since_us = max(machine.first_seen_us, time.time_ns() // 1000 - SPAN_DAYS * DAY_US)
    names = sorted((each.sensor for each in machine.sensors), key=lambda name: (name.lower() not in _TELLING, name))
    with criticality_scope(Criticality.BATCH):
        events = await ingestion.list_events(RECORD, machine_id, 0, 0, _MOST_RECORDS)
        series, examined = await _reduced(ingestion, machine_id, names[:MOST_SENSORS], since_us)
    records = [record for event in events if (record := decode_record(event, _WITHOUT_RECORD)) is not None]
    found = await asyncio.get_running_loop().run_in_executor(_EXAMINATION, _signs, machine_id, series, records)
    return LifeSuggestions(since_us, names[:examined], len(names) - examined, found)


async def _reduced(
    ingestion: IngestionBackend, machine_id: str, names: Sequence[str], since_us: int
) -> tuple[list[columns_pb2.QueriedColumns], int]:
    """Returns the readings of as many sensors as can be read within _MOST_SECONDS, and how many these are."""
    series: list[columns_pb2.QueriedColumns] = []
    began = time.monotonic()
    for start in range(0, len(names), _SENSORS_AT_ONCE):
        if time.monotonic() - began > _MOST_SECONDS:
            return series, start
        request = ingestion_pb2.QueryRequest(
            machine_ids=[machine_id],
            sensors=names[start : start + _SENSORS_AT_ONCE],
            start_us=max(1, since_us),
            points=_POINTS,
            once=True,
        )
        series += await ingestion.query_readings(request)
    return series, len(names)


def _signs(
    machine_id: str, answered: Sequence[columns_pb2.QueriedColumns], records: Sequence[Record]
) -> list[RenewalSign]:
    columns: dict[str, Column] = {}
    for each, times, values in decode_columns(answered):
        columns[each.sensor] = (times, values)
    if not columns:
        return []
    timestamps, aligned = align(columns)
    lives = split_runs(machine_id, timestamps, aligned, ends_in_failure=False, stops=stops_of(records))
    return [sign for life in reversed(lives) for sign in reversed(renewal_signs(life, records))]
