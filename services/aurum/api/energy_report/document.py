"""The energy report as sections of tables and paragraphs, which each file format writes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal
from zoneinfo import ZoneInfo

from aurum.api.energy_report.schemas import EnergyReportOut, ReportedUse, ReportLine
from aurum.api.energy_report.texts import ReportTexts, load_texts

Kind = Literal["text", "amount", "money", "percent", "factor", "count", "time", "day"]
Cell = str | float | int | datetime | date | None

DECIMALS: dict[Kind, int] = {"amount": 1, "money": 2, "percent": 1, "factor": 4, "count": 0}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title, and the kind of its cells."""

    title: str
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Section:
    """A table with a title and a remark, or paragraphs.

    Attributes:
        title: The title.
        columns: The columns; none if it has no table.
        rows: The rows of the table. A cell that is None is not known or not accounted.
        paragraphs: Texts below the table.
    """

    title: str
    columns: Sequence[Column] = ()
    rows: Sequence[Sequence[Cell]] = ()
    paragraphs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ReportDocument:
    """The report in the order in which it is read."""

    title: str
    period: str
    sections: Sequence[Section]
    texts: ReportTexts


def report_document(report: EnergyReportOut) -> ReportDocument:
    """Arranges a report as tables."""
    texts = load_texts(report.language)
    zone = ZoneInfo(report.timezone)
    period = texts["period"].format(
        month=report.month,
        site=report.site or texts["all_sites"],
        start=f"{report.start.astimezone(zone):%Y-%m-%d %H:%M}",
        end=f"{report.end.astimezone(zone):%Y-%m-%d %H:%M}",
        timezone=report.timezone,
    )
    sections = [
        _summary(report, texts),
        _lines(texts["sites"], report.sites, report, texts),
        _lines(texts["types"], report.types, report, texts),
        _lines(texts["machines"], report.machines, report, texts),
        _days(report, texts),
        _prices(report, texts),
        _demand(report, texts, zone),
        _factors(report, texts),
        _contracts(report, texts),
        _corrections(report, texts, zone),
        Section(texts["method"], paragraphs=report.method),
        Section(texts["notes"], paragraphs=[note.text for note in report.notes]),
    ]
    kept = [section for section in sections if section.rows or section.paragraphs]
    return ReportDocument(texts["title"], period, kept, texts)


def _summary(report: EnergyReportOut, texts: ReportTexts) -> Section:
    total = report.total
    rows: list[tuple[str, float | None, str]] = [
        (texts["energy"], total.energy_kwh, "kWh"),
        (texts["estimated"], total.estimated_kwh, "kWh"),
        (texts["coverage"].removesuffix(" %"), total.coverage * 100, "%"),
        (texts["fed_in"], total.fed_in_kwh, "kWh"),
        (texts["location"], total.location_kgco2e, "kgCO2e"),
        (texts["market"], total.market_kgco2e, "kgCO2e"),
        (texts["water"], total.water_litres, "l"),
    ]
    for cost in report.costs:
        rows += [
            (texts[name], getattr(cost, name), cost.currency)
            for name in ("cost", "energy_cost", "fixed_cost", "demand_cost", "feed_in_revenue")
        ]
    columns = [Column(texts["quantity"]), Column(texts["value"], "money"), Column(texts["unit"])]
    return Section(texts["summary"], columns, [row for row in rows if row[1] is not None])


def _lines(title: str, lines: Sequence[ReportLine], report: EnergyReportOut, texts: ReportTexts) -> Section:
    columns, cells = _use_columns(report, texts)
    rows = [(line.name or texts["none"], *cells(line)) for line in lines]
    return Section(title, [Column(texts["name"]), *columns], rows)


def _days(report: EnergyReportOut, texts: ReportTexts) -> Section:
    columns, cells = _use_columns(report, texts)
    rows: list[Sequence[Cell]] = [(day.day, *cells(day)) for day in report.days]
    return Section(texts["days"], [Column(texts["day"], "day"), *columns], rows)


