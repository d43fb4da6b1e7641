"""Parts of the answers of accounts that several of them have."""

from dataclasses import asdict

from aurum.api.accounting.carbon import FactorSummary
from aurum.api.serializers import to_datetime
from aurum.api.sustainability_schemas import DemandOut, FactorOut
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.cost import DemandCharge


def factor_out(summary: FactorSummary) -> FactorOut:
    """Returns the answer for the emission factors of a zone."""
    fields = asdict(summary) | {"missing": [to_datetime(hour * HOUR_US) for hour in summary.missing]}
    return FactorOut.model_validate(fields)


def demand_out(charge: DemandCharge) -> DemandOut:
    """Returns the answer for a demand charge."""
    return DemandOut(
        site=charge.site,
        month=charge.month,
        start=to_datetime(charge.hour * HOUR_US),
        kw=charge.kw,
        month_share=charge.month_share,
        cost=charge.cost,
    )
