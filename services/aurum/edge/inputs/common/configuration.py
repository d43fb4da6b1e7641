"""The inputs file (AURUM_EDGE_INPUTS): the inputs of a gateway, and the rules for names and units.

`aurum edge schema` prints its JSON schema. `aurum edge check FILE` prints what is wrong with a file.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from aurum.edge.inputs.common.units import UnitError, conversion
from aurum.readings.batch import machine_id_problem, sensor_problem
from aurum.runtime.yaml_file import read_yaml

_MOST_INPUTS = 100
_MOST_RULES = 10_000
PLACEHOLDER = re.compile(r"{(\w+)}")
_SECURITY_POLICIES = Literal["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"]


class InputsError(ValueError):
    """The inputs file cannot be used. The message names the file and the field."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Rule(_Shape):
    """A rule for the sensors with matching names. The first matching rule counts."""

    sensor: str = Field("*", min_length=1, max_length=200, description="Pattern of names as they come, such as temp_*.")
    machine: str = Field("*", min_length=1, max_length=200, description="Pattern of machines for which it holds.")
    becomes: str | None = Field(None, description="What such a sensor is called here; as it comes if absent.")
    drop: bool = Field(False, description="Whether such readings are left out.")
    unit: str | None = Field(None, description="Unit as it comes, such as degF.")
    to: str | None = Field(None, description="Unit that is stored, such as degC.")
    scale: float = Field(1.0, description="Factor, before units are converted.")
    offset: float = Field(0.0, description="Added after the factor.")
    deadband: float = Field(0.0, ge=0, description="Change, as it is stored, up to which a value is left out.")
    deadband_seconds: float = Field(60.0, gt=0, description="Seconds after which an unchanged value is stored anyway.")

    @field_validator("becomes")
    @classmethod
    def _a_name(cls, name: str | None) -> str | None:
        if name is not None and (problem := sensor_problem(name)):
            raise ValueError(problem)
        return name

    @model_validator(mode="after")
    def _units(self) -> "Rule":
        if (self.unit is None) != (self.to is None):
            raise ValueError("unit and to must both be given, or neither")
        if self.unit is not None and self.to is not None:
            try:
                conversion(self.unit, self.to)
            except UnitError as error:
                raise ValueError(str(error)) from error
        return self


class _Input(_Shape):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9\-]{0,39}$", description="What it is called in metrics and logs.")
    rules: tuple[Rule, ...] = Field((), max_length=_MOST_RULES, description="What becomes of sensors.")
    clock: Literal["device", "corrected", "arrival"] = Field(
        "device",
        description="Whose time a reading gets: the device's, that less the estimated skew of its clock, or our own.",
    )
    flush: float = Field(0.05, gt=0, le=10, description="Seconds that readings are gathered at most, for one batch.")


class Tls(_Shape):
    authorities: Path | None = Field(None, description="PEM of who may sign the server's; the system's if absent.")
    certificate: Path | None = Field(None, description="PEM of our own, where the server wants one.")
    key: Path | None = Field(None, description="Its key.")


class Broker(_Shape):
    host: str = Field(min_length=1, max_length=253)
    port: int = Field(1883, ge=1, le=65535)
    version: Literal["3.1.1", "5"] = Field("5", description="Of the protocol.")
    client_id: str = Field("", max_length=200, description="Of the session that the broker keeps; aurum-NAME if empty.")
    username: str | None = None
    password_file: Path | None = Field(None, description="File that has the password, so that this one has no secret.")
    tls: Tls | None = None
    keepalive: int = Field(30, ge=5, le=3600, description="Seconds between two signs of life.")
    in_flight: int = Field(5000, ge=1, le=65_535, description="Unacknowledged messages at a time (MQTT 5).")

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


