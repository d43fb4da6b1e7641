"""Finds deadbands on counters, which lose consumption: what a counter shows before it restarts may be left out."""

import re
from collections.abc import Iterator
from pathlib import Path

from aurum.edge.inputs.common.configuration import InputsFile, TagRule
from aurum.edge.inputs.common.loss_check import Place, Problem, describe_problems, named_sources
from aurum.edge.inputs.common.tag import rule_for

_MAX_WARNINGS = 10  # that are named
_ENERGY = re.compile(r"([kMGT]?Wh|(kilo|mega|giga)?watt_?hours?)", re.IGNORECASE)
_WORDS = "kwh|mwh|gwh|wh|total|totali[sz]er|counter|count|pulses|odometer"
_COUNTER = re.compile(rf"(.*[^a-z])?(({_WORDS})([^a-z].*)?|energy)", re.IGNORECASE | re.DOTALL)


def describe_warnings(path: Path, file: InputsFile) -> list[str]:
    """Returns what a file of inputs may lose, with the fields and their lines."""
    return describe_problems(path, find_warnings(file))


def find_warnings(file: InputsFile) -> list[Problem]:
    """Returns up to ten deadbands of counters, each with the path of the field."""
    found: dict[Place, str] = {}
    for place, rule, name in _banded(file):
        if _is_counter(rule, name) and len(found) < _MAX_WARNINGS:
            found.setdefault(
                place,
                f"{name} seems to be a counter. Increases of up to {rule.deadband:g} are stored up to "
                f"{rule.deadband_seconds:g} s late, and are lost if it restarts meanwhile; remove the deadband",
            )
    return list(found.items())


def _banded(file: InputsFile) -> Iterator[tuple[Place, TagRule, str]]:
    """Yields the rules with a deadband, with the names of sensors to which they apply as far as the file has them."""
    for number, options in enumerate(file.inputs):
        for position, rule in enumerate(options.rules):
            if rule.deadband and not rule.drop:
                yield ("inputs", number, "rules", position, "deadband"), rule, rule.becomes or rule.sensor
        for _, machine, sensor in named_sources(options):
            position, applied = rule_for(options.rules, machine, sensor)
            if applied is not None and applied.deadband and not applied.drop:
                yield ("inputs", number, "rules", position, "deadband"), applied, applied.becomes or sensor


def _is_counter(rule: TagRule, name: str) -> bool:
    return bool(_ENERGY.fullmatch(rule.to or "")) or _COUNTER.fullmatch(name) is not None
