"""The mapping of devices' names to machine ids and sensors."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aurum.readings.batch import machine_id_problem, sensor_problem
from aurum.readings.names import original_machine, original_sensor, stored_machine, stored_sensor

# Names near the escape sequences are unlikely by chance, so they are composed of their parts
NAMES = st.one_of(
    st.text(min_size=1, max_size=8),
    st.lists(
        st.sampled_from(["_", "x", "x00D6", "_x0020_", "10FFFF", "Ö", " ", "5F", "-", "a"]), min_size=1, max_size=6
    ).map("".join),
)


@given(NAMES)
@example("Motor [2]")
@example("_x1234é")
@example("x1234_x5678 ")
@example("x00D6_fen")
def test_stored_names_give_the_original_names(name: str) -> None:
    machine, sensor = stored_machine(name), stored_sensor(name)
    assert original_machine(machine) == original_sensor(sensor) == name
    assert machine_id_problem(machine) is None
    assert sensor_problem(sensor) is None or len(sensor) > 64


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,127}", fullmatch=True))
def test_usable_names_without_codes_are_stored_unchanged(name: str) -> None:
    if "x" not in name:
        assert stored_machine(name) == name
        assert stored_sensor(name[:64]) == name[:64]


@pytest.mark.parametrize(
    ("name", "machine", "sensor"),
    [
        ("Line 1 Pump", "Line_x0020_1_x0020_Pump", "Line 1 Pump"),
        ("Öfen", "x00D6_fen", "_x00D6_fen"),
        ("axis_x1_force", "axis_x1_force", "axis_x1_force"),
        ("x1000", "x1000", "x1000"),
        ("plant/a", "plant_x002F_a", "plant/a"),
        ("pres[bar]", "pres_x005B_bar_x005D_", "pres_x005B_bar_x005D_"),
        ("%load", "x0025_load", "_x0025_load"),
    ],
)
def test_names_of_plants_are_mapped_as_documented(name: str, machine: str, sensor: str) -> None:
    assert (stored_machine(name), stored_sensor(name)) == (machine, sensor)