class Topic(_Shape):
    """Topics whose messages have the same format.

    In pattern, machine and sensor, {name} stands for a level of the topic.
    """

    pattern: str = Field(min_length=1, max_length=1000, description="Such as plant/{machine}/state; # ends it.")
    machine: str = Field("{machine}", description="Whose reading it is; also {field} of a JSON object.")
    format: Literal["json", "csv", "number"] = "json"
    sensor: str | None = Field(None, description="Which sensor's, where a message has one value only.")
    value: str | None = Field(None, description="JSON: path of that value, such as data.value.")
    values: dict[str, str] = Field({}, description="JSON: sensor → path of its value; all numbers if empty.")
    timestamp: str | None = Field(None, description="JSON: path of the time; CSV: column of it. Arrival if absent.")
    columns: tuple[str, ...] = Field((), description="CSV: names of the columns; by a first line if absent.")

    @property
    def filter(self) -> str:
        return PLACEHOLDER.sub("+", self.pattern)

    @cached_property
    def expression(self) -> re.Pattern[str]:
        parts = []
        for level in self.pattern.split("/"):
            if level == "#":
                parts.append(".*")
            elif level == "+":
                parts.append("[^/]*")
            else:
                parts.append(
                    "".join(
                        f"(?P<{part}>[^/]*)" if index % 2 else re.escape(part)
                        for index, part in enumerate(PLACEHOLDER.split(level))
                    )
                )
        return re.compile("/".join(parts))

    @model_validator(mode="after")
    def _fits(self) -> "Topic":
        levels = self.pattern.split("/")
        for level in levels:
            if "{" in level and not PLACEHOLDER.fullmatch(level):
                raise ValueError(f"pattern: {level!r} must be a whole level in braces, such as {{machine}}")
            if ("+" in level and level != "+") or ("#" in level and level != "#"):
                raise ValueError(f"pattern: {level!r} is no level; + and # stand alone")
        if "#" in levels[:-1]:
            raise ValueError("pattern: # stands at the end only")
        named = set(PLACEHOLDER.findall(self.pattern))
        templates = f"{self.sensor or ''}{self.machine}"
        wanted = set() if self.format == "json" else set(PLACEHOLDER.findall(templates)) - set(self.columns)
        if missing := sorted(wanted - named):
            raise ValueError(f"{missing[0]}: is no level of the pattern {self.pattern!r}")
        if self.format == "number" and self.sensor is None:
            raise ValueError("sensor: must be given where a message is a number")
        if self.value is not None and self.sensor is None:
            raise ValueError("sensor: must be given with value")
        return self


class MqttInput(_Input):
    protocol: Literal["mqtt"]
    broker: Broker
    topics: tuple[Topic, ...] = Field(min_length=1, max_length=1000)

    @property
    def place(self) -> str:
        return f"at {self.broker.address}, {len(self.topics)} topics"


class SparkplugInput(_Input):
    protocol: Literal["sparkplug"]
    broker: Broker
    groups: tuple[str, ...] = Field(("+",), min_length=1, description="Groups that are listened to.")
    host_id: str = Field("aurum", pattern=r"^[^/+#]{1,100}$", description="Nodes know us by it (STATE).")
    machine: str = Field("{device}", description="Whose metrics they are, of {group}, {node} and {device}.")
    node_machine: str = Field("{node}", description="The same for the metrics of a node itself.")

    @property
    def place(self) -> str:
        return f"at {self.broker.address}, groups {', '.join(self.groups)}"

    @model_validator(mode="after")
    def _known(self) -> "SparkplugInput":
        for name in ("machine", "node_machine"):
            template = getattr(self, name)
            wrong = set(PLACEHOLDER.findall(template)) - {"group", "node", "device"}
            if wrong or "{" in PLACEHOLDER.sub("", template):
                raise ValueError(f"{name}: {template!r} may have {{group}}, {{node}} and {{device}}")
        return self


class OpcuaNodes(_Shape):
    """Variables below a node. In machine and sensor, {name} stands for the browse name at that level of the path."""

    root: str = Field("i=85", description="Node id where browsing begins, such as ns=2;s=Plant.")
    path: str = Field("{machine}/{sensor}", description="Browse names on the way to a variable; + for any one.")
    machine: str = "{machine}"
    sensor: str = "{sensor}"

    @model_validator(mode="after")
    def _named(self) -> "OpcuaNodes":
        levels = set(PLACEHOLDER.findall(self.path))
        for name in ("machine", "sensor"):
            template = getattr(self, name)
            if missing := sorted(set(PLACEHOLDER.findall(template)) - levels):
                raise ValueError(f"{name}: {missing[0]!r} is no level of the path {self.path!r}")
        return self


class OpcuaNode(_Shape):
    node: str = Field(description="Node id, such as ns=2;s=Pump1.Vibration.")
    machine: str
    sensor: str

    @model_validator(mode="after")
    def _names(self) -> "OpcuaNode":
        _refuse(machine_id_problem(self.machine), sensor_problem(self.sensor))
        return self


