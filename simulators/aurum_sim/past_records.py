"""The maintenance records of a simulated past, as the API would have stored them."""

from collections.abc import Iterator, Sequence

from aurum.maintenance.records import CHANGE, RECORD, Record, encode, encode_change, new_record
from aurum.readings.history import Stop
from aurum.runtime.time_units import HOUR_US
from aurum.v1 import ingestion_pb2

RECORDED_BY = "simulated plant"


def past_records(machine_id: str, stops: Sequence[Stop]) -> Iterator[ingestion_pb2.Event]:
    """Yields the events of the records of a machine's failures and overhauls, and of their trail."""
    for stop in stops:
        record = new_record(_record_of(stop))
        created_us = record.end_us
        yield ingestion_pb2.Event(
            kind=RECORD, machine_id=machine_id, at_us=record.key_us, id=record.digest, content=encode(record)
        )
        yield ingestion_pb2.Event(
            kind=CHANGE,
            machine_id=machine_id,
            at_us=created_us,
            id=f"{record.digest}.0.{created_us}",
            content=encode_change(record, "created", RECORDED_BY, created_us, None),
        )


def _record_of(stop: Stop) -> Record:
    if stop.failed:
        mode = stop.mode.replace("_", " ")
        hours = ((stop.to_us or stop.from_us) - stop.from_us) / HOUR_US
        return Record(
            stop.from_us,
            "",
            stop.from_us,
            f"Simulated: the machine stopped with a failure ({mode}); it was repaired",
            RECORDED_BY,
            kind="failure",
            to_us=stop.to_us,
            component=mode,
            failure_mode=stop.mode,
            downtime=round(hours, 2),
        )
    return Record(stop.from_us, "", stop.from_us, "Simulated: overhaul", RECORDED_BY, kind="overhaul", to_us=stop.to_us)
