"""The cost table: costs of a planned intervention and of a failure, by machine type."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from aurum.runtime.yaml_file import OTHER, read_yaml

DEFAULT_COSTS = Path(__file__).with_name("costs.yaml")


class CostTableError(ValueError):
    """The cost table cannot be used. The message names the file and the field."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Cost(_Part):
    """Costs of one intervention with all its consequences: labour, parts, lost production, energy, scrap."""

    money: float = Field(ge=0)
    kwh: float = Field(0.0, ge=0)
    kgco2e: float = Field(0.0, ge=0)
    litres: float = Field(0.0, ge=0)


class TypeCosts(_Part):
    planned: Cost = Field(description="Maintenance that was planned.")
    failure: Cost = Field(description="A failure, with its repair.")
    life: float = Field(gt=0, description="That a maintained machine usually lasts, in the unit of its RUL.")
    planned_stop: float = Field(
        168.0, gt=0, description="Until the next planned stop, in the unit of RUL, where no one says otherwise."
    )


class CostTable(_Part):
    currency: str = "EUR"
    types: dict[str, TypeCosts] = Field(description="By machine type; * for all others.")

    def of(self, machine_type: str) -> TypeCosts | None:
        return self.types.get(machine_type) or self.types.get(OTHER)


def load_costs(path: Path | None = None) -> CostTable:
    """Reads a cost table, by default the built-in one. Raises CostTableError."""
    return read_yaml(path or DEFAULT_COSTS, CostTable, CostTableError)
