"""What `aurum edge check` refuses in a valid inputs file, because it would lose or mix data by itself."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from aurum.cli import app
from aurum.edge.inputs.common.configuration import InputsFile, Topic
from aurum.edge.inputs.common.deadband_check import find_warnings
from aurum.edge.inputs.common.loss_check import find_losses

MQTT: dict[str, Any] = {
    "name": "hall-1",
    "protocol": "mqtt",
    "broker": {"host": "127.0.0.1"},
    "topics": [{"pattern": "plant/{machine}/state"}],
}
MODBUS: dict[str, Any] = {
    "name": "meters",
    "protocol": "modbus",
    "host": "127.0.0.1",
    "registers": [
        {"address": 1, "type": "int16", "machine": "m", "sensor": "a"},
        {"address": 2, "type": "float32", "machine": "m", "sensor": "b"},
    ],
}
FILES: dict[str, Any] = {"name": "drops", "protocol": "files", "folder": "drops"}
NUMBER = {"format": "number", "sensor": "{sensor}"}


def losses(*inputs: dict[str, Any]) -> list[tuple[str, str]]:
    found = find_losses(InputsFile.model_validate({"inputs": inputs}))
    return [(".".join(map(str, place)), problem) for place, problem in found]


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"rules": [{"drop": True}]}, "rules.0.drop", "discards every value"),
        ({"rules": [{"deadband": 1}, {"sensor": "t", "unit": "degF", "to": "degC"}]}, "rules.1", "never applies"),
        ({"rules": [{"sensor": "t_*"}, {"sensor": "x"}, {"sensor": "t_1"}]}, "rules.2", "rules.0 comes first"),
        ({"rules": [{"sensor": "*", "becomes": "x"}]}, "rules.0.becomes", "all sensors of a machine as x"),
        ({"rules": [{"sensor": "a", "becomes": "c"}, {"sensor": "b", "becomes": "c"}]}, "rules.1.becomes", "rules.0"),
        ({"rules": [{"sensor": "b", "scale": 2}, {"sensor": "a", "becomes": "b"}]}, "rules.1.becomes", "rules.0"),
        (
            {"topics": [{"pattern": "plant/#", "machine": "m"}, {"pattern": "plant/{machine}/state"}]},
            "topics.1.pattern",
            "topics.0 comes first",
        ),
        (
            {"topics": [{"pattern": "plant/+/t", "machine": "m", "sensor": "t", "format": "number"}]},
            "topics.0.pattern",
            "several topic names as m t",
        ),
        (
            {"topics": [{"pattern": "plant/{machine}", "sensor": "t", "values": {"t": "a.b"}}]},
            "topics.0.values",
            "is not used beside sensor",
        ),
    ],
)
def test_inputs_that_lose_data_are_refused_by_field(changes: dict[str, Any], field: str, problem: str) -> None:
    (found,) = losses({**MQTT, **changes})
    assert found[0] == f"inputs.0.{field}"
    assert problem in found[1]


def test_absent_values_must_be_possible_for_the_register() -> None:
    for sensor, absent, wrong in (("a", 32768, True), ("a", -32768, False), ("a", 0.5, True), ("b", -9999.9, False)):
        found = losses({**MODBUS, "rules": [{"sensor": sensor, "absent": [absent]}]})
        assert [place for place, _ in found] == (["inputs.0.rules.0.absent"] if wrong else []), (sensor, absent)


def test_sources_stored_as_one_sensor_are_refused() -> None:
    other = {**MODBUS, "name": "others", "registers": [{"address": 9, "machine": "m", "sensor": "c"}]}
    assert losses(MODBUS, other) == []
    renamed = {**other, "rules": [{"sensor": "c", "becomes": "b"}]}
    assert losses(MODBUS, renamed) == [
        ("inputs.1.registers.0", "would be stored as m b, as inputs.0.registers.1 is; name each source once")
    ]
    machines = {**other, "machines": {"m": "m-2"}, "rules": [{"sensor": "c", "becomes": "b"}]}
    assert losses(MODBUS, machines) == []


def test_inputs_that_take_data_from_each_other_are_refused() -> None:
    assert [place for place, _ in losses(FILES, {**FILES, "name": "b"})] == ["inputs.1.folder"]
    assert losses(FILES, {**FILES, "name": "b", "pattern": "*.txt"}) == []
    broker = {"host": "127.0.0.1", "client_id": "aurum"}
    found = losses({**MQTT, "broker": broker}, {**MQTT, "name": "b", "broker": broker})
    assert [place for place, _ in found] == ["inputs.1.broker.client_id"]


def test_usual_inputs_lose_nothing() -> None:
    topics = [
        {"pattern": "plant/{machine}/state"},
        {"pattern": "plant/{machine}/{sensor}", **NUMBER},
        {"pattern": "tele/plug-7/+", "machine": "plug-7"},
    ]
    rules = [
        {"sensor": "t_*", "machine": "oven-*", "becomes": "temperature_c", "unit": "degF", "to": "degC"},
        {"sensor": "t_*", "becomes": "temperature_raw"},
        {"drop": True},
    ]
    assert losses({**MQTT, "topics": topics, "rules": rules}, MODBUS, FILES) == []


LEVELS = st.lists(st.sampled_from(["a", "b", "+", "{machine}"]), min_size=1, max_size=4)


@given(LEVELS, LEVELS, st.lists(st.sampled_from("ab"), min_size=1, max_size=4))
def test_a_refused_topic_matches_nothing_more(first: list[str], second: list[str], name: list[str]) -> None:
    assume(all(levels.count("{machine}") <= 1 for levels in (first, second)))
    topics = [{"pattern": "/".join(levels), "machine": "m"} for levels in (first, second)]
    useless = [place for place, _ in losses({**MQTT, "topics": topics})] == ["inputs.0.topics.1.pattern"]
    one, two = (Topic.model_validate(topic).expression.fullmatch("/".join(name)) for topic in topics)
    assert not useless or not two or one


def test_edge_check_names_field_and_line_of_a_loss(tmp_path: Path) -> None:
    path = tmp_path / "inputs.yaml"
    path.write_text(yaml.safe_dump({"inputs": [{**MQTT, "rules": [{"drop": True}]}]}))
    answer = CliRunner().invoke(app, ["edge", "check", str(path)])
    assert answer.exit_code == 1
    assert "inputs.0.rules.0.drop: discards every value of the input" in answer.output
    assert "(line " in answer.output


@pytest.mark.parametrize(
    ("sensor", "rule", "warns"),
    [
        ("energy_kwh", {}, True),
        ("Energy", {}, True),
        ("parts.total", {}, True),
        ("a", {"unit": "Wh", "to": "kWh"}, True),
        ("a", {"becomes": "water_counter"}, True),
        ("ENERGY.Power", {}, False),
        ("temperature", {}, False),
        ("counterbalance", {}, False),
        ("discount", {}, False),
        ("energy_kwh", {"drop": True}, False),
        ("energy_kwh", {"deadband": 0}, False),
    ],
)
def test_deadband_on_a_counter_is_warned_of(sensor: str, rule: dict[str, Any], warns: bool) -> None:
    given = {**MQTT, "rules": [{"sensor": sensor, "deadband": 0.5, **rule}]}
    found = find_warnings(InputsFile.model_validate({"inputs": [given]}))
    assert [place for place, _ in found] == ([("inputs", 0, "rules", 0, "deadband")] if warns else [])


def test_check_warns_of_a_register_under_a_pattern(tmp_path: Path) -> None:
    registers = [{"address": 1, "type": "uint32", "machine": "m", "sensor": "energy_kwh"}]
    path = tmp_path / "inputs.yaml"
    path.write_text(yaml.safe_dump({"inputs": [{**MODBUS, "registers": registers, "rules": [{"deadband": 2}]}]}))
    answer = CliRunner().invoke(app, ["edge", "check", str(path)])
    assert answer.exit_code == 0
    assert "warning: inputs.0.rules.0.deadband: energy_kwh seems to be a counter" in answer.stderr
