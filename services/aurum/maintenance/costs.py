"""The cost table: costs of a planned intervention and of a failure, by machine type."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

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
    """The costs of a machine type. `life` and `planned_stop` are in the unit of its RUL."""

    planned: Cost = Field(description="Costs of a planned intervention.")
    failure: Cost = Field(description="Costs of a failure, including the repair.")
    life: float = Field(gt=0, description="Usual life of a maintained machine, in the unit of its RUL.")
    planned_stop: float = Field(
        168.0, gt=0, description="Default time until the next planned stop, in the unit of the RUL."
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
