"""The alarm rules: a YAML file with conditions, priorities, deadbands and delays by machine type."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from aurum.alarms.lifecycle import Priority, Quantity
from aurum.runtime.yaml_file import read_yaml

DEFAULT_RULES = Path(__file__).with_name("rules.yaml")
ANY = "*"
USUAL_THRESHOLD = 0.999
"""The anomaly score beyond which a state is unusual, if its model has no threshold."""

PRIORITIES: tuple[Priority, ...] = ("low", "medium", "high", "urgent")
_MOST_RULES = 200
_LIMITED: tuple[Quantity, ...] = ("risk", "rul", "anomaly", "sensor", "rate")  # fields with a limit of a value


class AlarmRulesError(ValueError):
    """The alarm rules file is invalid or unreadable. The message names the file and the field."""


class _RulesModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ValueLimit(_RulesModel):
    """An upper or lower limit of a value.

    `deadband` is the distance by which the value must return within the limit for the alarm to end.
    """

    above: float | None = None
    below: float | None = None
    deadband: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _require_one_limit(self) -> "ValueLimit":
        if (self.above is None) == (self.below is None):
            raise PydanticCustomError("one_limit", "one of above and below must be given")
        return self

    def is_exceeded(self, value: float, *, alarming: bool) -> bool:
        """Returns whether a value is beyond the limit or, while alarming, has not returned by the deadband."""
        if self.above is not None:
            return value > self.above - (self.deadband if alarming else 0.0)
        return value < (self.below or 0.0) + (self.deadband if alarming else 0.0)


class AnomalyLimit(ValueLimit):
    """A limit of the anomaly score: a number, or the model's threshold for the allowed false alarms a month."""

    beyond_threshold: bool = Field(
        False, description="Whether the limit is the threshold by AURUM_PREDICTION_FALSE_ALARMS."
    )

    @model_validator(mode="after")
    def _require_one_limit(self) -> "AnomalyLimit":
        if (self.above is not None) + (self.below is not None) + self.beyond_threshold != 1:
            raise PydanticCustomError("one_limit", "one of above, below and beyond_threshold must be given")
        return self

    def at(self, threshold: float) -> ValueLimit:
        """Returns the limit for a model with this threshold, which is 0 if the model has none."""
        if not self.beyond_threshold:
            return self
        return ValueLimit(above=threshold or USUAL_THRESHOLD, deadband=self.deadband)


class SensorLimit(ValueLimit):
    """A limit of the latest reading of a sensor."""

    sensor: str


class RateOfChangeLimit(SensorLimit):
    """A limit on the rate of change, in the sensor's unit per minute.

    The rate is computed between two readings that are at least `over_seconds` apart.
    """

    over_seconds: float = Field(60.0, gt=0, description="Minimum seconds between the two readings.")


class SilenceLimit(_RulesModel):
    """A limit of the time since the machine's latest reading."""

    after_seconds: float = Field(gt=0, description="Seconds without a reading.")


class AlarmRule(_RulesModel):
    """An alarm rule. It has exactly one condition: risk, rul or anomaly of the prediction, sensor, rate or stale."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    text: str = Field(min_length=1, max_length=200, description="Text shown to operators.")
    priority: Priority = "medium"
    machine_types: tuple[str, ...] = (ANY,)
    risk: ValueLimit | None = None
    rul: ValueLimit | None = None
    anomaly: AnomalyLimit | None = None
    sensor: SensorLimit | None = None
    rate: RateOfChangeLimit | None = None
    stale: SilenceLimit | None = None
    on_delay_seconds: float = Field(
        0.0, ge=0, description="Seconds for which the condition must hold before the alarm is raised."
    )
    off_delay_seconds: float = Field(
        0.0, ge=0, description="Seconds for which the condition must be over before the alarm is cleared."
    )
    suppress_in_fault: bool = Field(
        True, description="Whether the alarm is suppressed while its machine is stopped by a fault."
    )

    @model_validator(mode="after")
    def _require_one_condition(self) -> "AlarmRule":
        conditions = (self.risk, self.rul, self.anomaly, self.sensor, self.rate, self.stale)
        if sum(condition is not None for condition in conditions) != 1:
            raise PydanticCustomError(
                "one_condition", "exactly one of risk, rul, anomaly, sensor, rate and stale must be given"
            )
        return self

    @property
    def quantity(self) -> Quantity:
        """What the rule limits."""
        return "silence" if self.stale is not None else next(name for name in _LIMITED if getattr(self, name))

    @property
    def limit(self) -> float:
        """The limit: of a rate in units of the sensor per minute, of silence in seconds."""
        return self.limit_at(0.0)

    def limit_at(self, threshold: float) -> float:
        """Returns the limit for a machine whose model has this threshold of the anomaly score; 0 if it has none."""
        if self.stale is not None:
            return self.stale.after_seconds
        limit: ValueLimit = getattr(self, self.quantity)
        if isinstance(limit, AnomalyLimit):
            limit = limit.at(threshold)
        return limit.above if limit.above is not None else limit.below or 0.0

    @property
    def is_upper(self) -> bool:
        """Whether values above the limit raise the alarm, rather than those below."""
        if self.stale is not None:
            return True
        limit: ValueLimit = getattr(self, self.quantity)
        return limit.below is None

    @property
    def sensor_name(self) -> str:
        """The sensor whose readings or rate of change are limited; empty if the rule limits something else."""
        limit = self.sensor or self.rate
        return limit.sensor if limit is not None else ""

    def applies_to(self, machine_type: str) -> bool:
        """Returns whether the rule covers machines of a type."""
        return ANY in self.machine_types or machine_type in self.machine_types


class AlarmRules(_RulesModel):
    """The content of an alarm rules file. Rule names are distinct."""

    rules: tuple[AlarmRule, ...] = Field(max_length=_MOST_RULES)

    @model_validator(mode="after")
    def _require_distinct_names(self) -> "AlarmRules":
        names = [rule.name for rule in self.rules]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate is not None:
            raise ValueError(f"the name {duplicate} is used by more than one rule")
        return self


def load_rules(path: Path | None = None) -> AlarmRules:
    """Reads an alarm rules file.

    Args:
        path: The YAML file; None for the built-in rules.

    Raises:
        AlarmRulesError: The file cannot be read or is invalid.
    """
    return read_yaml(path or DEFAULT_RULES, AlarmRules, AlarmRulesError)
