"""Sums the use of machines of one type, line and site, so that accounts of many machines keep few hours."""

from dataclasses import dataclass, field, replace

from aurum.sustainability.corrections import NO_CORRECTIONS
from aurum.sustainability.hourly import HourlyAmounts
from aurum.sustainability.machine_use import MachineUse


@dataclass(slots=True)
class UseFold:
    """Sums machines by type, line and site.

    Machines of one type have the same meters, so the totals of the sums are those of the machines. A sum has no machine
    id, no temperature and no corrections.
    """

    _sums: dict[tuple[str, str, str], MachineUse] = field(default_factory=dict)

    def add(self, use: MachineUse) -> None:
        """Adds a machine."""
        key = use.site, use.line, use.machine_type
        known = self._sums.get(key)
        if known is None:
            known = replace(
                use,
                machine_id="",
                energy=None,
                water=None,
                produced=None,
                temperature=None,
                fed_in=None,
                corrections=NO_CORRECTIONS,
            )
        self._sums[key] = replace(
            known,
            energy=_sum(known.energy, use.energy),
            water=_sum(known.water, use.water),
            produced=_sum(known.produced, use.produced),
            fed_in=_sum(known.fed_in, use.fed_in),
        )

    @property
    def nbytes(self) -> int:
        """The bytes of the sums."""
        return sum(
            amounts.amount.nbytes + amounts.covered.nbytes + amounts.in_range.nbytes
            for use in self._sums.values()
            for amounts in (use.energy, use.water, use.produced, use.fed_in)
            if amounts is not None
        )

    @property
    def sums(self) -> list[MachineUse]:
        """The sums, in the order of their first machines."""
        return list(self._sums.values())


def _sum(one: HourlyAmounts | None, other: HourlyAmounts | None) -> HourlyAmounts | None:
    if one is None or other is None:
        return one or other
    return HourlyAmounts(
        one.first,
        one.amount + other.amount,
        one.covered + other.covered,
        one.in_range + other.in_range,
        one.bridged + other.bridged,
    )
