"""Asks ingestion what the meters of machines measured."""

from collections.abc import Sequence

from aurum.api.backends import IngestionBackend
from aurum.readings.transport.query_columns import decode_floats
from aurum.sustainability.counters import Correction, CorrectionKind
from aurum.sustainability.hourly import TimeRange
from aurum.sustainability.machine_use import MeterReport
from aurum.sustainability.plan import FlowMeter, Meters, PowerMeter
from aurum.v1 import columns_pb2, ingestion_pb2

_Meter = PowerMeter | FlowMeter | str
_KINDS: dict[str, CorrectionKind] = {
    kind: kind for kind in ("false_reading", "jitter", "wrap", "restart", "replacement", "gap", "long_gap")
}


async def read_reports(
    ingestion: IngestionBackend, machine_ids: Sequence[str], meters: Meters, over: TimeRange, longest_gap: float
) -> dict[str, dict[_Meter, MeterReport]]:
    """Returns what meters measured in each hour, from all of their readings, by machine.

    Args:
        ingestion: Client of the ingestion service.
        machine_ids: The machines.
        meters: Their meters.
        over: The time range.
        longest_gap: Seconds. Time between two readings that are further apart is not covered.

    Raises:
        AurumError: Ingestion did not answer.
    """
    reports: dict[str, dict[_Meter, MeterReport]] = {machine_id: {} for machine_id in machine_ids}
    asked = _meters_of(meters)
    if not asked or not machine_ids:
        return reports
    request = ingestion_pb2.IntegrateRequest(
        machine_ids=machine_ids,
        meters=[_meter_message(meter) for meter in asked],
        start_us=over.start,
        end_us=over.end,
        longest_gap_us=round(longest_gap * 1e6),
    )
    for each in await ingestion.integrate_meters(request):
        reports[each.machine_id][asked[each.meter]] = _report(each)
    return reports


def _meters_of(meters: Meters) -> list[_Meter]:
    named = (meters.power, meters.feed_in, meters.water, meters.production, meters.temperature)
    return [*dict.fromkeys(meter for meter in named if meter)]


def _meter_message(meter: _Meter) -> ingestion_pb2.Meter:
    if isinstance(meter, str):
        return ingestion_pb2.Meter(sensor=meter)
    both_ways = isinstance(meter, PowerMeter) and meter.bidirectional
    if meter.kind != "counter":
        return ingestion_pb2.Meter(sensor=meter.sensor, both_ways=both_ways)
    rules = meter.rules
    return ingestion_pb2.Meter(
        sensor=meter.sensor,
        both_ways=both_ways,
        counter=ingestion_pb2.CounterMeter(
            modulus=rules.modulus or 0.0,
            detects_registers=rules.detects_registers,
            recovery_seconds=rules.recovery_seconds,
        ),
    )


def _report(columns: columns_pb2.MeterColumns) -> MeterReport:
    corrections = [ingestion_pb2.CounterCorrection.FromString(each) for each in columns.corrections]
    return MeterReport(
        decode_floats(columns.amounts),
        decode_floats(columns.reverse_amounts) if columns.reverse_amounts else None,
        decode_floats(columns.covered_seconds),
        columns.bridged_seconds,
        [Correction(_KINDS[each.kind], each.start_us, each.end_us, each.amount) for each in corrections],
        dict(columns.correction_counts),
    )
