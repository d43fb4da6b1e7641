"""Finds what a valid inputs file would lose or mix by itself: rules that never apply, and sources stored as one."""

import fnmatch
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from aurum.edge.inputs.common.configuration import (
    PLACEHOLDER,
    FilesInput,
    InputOptions,
    InputsError,
    InputsFile,
    ModbusInput,
    MqttInput,
    OpcuaInput,
    Register,
    SparkplugInput,
    TagRule,
    Topic,
)
from aurum.edge.inputs.common.tag import rule_for, stored_names
from aurum.resilience import plain_yaml
from aurum.resilience.plain_yaml import YamlError, at_line
from aurum.runtime.yaml_file import BOUNDS

Place = tuple[str | int, ...]  # the path of a field, such as ("inputs", 0, "rules", 3)
Problem = tuple[Place, str]

_MAX_PROBLEMS = 10  # that are named
_INTEGERS = {"int16": (-(1 << 15), (1 << 15) - 1), "uint16": (0, (1 << 16) - 1), "bit": (0, 1)} | {
    f"{sign}int{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) if not sign else (0, (1 << bits) - 1)
    for bits in (32, 64)
    for sign in ("", "u")
}


def check_losses(path: Path, file: InputsFile) -> None:
    """Raises InputsError if a file of inputs would lose or mix data by itself. It names the fields and their lines."""
    if problems := describe_losses(path, file):
        raise InputsError(f"{path}, {'; '.join(problems)}")


def describe_losses(path: Path, file: InputsFile) -> list[str]:
    """Returns what a file of inputs would lose or mix by itself, with the fields and their lines."""
    return describe_problems(path, find_losses(file))


def describe_problems(path: Path, problems: Sequence[Problem]) -> list[str]:
    """Returns problems of a file as texts, with the fields and their lines."""
    if not problems:
        return []
    try:
        lines = plain_yaml.lines_of(plain_yaml.read_text(path, BOUNDS), [place for place, _ in problems], BOUNDS)
    except YamlError:  # it was read before, so it has just been changed
        lines = [0] * len(problems)
    return [
        f"{'.'.join(map(str, place))}: {problem}{at_line(line)}"
        for (place, problem), line in zip(problems, lines, strict=True)
    ]


def find_losses(file: InputsFile) -> list[Problem]:
    """Returns up to ten problems, each with the path of the field."""
    return list(islice(_losses(file), _MAX_PROBLEMS))


def _losses(file: InputsFile) -> Iterator[Problem]:
    for number, options in enumerate(file.inputs):
        place: Place = ("inputs", number)
        yield from _useless_rules(options.rules, place)
        yield from _merged_sensors(options.rules, place)
        if isinstance(options, MqttInput):
            yield from _useless_topics(options.topics, place)
        if isinstance(options, ModbusInput):
            yield from _impossible_absent_values(options, place)
    yield from _merged_sources(file.inputs)
    yield from _shared_peers(file.inputs)


def _useless_rules(rules: Sequence[TagRule], place: Place) -> Iterator[Problem]:
    """Finds rules that never apply, because an earlier one matches whatever they match."""
    patterns: list[tuple[int, TagRule]] = []
    literal: dict[tuple[str, str], int] = {}
    for number, rule in enumerate(rules):
        field = (*place, "rules", number)
        earlier = literal.get((rule.sensor, rule.machine))
        if earlier is None:
            earlier = next((index for index, each in patterns if _covers(each, rule)), None)
        if earlier is not None:
            yield field, f"never applies, because rules.{earlier} comes first and matches the same names"
        elif rule.drop and _matches_all(rule) and number == 0:
            yield (*field, "drop"), "discards every value of the input; remove the input instead"
        literal.setdefault((rule.sensor, rule.machine), number)
        if _is_pattern(rule.sensor) or _is_pattern(rule.machine):
            patterns.append((number, rule))


def _covers(earlier: TagRule, rule: TagRule) -> bool:
    return _pattern_covers(earlier.sensor, rule.sensor) and _pattern_covers(earlier.machine, rule.machine)


def _pattern_covers(earlier: str, pattern: str) -> bool:
    """Returns whether an earlier pattern certainly matches all that a later one matches."""
    if earlier in ("*", pattern):
        return True
    return not _is_pattern(pattern) and fnmatch.fnmatchcase(pattern, earlier)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _matches_all(rule: TagRule) -> bool:
    return rule.sensor == "*" and rule.machine == "*"


def _merged_sensors(rules: Sequence[TagRule], place: Place) -> Iterator[Problem]:
    """Finds rules that give several sensors of a machine the same name."""
    stored: dict[tuple[str, str], int] = {}
    for number, rule in enumerate(rules):
        if rule.drop:
            continue
        field = (*place, "rules", number, "becomes")
        if rule.becomes is not None and rule.sensor == "*":
            yield field, f"would store all sensors of a machine as {rule.becomes}; name the sensor of the device"
        if _is_pattern(rule.sensor):
            continue
        key = (rule.machine_becomes or rule.machine, rule.becomes or rule.sensor)
        earlier = stored.setdefault(key, number)
        if earlier != number and rules[earlier].sensor != rule.sensor:
            yield field, f"{key[1]} is also the stored name of rules.{earlier}; name each sensor once"


