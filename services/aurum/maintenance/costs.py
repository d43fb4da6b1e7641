"""The cost table: costs of a planned intervention and of a failure, by machine type."""

from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from aurum.runtime.yaml_file import OTHER, read_yaml

DEFAULT_COSTS = Path(__file__).with_name("costs.yaml")


class CostTableError(ValueError):
    """The cost table is invalid or unreadable. The message names the file and the field."""


class _CostModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Cost(_CostModel):
    """Costs of one intervention with all its consequences: labour, parts, lost production, energy, scrap."""

    money: float = Field(ge=0)
    kwh: float = Field(0.0, ge=0)
    kgco2e: float = Field(0.0, ge=0)
    litres: float = Field(0.0, ge=0)


class TypeCosts(_CostModel):
    """The costs and the planned stops of a machine type. `life` and `planned_stop` are in the unit of its RUL."""

    planned: Cost = Field(description="Costs of a planned intervention.")
    failure: Cost = Field(description="Costs of a failure, including the repair.")
    life: float = Field(gt=0, description="Usual life of a maintained machine, in the unit of its RUL.")
    planned_stops: tuple[AwareDatetime, ...] = Field(
        (), max_length=1000, description="Dates of planned stops of all machines of this type; past ones are ignored."
    )
    hours_per_unit: float | None = Field(
        None, gt=0, description="Hours per unit of the RUL, for dates; needed unless the unit is h."
    )
    planned_stop: float | None = Field(
        None,
        gt=0,
        description="Time until the next planned stop, in the unit of the RUL, if no date is set. Deprecated, since it "
        "does not count down.",
    )


class CostTable(_CostModel):
    """The content of a cost table file."""

    currency: str = "EUR"
    types: dict[str, TypeCosts] = Field(description="Costs by machine type; * for all others.")

    def costs_for(self, machine_type: str) -> TypeCosts | None:
        """Returns the costs of a machine type, or those of all others; None if there are neither."""
        return self.types.get(machine_type) or self.types.get(OTHER)


def load_costs(path: Path | None = None) -> CostTable:
    """Reads a cost table.

    Args:
        path: The YAML file; None for the built-in table.

    Raises:
        CostTableError: The file cannot be read or is invalid.
    """
    return read_yaml(path or DEFAULT_COSTS, CostTable, CostTableError)