class OpcuaSecurity(_Shape):
    policy: _SECURITY_POLICIES = "Basic256Sha256"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    certificate: Path = Field(description="Our own (DER or PEM).")
    key: Path
    server_certificate: Path | None = Field(None, description="The server's, which alone is accepted.")


class OpcuaInput(_Input):
    protocol: Literal["opcua"]
    endpoint: str = Field(pattern=r"^opc\.tcp://.+", description="Such as opc.tcp://10.0.0.5:4840.")
    browse: tuple[OpcuaNodes, ...] = Field((), max_length=100)
    nodes: tuple[OpcuaNode, ...] = Field((), max_length=100_000)
    publishing: float = Field(0.5, gt=0, le=3600, description="Seconds between two notifications.")
    sampling: float = Field(0.0, ge=0, le=3600, description="Seconds between two samples; the server's fastest if 0.")
    queue: int = Field(10, ge=1, le=10_000, description="Samples of one variable that the server keeps between.")
    username: str | None = None
    password_file: Path | None = None
    security: OpcuaSecurity | None = None

    @property
    def place(self) -> str:
        return f"at {self.endpoint}, {len(self.nodes)} variables and {len(self.browse)} to browse"

    @model_validator(mode="after")
    def _something(self) -> "OpcuaInput":
        if not self.browse and not self.nodes:
            raise ValueError("browse or nodes must name some variables")
        return self


class Register(_Shape):
    """One value in the registers of a device."""

    address: int = Field(ge=0, le=65_535, description="Of the first register, from 0.")
    kind: Literal["holding", "input", "coil", "discrete"] = "holding"
    type: Literal["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bit"] = "uint16"
    word_order: Literal["big", "little"] = Field("big", description="Which of several registers comes first.")
    machine: str
    sensor: str

    @model_validator(mode="after")
    def _fits(self) -> "Register":
        _refuse(machine_id_problem(self.machine), sensor_problem(self.sensor))
        if (self.kind in ("coil", "discrete")) != (self.type == "bit"):
            raise ValueError("type: bit goes with coil and discrete, the others with holding and input")
        if self.address + WORDS[self.type] > 65_536:
            raise ValueError("address: the value does not end within the registers")
        return self


WORDS = {
    "bit": 1,
    "int16": 1,
    "uint16": 1,
    "int32": 2,
    "uint32": 2,
    "float32": 2,
    "int64": 4,
    "uint64": 4,
    "float64": 4,
}


class ModbusInput(_Input):
    protocol: Literal["modbus"]
    host: str = Field(min_length=1, max_length=253)
    port: int = Field(502, ge=1, le=65535)
    unit: int = Field(1, ge=0, le=255, description="Address of the device behind it.")
    period: float = Field(1.0, gt=0, le=86_400, description="Seconds between two rounds.")
    timeout: float = Field(1.0, gt=0, le=60, description="Seconds that one answer may take.")
    registers: tuple[Register, ...] = Field(min_length=1, max_length=100_000)

    @property
    def place(self) -> str:
        return f"at {self.host}:{self.port}, {len(self.registers)} values each {self.period:g} s"


class FilesInput(_Input):
    protocol: Literal["files"]
    folder: Path = Field(description="Where files are dropped; done ones go to its folder done, wrong ones to refused.")
    pattern: str = Field("*.csv", description="Names that count.")
    settled: float = Field(1.0, ge=0, le=3600, description="Seconds without change after which a file is whole.")
    keep: int = Field(1000, ge=0, le=1_000_000, description="Done files that are kept.")

    @property
    def place(self) -> str:
        return f"{self.pattern} in {self.folder}"


Input = Annotated[MqttInput | SparkplugInput | OpcuaInput | ModbusInput | FilesInput, Field(discriminator="protocol")]


class InputsFile(_Shape):
    """The inputs of a gateway."""

    inputs: tuple[Input, ...] = Field(min_length=1, max_length=_MOST_INPUTS)

    @model_validator(mode="after")
    def _unique(self) -> "InputsFile":
        names = [each.name for each in self.inputs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"name: two inputs are called {twice!r}")
        return self


def load_inputs(path: Path) -> InputsFile:
    """Loads an inputs file. Raises InputsError."""
    return read_yaml(path, InputsFile, InputsError)


def _refuse(*problems: str | None) -> None:
    if problem := next((each for each in problems if each is not None), None):
        raise ValueError(problem)