def _use_columns(
    report: EnergyReportOut, texts: ReportTexts
) -> tuple[list[Column], Callable[[ReportedUse], list[Cell]]]:
    """Returns the columns of what the report accounts, and a function that returns their cells."""
    names = [
        name
        for name in ("fed_in_kwh", "location_kgco2e", "market_kgco2e", "water_litres")
        if getattr(report.total, name) is not None
    ]
    currencies = [cost.currency for cost in report.costs]
    columns = [
        Column(texts["energy_kwh"], "amount"),
        Column(texts["coverage"], "percent"),
        *(Column(texts[name], "amount") for name in names),
        *(Column(f"{texts['cost']} {currency}", "money") for currency in currencies),
    ]

    def cells(use: ReportedUse) -> list[Cell]:
        costs = {each.currency: each.cost for each in use.costs}
        return [
            use.energy_kwh,
            use.coverage * 100,
            *(getattr(use, name) for name in names),
            *(costs.get(currency) for currency in currencies),
        ]

    return columns, cells


def _prices(report: EnergyReportOut, texts: ReportTexts) -> Section:
    columns = [
        Column(texts["site"]),
        Column(texts["price"]),
        Column(texts["currency"]),
        Column(texts["per_kwh"], "factor"),
        Column(texts["energy_kwh"], "amount"),
        Column(texts["cost"], "money"),
    ]
    rows = [
        (price.site, price.name, price.currency, price.per_kwh, price.energy_kwh, price.cost) for price in report.prices
    ]
    return Section(texts["prices"], columns, rows)


def _demand(report: EnergyReportOut, texts: ReportTexts, zone: ZoneInfo) -> Section:
    columns = [
        Column(texts["site"]),
        Column(texts["month"]),
        Column(texts["start"], "time"),
        Column(texts["kw"], "amount"),
        Column(texts["month_share"], "percent"),
        Column(texts["cost"], "money"),
    ]
    rows = [
        (each.site, each.month, each.start.astimezone(zone), each.kw, each.month_share * 100, each.cost)
        for each in report.demand
    ]
    return Section(texts["demand"], columns, rows)


def _factors(report: EnergyReportOut, texts: ReportTexts) -> Section:
    columns = [
        Column(texts["zone"]),
        Column(texts["basis"]),
        Column(texts["year"], "text"),
        Column(texts["least"], "factor"),
        Column(texts["most"], "factor"),
        Column(texts["hours"], "count"),
        Column(texts["missing_hours"], "count"),
        Column(texts["source"]),
    ]
    rows = [
        (
            factor.zone,
            texts[f"basis.{factor.method}"],
            str(factor.year),
            factor.kg_per_kwh_least,
            factor.kg_per_kwh_most,
            factor.hours,
            factor.missing_hours,
            factor.source,
        )
        for factor in report.factors
    ]
    return Section(texts["factors"], columns, rows)


def _contracts(report: EnergyReportOut, texts: ReportTexts) -> Section:
    columns = [
        Column(texts["site"]),
        Column(texts["contract"]),
        Column(texts["kg_per_kwh"], "factor"),
        Column(texts["matched_kwh"], "amount"),
    ]
    rows = [(each.site, each.name, each.kg_per_kwh, each.matched_kwh) for each in report.contracts]
    return Section(texts["contracts"], columns, rows)


def _corrections(report: EnergyReportOut, texts: ReportTexts, zone: ZoneInfo) -> Section:
    columns = [
        Column(texts["machine"]),
        Column(texts["sensor"]),
        Column(texts["kind"]),
        Column(texts["start"], "time"),
        Column(texts["end"], "time"),
        Column(texts["amount"], "amount"),
        Column(texts["unit"]),
    ]
    rows = [
        (
            each.machine_id,
            each.sensor,
            texts.words.get(f"kind.{each.kind}", each.kind),
            each.start.astimezone(zone),
            each.end.astimezone(zone),
            each.amount,
            each.unit,
        )
        for each in report.corrections
    ]
    count = texts["corrections_count"].format(count=report.corrections_count)
    return Section(texts["corrections"], columns, rows, [count] if rows else [])
