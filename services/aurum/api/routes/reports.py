"""Reports on the alarms of a period: what a shift hands over, and whether operators can work with the alarms."""

import asyncio
import time
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from aurum.alarms.figures import Frequency, alarm_figures
from aurum.alarms.handover import HandoverReport, OpenAlarm, handover_report
from aurum.alarms.lifecycle import AlarmState
from aurum.alarms.period import PeriodAlarm
from aurum.api.alarm_groups import group_of_entries, group_text, shown_machine
from aurum.api.alarm_reports import ReportedPeriod, read_alarms_of_period
from aurum.api.context import ApiContext, Caller, Context
from aurum.api.long_answers import QueryPlace
from aurum.api.report_csv import handover_csv
from aurum.api.report_schemas import (
    AlarmFiguresOut,
    FrequencyOut,
    HandoverOut,
    OpenAlarmOut,
    RaisedAlarmOut,
    ShelvedAlarmOut,
    WorstMachineOut,
)
from aurum.api.routes.alarm_journal import machines_at, transition_out
from aurum.api.routes.alarms import require_loaded
from aurum.api.serializers import parse_query_time, to_datetime, to_optional_datetime
from aurum.api.table_export import CSV

router = APIRouter(prefix="/api/reports", tags=["reports"], dependencies=[QueryPlace])

_MOST_POSITIONS = 1000


async def _reported_period(
    context: Context,
    caller: Caller,
    start: Annotated[str, Query(description="Start, inclusive; ISO 8601 or a number since 1970.")],
    end: Annotated[
        str | None, Query(description="End, exclusive; ISO 8601 or a number since 1970. By default the present.")
    ] = None,
    site: Annotated[str, Query(description="Only alarms of machines at this site.")] = "",
) -> ReportedPeriod:
    require_loaded(context)
    now_us = int(time.time() * 1e6)
    end_us = min(parse_query_time("end", end) or now_us, now_us)
    return await read_alarms_of_period(
        context, parse_query_time("start", start), end_us, machines_at(context, caller, site)
    )


Reported = Annotated[ReportedPeriod, Depends(_reported_period)]
Site = Annotated[str, Query(description="Only alarms of machines at this site.")]


@router.get("/handover", response_model=HandoverOut)
async def handover(
    context: Context,
    period: Reported,
    site: Site = "",
    format: Annotated[Literal["json", "csv"], Query(description="Format of the answer.")] = "json",  # noqa: A002
) -> Response | HandoverOut:
    """Returns what a shift hands over: open, raised, cleared and shelved alarms, comments, and the worst machines."""
    report = await asyncio.to_thread(handover_report, period.alarms, period.start_us, period.end_us)
    answer = _handover_out(context, report, period, site)
    if format == "json":
        return answer
    name = f"handover-{answer.end:%Y%m%dT%H%MZ}.csv"
    return Response(
        handover_csv(answer), media_type=CSV, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@router.get("/alarms")
async def figures(
    context: Context,
    period: Reported,
    site: Site = "",
    positions: Annotated[
        int, Query(ge=1, le=_MOST_POSITIONS, description="Operator positions between which the alarms are divided.")
    ] = 1,
) -> AlarmFiguresOut:
    """Returns figures by ANSI/ISA-18.2 and EEMUA 191: rates, most frequent alarms, chattering, stale, floods."""
    found = await asyncio.to_thread(alarm_figures, period.alarms, period.start_us, period.end_us, positions)
    return AlarmFiguresOut.model_validate(
        asdict(found)
        | {
            "positions": positions,
            "top_rules": [_rule_frequency(context, each) for each in found.top_rules],
            "start": to_datetime(period.start_us),
            "end": to_datetime(period.end_us),
            "site": site,
            "complete_from": to_datetime(period.complete_from_us),
        }
    )


def _rule_frequency(context: ApiContext, frequency: Frequency) -> FrequencyOut:
    rule = context.alarm_service.rule(frequency.name)
    return FrequencyOut(
        name=frequency.name, text=rule.text if rule else None, count=frequency.count, share=frequency.share
    )


def _handover_out(context: ApiContext, report: HandoverReport, period: ReportedPeriod, site: str) -> HandoverOut:
    return HandoverOut(
        start=to_datetime(period.start_us),
        end=to_datetime(period.end_us),
        site=site,
        complete_from=to_datetime(period.complete_from_us),
        raised=report.raised,
        cleared=report.cleared,
        acknowledged=report.acknowledged,
        open_count=report.open_count,
        shelved_count=report.shelved_count,
        comment_count=report.comment_count,
        open=[_open_out(context, each) for each in report.open],
        raised_alarms=[
            RaisedAlarmOut(**_about(context, alarm), priority=alarm.priority, count=count)
            for alarm, count in report.raised_alarms
        ],
        shelved=[
            ShelvedAlarmOut(
                **_about(context, alarm),
                until=to_datetime(shelving.until_us),
                by=shelving.by or None,
                reason=shelving.reason or None,
            )
            for alarm, shelving in report.shelved
        ],
        comments=[transition_out(context, entry) for entry in report.comments],
        worst=[
            WorstMachineOut(machine_id=each.machine_id, raised=each.raised, open=each.open) for each in report.worst
        ],
    )


def _open_out(context: ApiContext, opened: OpenAlarm) -> OpenAlarmOut:
    state: AlarmState = "returned" if not opened.active else "acknowledged" if opened.acknowledged else "unacknowledged"
    return OpenAlarmOut(
        **_about(context, opened.alarm),
        priority=opened.alarm.priority,
        state=state,
        raised_at=to_optional_datetime(opened.since_us),
    )


def _about(context: ApiContext, alarm: PeriodAlarm) -> dict[str, Any]:
    """Returns the id, machine or group, rule and text of an alarm."""
    present = alarm.alarm
    rule = context.alarm_service.rule(present.rule)
    gateway, site = group_of_entries(present, alarm.entries) if present.is_parent else ("", "")
    stated = next((entry.text for entry in reversed(alarm.entries) if entry.text), "") or present.text
    text = group_text(gateway, site) if present.is_parent else stated
    return {
        "id": present.alarm_id,
        "machine_id": shown_machine(present.machine_id),
        "gateway": gateway or None,
        "site": site or None,
        "rule": present.rule,
        "text": text or (rule.text if rule else present.rule),
    }
