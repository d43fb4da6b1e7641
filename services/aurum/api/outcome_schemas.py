"""JSON models of what became of predictions."""

from pydantic import BaseModel, Field


class CalibrationBin(BaseModel):
    """The predictions of one range of risk: mean risk, share of failures, and their number."""

    risk: float
    failure_rate: float
    predictions: int


class OutcomeMonth(BaseModel):
    """What became of the predictions for a machine type in a month."""

    machine_type: str
    month: str = Field(examples=["2026-05"])
    predictions: int = Field(description="Predictions whose outcome is known.")
    undecided: int = Field(description="Predictions whose outcome is not known.")
    failures: int = Field(description="Failures of machines with predictions.")
    predicted_failures: int = Field(description="Those that a warning, a risk of at least 0.5, preceded.")
    false_warnings: int = Field(description="Warnings after which the machine ran on beyond the horizon.")
    undecided_warnings: int = Field(description="Warnings whose outcome is not known.")
    lead_time: float | None = Field(description="Median life between the warning and the failure.")
    unit: str = Field(description="Unit of the lead time.")
    mean_risk: float | None
    failure_rate: float | None = Field(description="Share of the predictions that a failure followed in time.")
    calibration_error: float | None
    skill: float | None = Field(
        description="Share by which the squared error is less than that of the failure rate; null without failures."
    )
    calibration: list[CalibrationBin]


class OutcomesOut(BaseModel):
    """What became of predictions."""

    items: list[OutcomeMonth] = Field(description="Items, the newest month first.")
