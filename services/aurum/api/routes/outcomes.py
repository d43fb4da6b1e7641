"""What became of predictions: hits, false alarms, lead times and calibration by month."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from aurum.api.context import Context, require_feature
from aurum.api.outcome_schemas import CalibrationBin, OutcomeMonth, OutcomesOut
from aurum.maintenance.scorecard import SCORECARD, ScorecardError, decode
from aurum.maintenance.track_record import month_of
from aurum.runtime import damage
from aurum.v1 import ingestion_pb2

router = APIRouter(tags=["predictions"], dependencies=[Depends(require_feature("predictive"))])


@router.get("/api/outcomes")
async def outcomes(
    context: Context,
    machine_type: Annotated[str | None, Query(description="Only this machine type; all by default.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> OutcomesOut:
    """Returns what became of the recorded predictions, by machine type and month."""
    events = await context.ingestion.list_events(
        SCORECARD, "", 0, 0, limit, lambda event: machine_type in (None, event.id)
    )
    return OutcomesOut(items=[item for event in events if (item := _item(event)) is not None])


def _item(event: ingestion_pb2.Event) -> OutcomeMonth | None:
    try:
        month, unit = decode(event.content)
        return OutcomeMonth(
            machine_type=event.id,
            month=month_of(event.at_us),
            predictions=month.forecasts,
            undecided=month.undecided,
            failures=month.failures,
            predicted_failures=month.predicted,
            false_warnings=month.false_warnings,
            undecided_warnings=month.undecided_warnings,
            lead_time=month.lead_time,
            unit=unit,
            mean_risk=month.mean_risk,
            failure_rate=month.failure_rate,
            calibration_error=month.calibration_error,
            skill=month.skill,
            calibration=[
                CalibrationBin(risk=told / count, failure_rate=true / count, predictions=count)
                for told, true, count in zip(month.told, month.true, month.decided, strict=True)
                if count
            ],
        )
    except (ScorecardError, ValueError, TypeError, OverflowError) as error:
        damage.report("event", f"scorecard {event.id} at {event.at_us}", str(error), "it is left out of the list")
        return None
