"""The cost table: what a planned intervention and a failure cost, by machine type."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

DEFAULT_COSTS = Path(__file__).with_name("costs.yaml")
OTHER = "*"


class CostTableError(ValueError):
    """A cost table that cannot be used; the message names the file and the field."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cost(_Part):
    """Of one intervention with all that follows from it: labour, parts, lost production, energy, scrap."""

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
    """Raises CostTableError."""
    path = path or DEFAULT_COSTS
    try:
        return CostTable.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CostTableError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise CostTableError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CostTableError(f"{path}, {'.'.join(map(str, first['loc'])) or 'top'}: {first['msg']}") from error
