"""Writes the emission factors of countries, `country_factors.csv`, from a table of Our World in Data.

    python -m aurum.sustainability.country_table carbon-intensity-electricity.csv country_factors.csv

The table is https://ourworldindata.org/grapher/carbon-intensity-electricity, licensed CC BY 4.0, with the columns
Entity, Code, Year and the carbon intensity of electricity in gCO2e/kWh.
"""

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from aurum.sustainability.factors import FactorError, check_factor

_FIRST_YEAR = 2019  # of the factors that are written; an earlier hour uses those of this year
_SOURCE = "Ember, Energy Institute, Our World in Data (2025), CC BY 4.0 (all generation, life cycle)"
_COLUMNS = ("zone", "name", "method", "year", "kg_per_kwh", "source")
_WORLD = "OWID_WRL"  # which the table of national authorities has
_EUROPEAN_UNION = "European Union (27)"  # the only group of countries that is a zone; groups have no code
_ZONES = """
    ABW:AW AFG:AF AGO:AO ALB:AL ARE:AE ARG:AR ARM:AM ASM:AS ATG:AG AUS:AU AUT:AT AZE:AZ BDI:BI BEL:BE BEN:BJ BFA:BF
    BGD:BD BGR:BG BHR:BH BHS:BS BIH:BA BLR:BY BLZ:BZ BMU:BM BOL:BO BRA:BR BRB:BB BRN:BN BTN:BT BWA:BW CAF:CF CAN:CA
    CHE:CH CHL:CL CHN:CN CIV:CI CMR:CM COD:CD COG:CG COK:CK COL:CO COM:KM CPV:CV CRI:CR CUB:CU CYM:KY CYP:CY CZE:CZ
    DEU:DE DJI:DJ DMA:DM DNK:DK DOM:DO DZA:DZ ECU:EC EGY:EG ERI:ER ESH:EH ESP:ES EST:EE ETH:ET FIN:FI FJI:FJ FLK:FK
    FRA:FR FRO:FO GAB:GA GBR:GB GEO:GE GHA:GH GIB:GI GIN:GN GLP:GP GMB:GM GNB:GW GNQ:GQ GRC:GR GRD:GD GRL:GL GTM:GT
    GUF:GF GUM:GU GUY:GY HKG:HK HND:HN HRV:HR HTI:HT HUN:HU IDN:ID IND:IN IRL:IE IRN:IR IRQ:IQ ISL:IS ISR:IL ITA:IT
    JAM:JM JOR:JO JPN:JP KAZ:KZ KEN:KE KGZ:KG KHM:KH KIR:KI KNA:KN KOR:KR KWT:KW LAO:LA LBN:LB LBR:LR LBY:LY LCA:LC
    LKA:LK LSO:LS LTU:LT LUX:LU LVA:LV MAC:MO MAR:MA MDA:MD MDG:MG MDV:MV MEX:MX MKD:MK MLI:ML MLT:MT MMR:MM MNE:ME
    MNG:MN MOZ:MZ MRT:MR MSR:MS MTQ:MQ MUS:MU MWI:MW MYS:MY NAM:NA NCL:NC NER:NE NGA:NG NIC:NI NLD:NL NOR:NO NPL:NP
    NRU:NR NZL:NZ OMN:OM OWID_KOS:XK PAK:PK PAN:PA PER:PE PHL:PH PNG:PG POL:PL PRI:PR PRK:KP PRT:PT PRY:PY PSE:PS
    PYF:PF QAT:QA REU:RE ROU:RO RUS:RU RWA:RW SAU:SA SDN:SD SEN:SN SGP:SG SHN:SH SLB:SB SLE:SL SLV:SV SOM:SO SPM:PM
    SRB:RS SSD:SS STP:ST SUR:SR SVK:SK SVN:SI SWE:SE SWZ:SZ SYC:SC SYR:SY TCA:TC TCD:TD TGO:TG THA:TH TJK:TJ TKM:TM
    TLS:TL TON:TO TTO:TT TUN:TN TUR:TR TWN:TW TZA:TZ UGA:UG UKR:UA URY:UY USA:US UZB:UZ VCT:VC VEN:VE VGB:VG VIR:VI
    VNM:VN VUT:VU WSM:WS YEM:YE ZAF:ZA ZMB:ZM ZWE:ZW
"""


def country_rows(lines: Iterable[str]) -> Iterator[tuple[str, str, str, int, str, str]]:
    """Yields the rows of `country_factors.csv`.

    Args:
        lines: The lines of the table of Our World in Data.

    Raises:
        FactorError: The table has an unknown country, or an invalid factor. The message names the row.
    """
    zones = dict(pair.split(":") for pair in _ZONES.split())
    reader = csv.reader(lines)
    next(reader, None)
    for entity, code, year, grams in reader:
        if int(year) < _FIRST_YEAR or code == _WORLD or (not code and entity != _EUROPEAN_UNION):
            continue
        zone = zones.get(code) if code else "EU"
        if zone is None:
            raise FactorError(f"row {reader.line_num}, Code: {code!r} of {entity} is unknown; add its zone")
        factor = check_factor(float(grams) / 1000.0, f"row {reader.line_num}")
        if factor == 0:  # of a country that generates less than the precision of the table
            continue
        yield zone, entity, "location", int(year), f"{factor:.5f}", _SOURCE


def write_countries(table: Path, target: Path) -> int:
    """Writes the file of the factors of countries, and returns the number of its rows."""
    with table.open(encoding="utf-8", newline="") as lines:
        rows = sorted(country_rows(lines))
    with target.open("w", encoding="utf-8", newline="") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(rows)
    return len(rows)


if __name__ == "__main__":
    print(write_countries(Path(sys.argv[1]), Path(sys.argv[2])), "factors")  # noqa: T201
