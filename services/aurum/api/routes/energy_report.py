"""The monthly report on energy, its cost, carbon and water, as JSON, PDF or XLSX."""

import asyncio
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from aurum.api.accounting.budget import AccountReservation
from aurum.api.accounting.carbon import account_sites
from aurum.api.accounting.group_measurement import UseNotes
from aurum.api.accounting.measurement import MachineSelection, measure_use
from aurum.api.context import ApiContext, Caller, Context, require_feature
from aurum.api.energy_report.content import ReportAccounts, ReportedMonth, energy_report, resolve_month
from aurum.api.energy_report.document import report_document
from aurum.api.energy_report.pdf import write_pdf
from aurum.api.energy_report.schemas import EnergyReportOut, Language
from aurum.api.energy_report.xlsx import write_xlsx
from aurum.api.long_answers import QueryPlace
from aurum.api.routes.accounts import AccountQuery, common_fields
from aurum.api.scope import resolve_site
from aurum.sustainability.cost import account_costs, is_metered
from aurum.sustainability.machine_use import MachineUse, Quantity

router = APIRouter(
    prefix="/api/reports", tags=["reports"], dependencies=[Depends(require_feature("energy")), QueryPlace]
)

_MEDIA_TYPES = {
    "pdf": "application/pdf",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {200: {"content": {media: {} for media in _MEDIA_TYPES.values()}}}


@router.get("/energy", response_model=EnergyReportOut, responses=_RESPONSES)
async def report(  # noqa: PLR0917 - query parameters
    context: Context,
    caller: Caller,
    month: Annotated[str, Query(max_length=20, description="The month, such as 2026-10.")],
    site: Annotated[str, Query(description="Only machines of this site.")] = "",
    language: Annotated[Language, Query(description="Language of the texts.")] = "en",
    format: Annotated[Literal["json", "pdf", "xlsx"], Query(description="Format of the answer.")] = "json",  # noqa: A002
) -> EnergyReportOut | Response:
    """Returns the energy of a month with its cost, emissions and water: by site, type and machine, and day by day.

    The month is that of the time zone of the site or, without a site, that of all sites; UTC if theirs differ.
    """
    site = resolve_site(caller, site)
    reported = resolve_month(month, context.accounting_plan.timezone_of(site), int(time.time() * 1e6))
    with context.account_budget.reservation() as reservation:
        found = await _report(context, site, reported, language, reservation)
    if format == "json":
        return found
    content = await asyncio.to_thread(_encode, found, format)
    name = "-".join(["energy", *([_file_name(site)] if site else []), f"{reported.name}.{format}"])
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=_MEDIA_TYPES[format], headers=headers)


async def _report(
    context: ApiContext, site: str, month: ReportedMonth, language: Language, reservation: AccountReservation
) -> EnergyReportOut:
    plan, settings = context.accounting_plan, context.settings
    quantities: tuple[Quantity, ...] = ("energy", "water") if settings.feature_water else ("energy",)
    selection = MachineSelection(site=site)
    used = await measure_use(context.ingestion, plan, selection, month.over, quantities, reservation)
    metered = [use for use in used if is_metered(use)]
    costs = await asyncio.to_thread(account_costs, metered, month.over, plan, whole_sites=True)
    carbon = None
    if settings.feature_carbon:
        drawing = [use for use in used if use.energy is not None]
        carbon = await account_sites(drawing, month.over, plan, context.emission_factors)
    query = AccountQuery(selection, month.over, "site", "json", reservation)
    accounts = ReportAccounts([use for use in used if _is_reported(use)], costs, carbon)
    common = common_fields(query, UseNotes.of(used, _is_reported))
    del common["group_by"]  # the report has several groups
    return await asyncio.to_thread(energy_report, month, site, language, accounts, common)


def _is_reported(use: MachineUse) -> bool:
    return is_metered(use) or use.water is not None


def _encode(found: EnergyReportOut, form: Literal["pdf", "xlsx"]) -> bytes:
    document = report_document(found)
    return write_pdf(document) if form == "pdf" else write_xlsx(document)


def _file_name(site: str) -> str:
    """Returns a site as a part of a file's name, which a header may contain."""
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._") else "_" for sign in site)
