"""Maps any name of a device to one that can be stored, and back.

A character that is not allowed becomes `_xHHHH_` with its code point in at least four upper-case hexadecimal digits, as
.NET, Excel and SharePoint write names: machine `Line 1` is stored as `Line_x0020_1`. A machine id cannot begin with
`_`, so the first `_` is left out there: `Öfen` becomes `x00D6_fen`. A name that already contains such a sequence is
escaped too, so that two names never become the same one. All other names that can be stored stay as they are.
"""

import re

from aurum.readings.batch import machine_id_problem, sensor_problem

_CODE = "x[0-9A-F]{4,6}"
_MACHINE_SIGNS, _SENSOR_SIGNS = r"A-Za-z0-9._:\-", r"A-Za-z0-9_.:/%\- "  # allowed after the first character


def _unusable(signs: str, first: str, start: str) -> re.Pattern[str]:
    """Returns the expression of the characters to escape.

    A sequence ends with "_", which may also be the beginning of the next escaped character.

    Args:
        signs: The allowed characters.
        first: Those that are also allowed as the first one.
        start: How a sequence may start.
    """
    sequence = rf"(?={_CODE}(?:_|[^{signs}]))"
    return re.compile(rf"\A[^{first}]|[^{signs}]|{start.format(sequence)}")


_UNUSABLE_IN_MACHINE = _unusable(_MACHINE_SIGNS, "A-Za-z0-9", r"_{0}|\A{0}x")
_UNUSABLE_IN_SENSOR = _unusable(_SENSOR_SIGNS, "A-Za-z0-9_", "_{0}")
_ESCAPED_IN_MACHINE = re.compile(rf"(?:_|\A)({_CODE})_")
_ESCAPED_IN_SENSOR = re.compile(rf"_({_CODE})_")


def stored_machine(name: str) -> str:
    """Returns the machine id for a device's name of a machine. It may still be empty or too long."""
    if machine_id_problem(name) is None and "x" not in name:  # the usual case
        return name
    return _UNUSABLE_IN_MACHINE.sub(_escape, name).removeprefix("_")


def stored_sensor(name: str) -> str:
    """Returns the sensor for a device's name of a sensor. It may still be empty or too long."""
    if sensor_problem(name) is None and "_x" not in name:
        return name
    return _UNUSABLE_IN_SENSOR.sub(_escape, name)


def original_machine(machine_id: str) -> str:
    """Returns the name for which `stored_machine` returns a machine id."""
    return _ESCAPED_IN_MACHINE.sub(_character, machine_id)


def original_sensor(sensor: str) -> str:
    """Returns the name for which `stored_sensor` returns a sensor."""
    return _ESCAPED_IN_SENSOR.sub(_character, sensor)


def _escape(match: re.Match[str]) -> str:
    return f"_x{ord(match.group()):04X}_"


def _character(match: re.Match[str]) -> str:
    code = int(match.group(1)[1:], 16)
    return chr(code) if code <= 0x10FFFF else match.group()
