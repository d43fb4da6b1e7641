"""The file that describes the inputs of a gateway."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from aurum.edge.inputs.common.configuration import FilesInput, InputsError, load_inputs

MQTT: dict[str, Any] = {
    "name": "hall-1",
    "protocol": "mqtt",
    "broker": {"host": "127.0.0.1"},
    "topics": [{"pattern": "plant/{machine}/state"}],
}


def written(tmp_path: Path, *inputs: dict[str, Any]) -> Path:
    path = tmp_path / "inputs.yaml"
    path.write_text(yaml.safe_dump({"inputs": list(inputs)}))
    return path


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Hall 1"}, "name"),
        ({"broker": {"host": "x", "port": 70_000}}, "broker.port"),
        ({"broker": {"host": "x", "version": "4"}}, "broker.version"),
        ({"topics": []}, "topics"),
        ({"topics": [{"pattern": "a/#/b"}]}, "# must be the last level"),
        ({"topics": [{"pattern": "a/x{machine}"}]}, "must be a whole level"),
        ({"topics": [{"pattern": "a/b", "machine": "m", "format": "number"}]}, "sensor: is required"),
        ({"topics": [{"pattern": "a/{line}", "format": "csv"}]}, "machine: is not a level"),
        ({"rules": [{"unit": "degF"}]}, "unit and to must both be given"),
        ({"rules": [{"unit": "degF", "to": "bar"}]}, "cannot be converted to"),
        ({"rules": [{"becomes": "has\nline"}]}, "is not a sensor name"),
        ({"rules": [{"machine_becomes": "Line 1"}]}, "is not a machine id"),
        ({"rules": [{"scale": 0}]}, "rules.0.scale"),
        ({"rules": [{"minimum": 5, "maximum": 1}]}, "minimum: 5 must be less than the maximum"),
        ({"rules": [{"minimum": 0, "maximum": 1, "deadband": 2}]}, "deadband: 2 is wider than the valid range"),
        ({"rules": [{"absent": ["x"]}]}, "rules.0.absent.0"),
        ({"machines": {"Line 1": "line 1"}}, "is not a machine id"),
        ({"earliest": "2999-01-01"}, "is in the future"),
        ({"deadband": 1}, "deadband"),
        ({"protocol": "profinet"}, "inputs.0"),
    ],
)
def test_invalid_inputs_file_names_the_field(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputsError) as raised:
        load_inputs(written(tmp_path, {**MQTT, **change}))
    assert "inputs.yaml, inputs.0" in str(raised.value)
    assert field in str(raised.value)


def test_duplicate_input_names_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputsError, match="two inputs have the name 'hall-1'"):
        load_inputs(written(tmp_path, MQTT, MQTT))


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("encoding", "utf-9", "'utf-9' is not a text encoding"),
        ("encoding", "base64", "'base64' is not a text encoding"),
        ("time_format", "days", "time_format: 'days' is not a format of times"),
        ("timezone", "Mars/Olympus", "timezone: 'Mars/Olympus' is not a time zone"),
    ],
)
def test_unknown_declaration_of_a_files_input_is_refused(field: str, value: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        FilesInput.model_validate({"name": "drops", "protocol": "files", "folder": "/drops", field: value})
