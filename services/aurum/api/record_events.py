"""Decodes maintenance records from the events of the store."""

from aurum.maintenance.records import Record, RecordError, decode
from aurum.runtime import damage
from aurum.v1 import ingestion_pb2


def decode_record(event: ingestion_pb2.Event, consequence: str) -> Record | None:
    """Decodes a maintenance record. Returns None and reports the damage if it cannot be read.

    Args:
        event: The event.
        consequence: What happens without the record, for the report.
    """
    try:
        return decode(event.at_us, event.id, event.content)
    except RecordError as error:
        name = f"maintenance record {event.id} of machine {event.machine_id} at {event.at_us}"
        damage.report("event", name, str(error), consequence)
        return None
