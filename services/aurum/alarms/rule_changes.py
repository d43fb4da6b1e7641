"""What differs between two versions of the alarm rules."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from aurum.alarms.rules import AlarmRule, AlarmRules

ChangeKind = Literal["added", "removed", "changed"]


class _Change(BaseModel):
    """Fields of newer versions are ignored."""

    model_config = ConfigDict(frozen=True)


class FieldChange(_Change):
    """The change of a field: its path within the rule, such as sensor.above, and its values as JSON."""

    field: str
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        """Returns the change in words."""
        return f"{self.field}: {_shown(self.before)} → {_shown(self.after)}"


class RuleChange(_Change):
    """The change of a rule. fields: What was changed in it; empty if it was added or removed."""

    rule: str
    kind: ChangeKind
    fields: tuple[FieldChange, ...] = ()

    def __str__(self) -> str:
        """Returns the change in words."""
        if self.kind != "changed":
            return f"{self.rule} {self.kind}"
        return f"{self.rule} changed ({', '.join(map(str, self.fields))})"


def changes_between(before: AlarmRules, after: AlarmRules) -> Iterator[RuleChange]:
    """Yields what differs between two versions of the rules, by the name of the rule."""
    old, new = ({rule.name: rule for rule in rules.rules} for rules in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield RuleChange(rule=name, kind="removed")
        elif name not in old:
            yield RuleChange(rule=name, kind="added")
        elif old[name] != new[name]:
            yield RuleChange(
                rule=name, kind="changed", fields=tuple(_changed_fields(_json(old[name]), _json(new[name])))
            )


def _json(rule: AlarmRule) -> dict[str, Any]:
    return rule.model_dump(mode="json")


def _changed_fields(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[FieldChange]:
    for field in sorted(before.keys() | after.keys()):
        old, new = before.get(field), after.get(field)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changed_fields(old, new, f"{prefix}{field}.")
        elif old != new:
            yield FieldChange(field=f"{prefix}{field}", before=old, after=new)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{field} {each}" for field, each in value.items() if each not in (None, 0.0))
    return "none" if value is None else str(value)
