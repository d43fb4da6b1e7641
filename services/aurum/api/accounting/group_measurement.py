"""Measures many machines group by group, and keeps the hours of sums instead of those of machines."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from aurum.api.accounting.budget import AccountReservation
from aurum.api.accounting.measurement import MachineSelection, measure_machines, measure_use, select_machines
from aurum.api.backends import IngestionBackend
from aurum.sustainability.corrections import MAX_LISTED, MeterCorrection
from aurum.sustainability.hourly import TimeRange
from aurum.sustainability.machine_use import MachineUse, Quantity
from aurum.sustainability.plan import AccountingPlan
from aurum.sustainability.use_folding import UseFold

_MAX_NAMED = 100  # machines without a meter


@dataclass(slots=True)
class UseNotes:
    """What an account says about its machines besides amounts.

    Attributes:
        not_metered: The first machines without a meter.
        not_metered_count: The number of all.
        corrections: The first corrections of counters, each with its machine.
        correction_counts: The number of all, by kind.
    """

    not_metered: list[str] = field(default_factory=list)
    not_metered_count: int = 0
    corrections: list[tuple[str, MeterCorrection]] = field(default_factory=list)
    correction_counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, used: Iterable[MachineUse], is_metered: Callable[[MachineUse], bool]) -> "UseNotes":
        """Returns the notes of machines. is_metered: Whether the account contains a machine."""
        notes = cls()
        for use in used:
            notes.add(use, metered=is_metered(use))
        return notes

    def add(self, use: MachineUse, *, metered: bool) -> None:
        """Adds a machine."""
        if not metered:
            self.not_metered_count += 1
            if len(self.not_metered) < _MAX_NAMED:
                self.not_metered.append(use.machine_id)
        self.correction_counts.update(use.corrections.counts)
        listed = itertools.islice(use.corrections.listed, MAX_LISTED - len(self.corrections))
        self.corrections += [(use.machine_id, each) for each in listed]


@dataclass(frozen=True, slots=True)
class MeasuredSums:
    """What the machines of an account used.

    Attributes:
        sums: The metered machines, summed by site, line and type.
        notes: What is to be said about the machines.
    """

    sums: list[MachineUse]
    notes: UseNotes


@dataclass(frozen=True, slots=True)
class GroupMeasurement:
    """Measures the machines of an account.

    Attributes:
        ingestion: Client of the ingestion service.
        plan: The accounting plan.
        selection: The machines.
        over: The time range.
        quantities: What to measure.
        reservation: Reserves the memory of the sums.
    """

    ingestion: IngestionBackend
    plan: AccountingPlan
    selection: MachineSelection
    over: TimeRange
    quantities: Collection[Quantity]
    reservation: AccountReservation

    async def measure(
        self, is_metered: Callable[[MachineUse], bool], each: Callable[[MachineUse], None] | None = None
    ) -> MeasuredSums:
        """Measures the machines, ordered by id.

        Args:
            is_metered: Whether the account contains a machine.
            each: Called with each machine that it contains, on a thread.

        Raises:
            InvalidArgumentError: Too many machines are selected.
            ResourceExhaustedError: The accounts in progress need too much memory.
            AurumError: Ingestion did not answer.
        """
        machines = await select_machines(self.ingestion, self.selection)
        fold, notes = UseFold(), UseNotes()

        def add(batch: Sequence[MachineUse]) -> None:
            for use in batch:
                metered = is_metered(use)
                notes.add(use, metered=metered)
                if metered:
                    fold.add(use)
                    if each is not None:
                        each(use)

        async for batch in measure_machines(self.ingestion, self.plan, machines, self.over, self.quantities):
            await asyncio.to_thread(add, batch)
            self.reservation.resize(fold.nbytes)
        return MeasuredSums(fold.sums, notes)

    async def measure_each(self) -> list[MachineUse]:
        """Returns each machine by hour, also those that are not metered; see `measure_use`."""
        return await measure_use(
            self.ingestion, self.plan, self.selection, self.over, self.quantities, self.reservation
        )
