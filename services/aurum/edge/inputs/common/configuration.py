"""The inputs file (AURUM_EDGE_INPUTS): the inputs of a gateway, and the rules for names and units.

`aurum edge schema` prints its JSON schema. `aurum edge check FILE` prints what is wrong with a file.
"""

import base64
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from aurum.edge.inputs.common.units import UnitError, conversion
from aurum.readings.batch import machine_id_problem, sensor_problem
from aurum.readings.csv_table import TableOptions
from aurum.readings.number_text import DEFAULT_ABSENT_WORDS, fold_words
from aurum.readings.table_text import text_encoding_problem
from aurum.readings.times import TimeOptions, TimeOptionsError
from aurum.runtime.yaml_file import read_yaml

_MAX_INPUTS = 100
_MAX_RULES = 10_000
EARLIEST = datetime(2002, 1, 1, tzinfo=UTC)
"""Clocks that were never set begin in 1970, 1980 or 2000, and may run for some time before they are noticed."""
PLACEHOLDER = re.compile(r"{(\w+)}")
_SECURITY_POLICIES = Literal["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"]


class InputsError(ValueError):
    """The inputs file is missing or invalid. The message names the file and the field."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TagRule(_Model):
    """A rule for the sensors whose names match. The first matching rule applies."""

    sensor: str = Field(
        "*", min_length=1, max_length=200, description="Pattern of sensor names of the device, such as temp_*."
    )
    machine: str = Field(
        "*", min_length=1, max_length=200, description="Pattern of the device's names of machines, such as oven-*."
    )
    becomes: str | None = Field(None, description="Stored name of the sensor; the name of the device if absent.")
    machine_becomes: str | None = Field(None, description="Machine id; the name of the device if absent.")
    drop: bool = Field(False, description="Whether the readings are discarded.")
    unit: str | None = Field(None, description="Unit of the device, such as degF.")
    to: str | None = Field(None, description="Stored unit, such as degC.")
    scale: float = Field(1.0, description="Factor that is applied before the unit conversion.")
    offset: float = Field(0.0, description="Offset that is added after the factor.")
    minimum: float | None = Field(None, description="Lowest valid value in the stored unit; lower ones are refused.")
    maximum: float | None = Field(None, description="Greatest valid value in the stored unit.")
    absent: tuple[float, ...] = Field(
        (),
        max_length=20,
        description="Numbers that the device sends in place of an absent value, before scale, such as -32768.",
    )
    deadband: float = Field(0.0, ge=0, description="Change in the stored unit up to which a value is left out.")
    deadband_seconds: float = Field(60.0, gt=0, description="Seconds after which an unchanged value is stored anyway.")

    @field_validator("becomes")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is not None and (problem := sensor_problem(name)):
            raise ValueError(problem)
        return name

    @field_validator("machine_becomes")
    @classmethod
    def _check_machine_id(cls, name: str | None) -> str | None:
        if name is not None and (problem := machine_id_problem(name)):
            raise ValueError(problem)
        return name

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError("must not be 0, because every value would be stored as the same number")
        return scale

    @model_validator(mode="after")
    def _check_range(self) -> "TagRule":
        if self.minimum is not None and self.maximum is not None:
            if self.minimum >= self.maximum:
                raise ValueError(f"minimum: {self.minimum:g} must be less than the maximum, {self.maximum:g}")
            if self.deadband > self.maximum - self.minimum:
                raise ValueError(f"deadband: {self.deadband:g} is wider than the valid range")
        return self

    @model_validator(mode="after")
    def _check_units(self) -> "TagRule":
        if (self.unit is None) != (self.to is None):
            raise ValueError("unit and to must both be given, or neither")
        if self.unit is not None and self.to is not None:
            try:
                conversion(self.unit, self.to)
            except UnitError as error:
                raise ValueError(str(error)) from error
        return self


class _InputOptions(_Model):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9\-]{0,39}$", description="Name in metrics and logs.")
    rules: tuple[TagRule, ...] = Field((), max_length=_MAX_RULES, description="Rules for names and units.")
    clock: Literal["device", "corrected", "arrival"] = Field(
        "device",
        description="Time of a reading: the device's, that less the estimated skew of its clock, or the arrival.",
    )
    earliest: datetime = Field(
        EARLIEST,
        description="Earliest time that a device can mean. Readings before it get their time of arrival, because the "
        "clock of the device was not set.",
    )
    machines: dict[str, str] = Field(
        {}, max_length=_MAX_RULES, description="Machine ids by the names that the device uses."
    )
    shared_series: bool = Field(
        False,
        description="Whether other inputs may store the same sensors of the same machines, for example because a "
        "second broker sends the same values. Inputs of files always may.",
    )
    absent_words: tuple[str, ...] = Field(
        (),
        max_length=1000,
        description="Texts in place of an absent value, in addition to the usual ones such as Bad Input and #N/A.",
    )
    flush: float = Field(0.05, gt=0, le=10, description="Maximum seconds for which readings are gathered into a batch.")

    @cached_property
    def all_absent_words(self) -> frozenset[str]:
        """All texts in place of an absent value, as `parse_number` takes them."""
        return DEFAULT_ABSENT_WORDS | fold_words(self.absent_words)

    @field_validator("earliest")
    @classmethod
    def _check_earliest(cls, moment: datetime) -> datetime:
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        if moment > datetime.now(UTC):
            raise ValueError("is in the future, so that no device could have a valid time")
        return moment

    @field_validator("machines")
    @classmethod
    def _check_machines(cls, machines: dict[str, str]) -> dict[str, str]:
        for name, machine_id in machines.items():
            if problem := machine_id_problem(machine_id):
                raise ValueError(f"{name}: {problem}")
        return machines


class Tls(_Model):
    """TLS of a connection to a broker."""

    authorities: Path | None = Field(None, description="PEM file of the trusted authorities; the system's if absent.")
    certificate: Path | None = Field(
        None, description="PEM file of the client certificate, if the server requires one."
    )
    key: Path | None = Field(None, description="PEM file of the key of the client certificate.")


class Broker(_Model):
    """An MQTT broker."""

    host: str = Field(min_length=1, max_length=253)
    port: int = Field(1883, ge=1, le=65535)
    version: Literal["3.1.1", "5"] = Field("5", description="Version of MQTT.")
    client_id: str = Field("", max_length=200, description="Client id of the session; aurum-NAME if empty.")
    username: str | None = None
    password_file: Path | None = Field(None, description="File with the password.")
    tls: Tls | None = None
    keepalive: int = Field(30, ge=5, le=3600, description="Keep-alive interval in seconds.")
    in_flight: int = Field(5000, ge=1, le=65_535, description="Maximum number of unacknowledged messages (MQTT 5).")

    @property
    def address(self) -> str:
        """The host and port of the broker."""
        return f"{self.host}:{self.port}"


class Topic(_Model):
    """Topics whose messages have the same format.

    In pattern, machine and sensor, {name} stands for a level of the topic.
    """

    pattern: str = Field(
        min_length=1,
        max_length=1000,
        description="Pattern of topic names, such as plant/{machine}/state; # only at the end.",
    )
    machine: str = Field("{machine}", description="Machine of a reading; {field} of a JSON object is possible too.")
    format: Literal["json", "csv", "number"] = "json"
    sensor: str | None = Field(None, description="Sensor, if a message has a single value.")
    value: str | None = Field(None, description="JSON: path of the single value, such as data.value.")
    values: dict[str, str] = Field(
        {}, description="JSON: path of the value of each sensor; if empty, all numbers, named by their paths."
    )
    decimal_comma: bool = Field(False, description="Whether numbers in text have decimal commas, such as 21,5.")
    timestamp: str | None = Field(
        None, description="JSON path or CSV column of the time; the time of arrival if absent."
    )
    columns: tuple[str, ...] = Field((), description="CSV: names of the columns; the first line if absent.")
    shared_series: bool = Field(
        False,
        description="Whether these topics may store what other topics store too, because their values are the same.",
    )

    @property
    def filter(self) -> str:
        """The topic filter to subscribe to."""
        return PLACEHOLDER.sub("+", self.pattern)

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """The expression that matches topic names, with a group for each named level."""
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
    def _check_pattern(self) -> "Topic":
        levels = self.pattern.split("/")
        for level in levels:
            if "{" in level and not PLACEHOLDER.fullmatch(level):
                raise ValueError(f"pattern: {level!r} must be a whole level in braces, such as {{machine}}")
            if ("+" in level and level != "+") or ("#" in level and level != "#"):
                raise ValueError(f"pattern: {level!r} is not a level; + and # must be whole levels")
        if "#" in levels[:-1]:
            raise ValueError("pattern: # must be the last level")
        placeholders = set(PLACEHOLDER.findall(self.pattern))
        templates = f"{self.sensor or ''}{self.machine}"
        required = set() if self.format == "json" else set(PLACEHOLDER.findall(templates)) - set(self.columns)
        if missing := sorted(required - placeholders):
            raise ValueError(f"{missing[0]}: is not a level of the pattern {self.pattern!r}")
        if self.format == "number" and self.sensor is None:
            raise ValueError("sensor: is required if a message is a number")
        if self.value is not None and self.sensor is None:
            raise ValueError("sensor: is required with value")
        return self


class MqttInput(_InputOptions):
    """An input that reads topics of an MQTT broker."""

    protocol: Literal["mqtt"]
    broker: Broker
    topics: tuple[Topic, ...] = Field(min_length=1, max_length=1000)

    @property
    def summary(self) -> str:
        """What the input reads, in one phrase."""
        return f"at {self.broker.address}, {len(self.topics)} topics"


class SparkplugInput(_InputOptions):
    """An input that reads Sparkplug B nodes behind an MQTT broker."""

    protocol: Literal["sparkplug"]
    broker: Broker
    groups: tuple[str, ...] = Field(("+",), min_length=1, description="Groups to subscribe to.")
    host_id: str = Field("aurum", pattern=r"^[^/+#]{1,100}$", description="Host id in STATE messages.")
    machine: str = Field("{device}", description="Machine of a device; may contain {group}, {node} and {device}.")
    node_machine: str = Field("{node}", description="Machine of a node; may contain {group} and {node}.")

    @property
    def summary(self) -> str:
        """What the input reads, in one phrase."""
        return f"at {self.broker.address}, groups {', '.join(self.groups)}"

    @model_validator(mode="after")
    def _check_templates(self) -> "SparkplugInput":
        for name in ("machine", "node_machine"):
            template = getattr(self, name)
            wrong = set(PLACEHOLDER.findall(template)) - {"group", "node", "device"}
            if wrong or "{" in PLACEHOLDER.sub("", template):
                raise ValueError(f"{name}: {template!r} may only contain {{group}}, {{node}} and {{device}}")
        return self


def _check_node_id(text: str) -> str:
    match = NODE_ID.fullmatch(text)
    problem = f"{text!r} is not a node id, such as nsu=urn:plant;s=Pump1.Vibration or ns=2;i=1001"
    if match is None:
        raise ValueError(problem)
    kind, identifier = match["kind"], match["identifier"]
    try:
        if kind == "i":
            if not 0 <= int(identifier) < 1 << 32:
                raise ValueError
        elif kind == "g":
            uuid.UUID(identifier)
        elif kind == "b":
            base64.b64decode(identifier, validate=True)
    except ValueError:
        raise ValueError(problem) from None
    return text


NODE_ID = re.compile(r"(?:nsu=(?P<uri>[^;]+);|ns=(?P<index>\d{1,5});)?(?P<kind>[isgb])=(?P<identifier>.+)", re.DOTALL)
NodeIdText = Annotated[str, AfterValidator(_check_node_id)]


class OpcuaNodes(_Model):
    """Variables below a node. In machine and sensor, {name} stands for the browse name at that level of the path."""

    root: NodeIdText = Field("i=85", description="Node id at which browsing starts, such as nsu=urn:plant;s=Plant.")
    path: str = Field("{machine}/{sensor}", description="Browse names from the root to a variable; + matches any.")
    machine: str = "{machine}"
    sensor: str = "{sensor}"

    @model_validator(mode="after")
    def _check_templates(self) -> "OpcuaNodes":
        levels = set(PLACEHOLDER.findall(self.path))
        for name in ("machine", "sensor"):
            template = getattr(self, name)
            if missing := sorted(set(PLACEHOLDER.findall(template)) - levels):
                raise ValueError(f"{name}: {missing[0]!r} is not a level of the path {self.path!r}")
        return self


class OpcuaNode(_Model):
    """A variable by its node id."""

    node: NodeIdText = Field(description="Node id, such as nsu=urn:plant;s=Pump1.Vibration or ns=2;i=1001.")
    machine: str
    sensor: str

    @model_validator(mode="after")
    def _check_names(self) -> "OpcuaNode":
        _raise_first(machine_id_problem(self.machine), sensor_problem(self.sensor))
        return self


class OpcuaSecurity(_Model):
    """Encryption and authentication of an OPC UA connection."""

    policy: _SECURITY_POLICIES = "Basic256Sha256"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    certificate: Path = Field(description="Client certificate (DER or PEM).")
    key: Path
    server_certificate: Path | None = Field(None, description="The only accepted server certificate; any if absent.")


class OpcuaInput(_InputOptions):
    """An input that reads variables of an OPC UA server."""

    protocol: Literal["opcua"]
    endpoint: str = Field(pattern=r"^opc\.tcp://.+", description="Endpoint URL, such as opc.tcp://10.0.0.5:4840.")
    browse: tuple[OpcuaNodes, ...] = Field((), max_length=100)
    nodes: tuple[OpcuaNode, ...] = Field((), max_length=100_000)
    publishing: float = Field(0.5, gt=0, le=3600, description="Publishing interval in seconds.")
    sampling: float = Field(0.0, ge=0, le=3600, description="Sampling interval in seconds; the server's shortest if 0.")
    queue: int = Field(
        10, ge=1, le=10_000, description="Samples of a variable that the server queues between two notifications."
    )
    username: str | None = None
    password_file: Path | None = None
    security: OpcuaSecurity | None = None

    @property
    def summary(self) -> str:
        """What the input reads, in one phrase."""
        return f"at {self.endpoint}, {len(self.nodes)} variables and {len(self.browse)} to browse"

    @model_validator(mode="after")
    def _check_nodes(self) -> "OpcuaInput":
        if not self.browse and not self.nodes:
            raise ValueError("browse or nodes is required")
        _raise_first(_duplicate_problem("nodes", self.nodes))
        return self


class Register(_Model):
    """One value in the registers of a device."""

    address: int = Field(ge=0, le=65_535, description="Address of the first register, from 0.")
    kind: Literal["holding", "input", "coil", "discrete"] = "holding"
    type: Literal[
        "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bcd16", "bcd32", "bcd64", "bit"
    ] = Field("uint16", description="Type of the value; bcd16 is four decimal digits in a register.")
    word_order: Literal["big", "little"] = Field("big", description="Order of the registers of a value.")
    byte_order: Literal["big", "little"] = Field("big", description="Order of the bytes of a register.")
    not_implemented: Literal["absent", "keep"] | None = Field(
        None, description="Whether the type's mark of a value that does not exist is stored; as the input, if absent."
    )
    absent: tuple[float, ...] = Field(
        (), max_length=20, description="Values of the register, before any rule, that stand for no value."
    )
    machine: str
    sensor: str

    @model_validator(mode="after")
    def _check_type(self) -> "Register":
        _raise_first(machine_id_problem(self.machine), sensor_problem(self.sensor))
        if (self.kind in ("coil", "discrete")) != (self.type == "bit"):
            raise ValueError("type: coil and discrete require bit, holding and input another type")
        if self.address + REGISTERS_PER_VALUE[self.type] > 65_536:
            raise ValueError("address: the value extends beyond the last register")
        return self


REGISTERS_PER_VALUE = {
    "bit": 1,
    "int16": 1,
    "uint16": 1,
    "bcd16": 1,
    "int32": 2,
    "uint32": 2,
    "float32": 2,
    "bcd32": 2,
    "int64": 4,
    "uint64": 4,
    "float64": 4,
    "bcd64": 4,
}


class ModbusInput(_InputOptions):
    """An input that reads registers of a Modbus TCP device."""

    protocol: Literal["modbus"]
    host: str = Field(min_length=1, max_length=253)
    port: int = Field(502, ge=1, le=65535)
    unit: int = Field(1, ge=0, le=255, description="Unit id of the device.")
    period: float = Field(1.0, gt=0, le=86_400, description="Polling interval in seconds.")
    timeout: float = Field(1.0, gt=0, le=60, description="Seconds to wait for a response.")
    not_implemented: Literal["absent", "keep"] = Field(
        "absent",
        description="absent: 0x8000 as int16, 0xFFFF as uint16, 0x80000000, 0xFFFFFFFF and so on are not stored, "
        "because devices mean by them that they have no such value. keep: they are stored as numbers.",
    )
    registers: tuple[Register, ...] = Field(min_length=1, max_length=100_000)

    @property
    def summary(self) -> str:
        """What the input reads, in one phrase."""
        return f"at {self.host}:{self.port}, {len(self.registers)} values each {self.period:g} s"

    @model_validator(mode="after")
    def _check_unique_registers(self) -> "ModbusInput":
        _raise_first(_duplicate_problem("registers", self.registers))
        return self


class FilesInput(_InputOptions):
    """An input that reads CSV files that are dropped in a folder."""

    protocol: Literal["files"]
    folder: Path = Field(description="Folder of new files; stored files are moved to done, invalid ones to refused.")
    pattern: str = Field(
        "*.csv", description="Pattern of file names, in upper or lower case. Names with .gz appended match too."
    )
    settled: float = Field(1.0, ge=0, le=3600, description="Seconds without a change after which a file is complete.")
    keep: int = Field(
        1000, ge=0, le=1_000_000, description="Number of stored files that are kept; each is kept for ten minutes."
    )
    encoding: str | None = Field(
        None, description="Encoding of the text, such as windows-1252; UTF-8, UTF-16 or Windows-1252 if absent."
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="Sign between cells; recognized from the header if absent."
    )
    decimal: Literal["auto", "point", "comma"] = Field(
        "auto", description="Decimal sign; auto takes that of the first number, and a point in a table with commas."
    )
    time_format: str = Field(
        "auto",
        max_length=100,
        description="Format of times: auto for ISO 8601 or a number since 1970; its unit s, ms, us or ns; excel for "
        "serial dates of a spreadsheet; or a pattern such as %d.%m.%Y %H:%M:%S.",
    )
    timezone: str | None = Field(
        None, max_length=100, description="Zone of times that state none, such as Europe/Berlin; UTC if absent."
    )

    @property
    def table_options(self) -> TableOptions:
        """How the tables are written."""
        return TableOptions(
            self.delimiter,
            self.decimal,
            self.all_absent_words,
            TimeOptions(self.time_format, self.timezone),
            device_names=True,
        )

    @property
    def table_key(self) -> str:
        """How the tables are written, as text; empty if nothing is declared."""
        declared = {"encoding", "delimiter", "decimal", "time_format", "timezone"}
        declared |= {"absent_words", "machines", "earliest"}
        given = self.model_dump(include=declared, exclude_defaults=True, mode="json")
        return str(sorted(given.items())) if given else ""

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, name: str | None) -> str | None:
        if name is not None and (problem := text_encoding_problem(name)):
            raise ValueError(problem)
        return name

    @model_validator(mode="after")
    def _check_times(self) -> "FilesInput":
        try:
            TimeOptions(self.time_format)
        except TimeOptionsError as error:
            raise ValueError(f"time_format: {error}") from error
        try:
            TimeOptions(zone=self.timezone)
        except TimeOptionsError as error:
            raise ValueError(f"timezone: {error}") from error
        return self

    @property
    def summary(self) -> str:
        """What the input reads, in one phrase."""
        return f"{self.pattern} in {self.folder}"


InputOptions = Annotated[
    MqttInput | SparkplugInput | OpcuaInput | ModbusInput | FilesInput, Field(discriminator="protocol")
]


class InputsFile(_Model):
    """The inputs of a gateway."""

    inputs: tuple[InputOptions, ...] = Field(min_length=1, max_length=_MAX_INPUTS)

    @model_validator(mode="after")
    def _check_unique_names(self) -> "InputsFile":
        names = [options.name for options in self.inputs]
        if duplicate := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"name: two inputs have the name {duplicate!r}")
        return self


def load_inputs(path: Path) -> InputsFile:
    """Loads an inputs file. Raises InputsError."""
    return read_yaml(path, InputsFile, InputsError)


def _duplicate_problem(field: str, sources: "Sequence[OpcuaNode | Register]") -> str | None:
    """Returns which two sources would be stored under one name, because each would hide the other's values."""
    seen: dict[tuple[str, str], int] = {}
    for position, source in enumerate(sources):
        first = seen.setdefault((source.machine, source.sensor), position)
        if first != position:
            return (
                f"{field}.{position}: {source.machine} {source.sensor} is also {field}.{first}; name each sensor once"
            )
    return None


def _raise_first(*problems: str | None) -> None:
    if problem := next((problem for problem in problems if problem is not None), None):
        raise ValueError(problem)