def _useless_topics(topics: Sequence[Topic], place: Place) -> Iterator[Problem]:
    """Finds topics that never apply, and those whose topic names are stored as one sensor."""
    for number, topic in enumerate(topics):
        if topic.values and topic.sensor is not None:
            yield (*place, "topics", number, "values"), "is not used beside sensor; use value for the path of one value"
        field = (*place, "topics", number, "pattern")
        earlier = next(
            (index for index, each in enumerate(topics[:number]) if _filter_covers(each.filter, topic.filter)), None
        )
        if earlier is not None:
            yield field, f"never applies, because topics.{earlier} comes first and matches the same topic names"
        varies = any(sign in topic.filter for sign in "+#")
        if varies and topic.sensor is not None and not PLACEHOLDER.search(topic.sensor + topic.machine):
            yield field, f"would store several topic names as {topic.machine} {topic.sensor}; name a level {{sensor}}"


def _filter_covers(earlier: str, topic_filter: str) -> bool:
    first, second = earlier.split("/"), topic_filter.split("/")
    for level, other in zip(first, second, strict=False):
        if level == "#":
            return True
        if other == "#" or level not in ("+", other):
            return False
    return len(first) == len(second) or (len(first) == len(second) + 1 and first[-1] == "#")


def _impossible_absent_values(options: ModbusInput, place: Place) -> Iterator[Problem]:
    """Finds absent values that the registers of a rule cannot have."""
    found: set[tuple[int, float]] = set()
    if not any(rule.absent for rule in options.rules):
        return
    for register in options.registers:
        number, rule = rule_for(options.rules, register.machine, register.sensor)
        for value in rule.absent if rule is not None else ():
            if (problem := _absent_problem(register, value)) and (number, value) not in found:
                found.add((number, value))
                yield (*place, "rules", number, "absent"), problem


def _absent_problem(register: Register, value: float) -> str | None:
    limits = _INTEGERS.get(register.type)
    if limits is not None and not (value.is_integer() and limits[0] <= value <= limits[1]):
        return (
            f"{value:g} cannot be the value of a {register.type}, as register {register.address} is; it has values "
            f"from {limits[0]} to {limits[1]}, before scale"
        )
    if register.type == "float32" and abs(value) > float(np.finfo(np.float32).max) and math.isfinite(value):
        return f"{value:g} cannot be the value of a float32, as register {register.address} is"
    return None


def _merged_sources(inputs: Sequence[InputOptions]) -> Iterator[Problem]:
    """Finds registers, nodes and topics that would be stored as the same sensor, also of different inputs."""
    stored: dict[tuple[str, str, int], Place] = {}
    for number, options in enumerate(inputs):
        for field, machine, sensor in named_sources(options):
            place: Place = ("inputs", number, *field)
            _, rule = rule_for(options.rules, machine, sensor)
            if rule is not None and rule.drop:
                continue
            names = stored_names(rule, options.machines, machine, sensor)
            # Sources of an input that shares its series are only compared with those of the same input
            key = (*names, number if options.shared_series else -1)
            earlier = stored.setdefault(key, place)
            if earlier != place:
                where = ".".join(map(str, earlier))
                yield place, f"would be stored as {' '.join(names)}, as {where} is; name each source once"


def named_sources(options: InputOptions) -> Iterator[tuple[Place, str, str]]:
    """Yields the sources whose machine and sensor are in the file, with their field."""
    if isinstance(options, ModbusInput):
        for number, register in enumerate(options.registers):
            yield ("registers", number), register.machine, register.sensor
    elif isinstance(options, OpcuaInput):
        for number, node in enumerate(options.nodes):
            yield ("nodes", number), node.machine, node.sensor
    elif isinstance(options, MqttInput):
        for number, topic in enumerate(options.topics):
            if topic.sensor is not None and not PLACEHOLDER.search(topic.sensor + topic.machine):
                yield ("topics", number), topic.machine, topic.sensor


def _shared_peers(inputs: Sequence[InputOptions]) -> Iterator[Problem]:
    """Finds inputs that would take their data away from each other."""
    clients: dict[tuple[str, str], str] = {}
    folders: list[FilesInput] = []
    for number, options in enumerate(inputs):
        if isinstance(options, FilesInput):
            other = next((each for each in folders if _share_files(each, options)), None)
            folders.append(options)
            if other is not None:
                yield ("inputs", number, "folder"), f"input {other.name} reads the same files; one of them is enough"
        elif isinstance(options, (MqttInput, SparkplugInput)) and (client := options.broker.client_id):
            earlier = clients.setdefault((options.broker.address, client), options.name)
            if earlier != options.name:
                problem = f"is also that of input {earlier}; the broker would disconnect the two in turns"
                yield ("inputs", number, "broker", "client_id"), problem


def _share_files(first: FilesInput, second: FilesInput) -> bool:
    patterns = (first.pattern, second.pattern)
    same_folder = first.folder.absolute() == second.folder.absolute()
    return same_folder and (_pattern_covers(*patterns) or _pattern_covers(*reversed(patterns)))
