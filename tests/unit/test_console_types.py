"""The types of the console's scripts, compared with the models of the API."""

import re
import types
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from aurum.alarms import rules
from aurum.api import (
    alarm_rules_schemas,
    alarm_schemas,
    maintenance_schemas,
    outcome_schemas,
    problems,
    report_schemas,
    schemas,
    sustainability_schemas,
)
from aurum.api.routes import console, platform, session

TYPES = (Path(__file__).parents[2] / "services/aurum/api/console/types.d.ts").read_text()
MODULES = (
    schemas,
    alarm_schemas,
    alarm_rules_schemas,
    rules,
    maintenance_schemas,
    outcome_schemas,
    sustainability_schemas,
    problems,
    report_schemas,
    console,
    platform,
    session,
)
INTERFACES = re.findall(r"/\*\* (\w+) \*/\nexport interface (\w+)(?: extends \w+)? \{\n(.*?)\n\}", TYPES, re.DOTALL)


def _models(name: str) -> list[type[BaseModel]]:
    found = {getattr(module, name, None) for module in MODULES}
    return [each for each in found if isinstance(each, type) and issubclass(each, BaseModel)]


def _is_nullable(annotation: object) -> bool:
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return union and types.NoneType in typing.get_args(annotation)


@pytest.mark.parametrize(("model", "interface", "body"), INTERFACES, ids=[each[1] for each in INTERFACES])
def test_console_type_has_fields_of_its_model(model: str, interface: str, body: str) -> None:
    """Each field of an interface is one of its model, and may be null in both or in neither."""
    fields = {name: text.endswith("| null") for name, text in re.findall(r"^  (\w+)\??: (.*);$", body, re.MULTILINE)}
    assert fields, f"{interface} has no fields"
    candidates = [
        {name: _is_nullable(field.annotation) for name, field in found.model_fields.items()} for found in _models(model)
    ]
    assert any(fields.items() <= each.items() for each in candidates), f"{model} has {candidates}"
