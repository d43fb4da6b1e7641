"""The alarm rules: a YAML file with conditions, priorities, deadbands and delays by machine type."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from aurum.runtime.yaml_file import read_yaml

DEFAULT_RULES = Path(__file__).with_name("rules.yaml")
ANY = "*"

Priority = Literal["low", "medium", "high", "urgent"]
PRIORITIES: tuple[Priority, ...] = ("low", "medium", "high", "urgent")
_MOST_RULES = 200


class AlarmRulesError(ValueError):
    """The rules file cannot be used. The message names the file and the field."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Limit(_Part):
    """An upper or lower limit. `deadband` is the distance by which a value must come back for the alarm to end."""

    above: float | None = None
    below: float | None = None
    deadband: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _one(self) -> "Limit":
        if (self.above is None) == (self.below is None):
            raise ValueError("one of above and below must be given")
        return self

    def beyond(self, value: float, *, alarming: bool) -> bool:
        """Whether a value is beyond the limit or, while alarming, has not come back by the deadband."""
        if self.above is not None:
            return value > self.above - (self.deadband if alarming else 0.0)
        return value < (self.below or 0.0) + (self.deadband if alarming else 0.0)


class SensorLimit(Limit):
    sensor: str


class RateLimit(SensorLimit):
    """A limit on the rate of change, in the sensor's unit per minute.

    The rate is computed between two readings that are at least `over_seconds` apart.
    """

    over_seconds: float = Field(60.0, gt=0, description="Shortest time between the two readings.")


class Stale(_Part):
    after_seconds: float = Field(gt=0, description="Without a reading.")


class Rule(_Part):
    """An alarm rule. It has exactly one condition: risk, rul or anomaly of the prediction, sensor, rate or stale."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    text: str = Field(min_length=1, max_length=200, description="What an operator reads.")
    priority: Priority = "medium"
    machine_types: tuple[str, ...] = (ANY,)
    risk: Limit | None = None
    rul: Limit | None = None
    anomaly: Limit | None = None
    sensor: SensorLimit | None = None
    rate: RateLimit | None = None
    stale: Stale | None = None
    on_delay_seconds: float = Field(0.0, ge=0, description="That it must last before there is an alarm.")
    off_delay_seconds: float = Field(0.0, ge=0, description="That it must be over before the alarm ends.")
    suppress_in_fault: bool = Field(True, description="No alarm of a machine that stands still with a fault.")

    @model_validator(mode="after")
    def _one(self) -> "Rule":
        given = [each for each in (self.risk, self.rul, self.anomaly, self.sensor, self.rate, self.stale) if each]
        if len(given) != 1:
            raise ValueError("exactly one of risk, rul, anomaly, sensor, rate and stale must be given")
        return self

    def holds_for(self, machine_type: str) -> bool:
        return ANY in self.machine_types or machine_type in self.machine_types


class AlarmRules(_Part):
    rules: tuple[Rule, ...] = Field(max_length=_MOST_RULES)

    @model_validator(mode="after")
    def _distinct(self) -> "AlarmRules":
        names = [rule.name for rule in self.rules]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is the name of two rules")
        return self


def load_rules(path: Path | None = None) -> AlarmRules:
    """Reads the alarm rules, by default the built-in ones. Raises AlarmRulesError."""
    return read_yaml(path or DEFAULT_RULES, AlarmRules, AlarmRulesError)
