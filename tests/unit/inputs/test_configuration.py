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
        ({"deadband": 1}, "deadband: is not a field that there is here"),
        ({"topics": [{"format": "number"}]}, "topics.0.pattern: is missing"),
        (
            {"protocol": "profinet"},
            "inputs.0.protocol: is 'profinet'; use one of mqtt, sparkplug, opcua, modbus, files",
        ),
        ({"protocol": 7}, "inputs.0.protocol: is '7'; use one of mqtt"),
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


REGISTER = {"address": 0, "machine": "m-1", "sensor": "x"}
NODE = {"node": "nsu=urn:plant;s=A", "machine": "m-1", "sensor": "x"}
POLLED: dict[str, dict[str, Any]] = {
    "modbus": {"name": "meters", "protocol": "modbus", "host": "127.0.0.1", "registers": [REGISTER]},
    "opcua": {"name": "cell", "protocol": "opcua", "endpoint": "opc.tcp://127.0.0.1:4840", "nodes": [NODE]},
}


@pytest.mark.parametrize(
    ("protocol", "change", "field"),
    [
        ("modbus", {"registers": [REGISTER, {**REGISTER, "address": 7}]}, "registers.1: m-1 x is also registers.0"),
        (
            "modbus",
            {"registers": [{**REGISTER, "type": "bcd64", "address": 65_533}]},
            "extends beyond the last register",
        ),
        ("modbus", {"registers": [{**REGISTER, "byte_order": "middle"}]}, "registers.0.byte_order"),
        ("modbus", {"not_implemented": "zero"}, "not_implemented"),
        ("opcua", {"nodes": [NODE, {**NODE, "node": "ns=2;s=B"}]}, "nodes.1: m-1 x is also nodes.0"),
        ("opcua", {"nodes": [{**NODE, "node": "Pump1.Vibration"}]}, "is not a node id"),
        ("opcua", {"nodes": [{**NODE, "node": "ns=2;i=one"}]}, "is not a node id"),
        ("opcua", {"nodes": [{**NODE, "node": "ns=2;g=12"}]}, "is not a node id"),
        ("opcua", {"browse": [{"root": "nsu=urn:plant"}]}, "is not a node id"),
    ],
)
def test_polled_input_that_would_lose_values_is_refused(
    tmp_path: Path, protocol: str, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InputsError) as raised:
        load_inputs(written(tmp_path, {**POLLED[protocol], **change}))
    assert field in str(raised.value)


@pytest.mark.parametrize(
    "node",
    ["i=85", "ns=2;i=4294967295", "ns=2;s=A;B=1", "nsu=urn:plant;s=A", "nsu=http://x/y?z=1;b=TWFuZ2Zpc2NoLg==",
     "ns=3;g=09087e75-8e5e-499b-954f-f2a9603db28a"],
)  # fmt: skip
def test_node_ids_of_all_kinds_are_accepted(tmp_path: Path, node: str) -> None:
    load_inputs(written(tmp_path, {**POLLED["opcua"], "nodes": [{**NODE, "node": node}]}))


def test_missing_protocol_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "inputs.yaml"
    path.write_text("inputs:\n  - name: hall-1\n")
    with pytest.raises(InputsError, match=r"inputs\.0\.protocol: is missing"):
        load_inputs(path)
