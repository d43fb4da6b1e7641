"""The settings that every process has, with their defaults and units, and how settings are loaded.

Each service extends `Settings` in its own `settings` module; `aurum.platform_settings` combines them.

Sources, the first that has a value wins: the environment with the prefix (AURUM_LOG_LEVEL), for the settings that the
platform before had also without it (LOG_LEVEL), the OpenTelemetry standard's name where there is one, the default.
"""

import difflib
import logging
import os
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import AliasChoices, AliasGenerator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

logger = logging.getLogger(__name__)

PREFIX = "AURUM_"
_SIMULATORS = ("AURUM_IOT_", "AURUM_EDGE_SIM_")  # options of the simulators' commands
_EARLIER = ("log_", "tracing_", "retry_", "circuit_breaker_", "timeout_")
_STANDARD = {
    "tracing_otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "tracing_sample_ratio": "OTEL_TRACES_SAMPLER_ARG",
    "environment": "DEPLOYMENT_ENVIRONMENT",
}
_ROUNDING = 1e-9  # of shares that are added up
ADMIN_PORTS = {
    "api": 9100,
    "ingestion": 9101,
    "prediction": 9102,
    "edge": 9103,
    "iot-sim": 9104,
    "edge-sim": 9105,
    "operator": 9106,
}


OPEN: Final = "everybody-may-do-everything"  # what a setting must say for a server that asks nobody who they are
Openness = Literal["no", "everybody-may-do-everything"]
EventLoop = Literal["auto", "asyncio", "uvloop"]


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it."""


def environment_names(field: str) -> tuple[str, ...]:
    """Returns the environment variables that set a field, in order of precedence."""
    names = [PREFIX + field.upper()]
    if field.startswith(_EARLIER):
        names.append(field.upper())
    if field in _STANDARD:
        names.append(_STANDARD[field])
    return tuple(names)


class Settings(BaseSettings):
    """The settings that every process has."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(*environment_names(name))),
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        protected_namespaces=(),
    )

    environment: str = Field("development", description="Name of the deployment in logs, traces and /health.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest severity that is logged."
    )
    log_format: Literal["json", "ecs", "text"] = Field(
        "json",
        description="Format of the log: json, ecs (JSON with the field names of the Elastic Common Schema) or text.",
    )
    log_to_file: bool = Field(False, description="Whether the log is also written to a file.")
    log_file_path: Path = Field(Path(".aurum/aurum.log"), description="Path of the log file.")
    log_file_max_bytes: int = Field(
        10_000_000, ge=10_000, description="Size of the log file in bytes at which it is rotated."
    )
    log_file_backups: int = Field(3, ge=0, le=100, description="Number of rotated log files that are kept.")

    tracing_enabled: bool = Field(
        True, description="Whether traces are created. Without them, logs and answers have no trace ids."
    )
    tracing_otlp_endpoint: str | None = Field(
        None,
        description="OTLP/gRPC endpoint to which spans are exported, such as http://localhost:4317. Unset, spans "
        "are not exported.",
    )
    tracing_console_export: bool = Field(False, description="Whether spans are written to stderr, for debugging.")
    tracing_sample_ratio: float = Field(1.0, ge=0, le=1, description="Share of new traces that are recorded.")
    tracing_export_interval: float = Field(
        2.5,
        ge=0.1,
        le=60,
        description="Seconds between two exports of spans. Each export takes some milliseconds of CPU time.",
    )
    tracing_queue_spans: int = Field(
        2048, ge=16, description="Maximum number of spans that wait for export. Further spans are dropped and counted."
    )

    tracing_ring_spans: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Number of ended spans that each process keeps in memory for the console; 0 for none. The "
        "default is 4,000 without an OTLP endpoint, and 0 with one.",
    )
    tracing_ring_slow: float = Field(
        0.5,
        gt=0,
        description="Duration in seconds from which a request counts as slow. The traces of slow requests are "
        "kept longer in memory.",
    )

    retry_max_attempts: int = Field(
        3, ge=1, le=10, description="Maximum number of attempts of a call, including the first."
    )
    retry_base_delay: float = Field(0.1, ge=0, le=60, description="Upper bound of the first backoff, in seconds.")
    retry_max_delay: float = Field(2.0, ge=0, le=300, description="Upper bound of all backoffs, in seconds.")
    circuit_breaker_enabled: bool = Field(
        True, description="Whether circuit breakers refuse calls to failing dependencies."
    )
    circuit_breaker_fail_max: int = Field(
        5, ge=1, le=10_000, description="Number of failures in a row that open a breaker."
    )
    circuit_breaker_timeout: float = Field(
        5.0, ge=0, le=3600, description="Seconds that a breaker stays open at first. The time grows while probes fail."
    )
    timeout_connect: float = Field(0.5, gt=0, le=600, description="Timeout for a connection, in seconds.")
    timeout_read: float = Field(
        2.0,
        gt=0,
        le=240,
        description="Timeout of one attempt, in seconds. The deadline of all attempts together is 2.5 times as long.",
    )
    timeout_write: float = Field(5.0, gt=0, le=600, description="Timeout for sending, in seconds.")
    timeout_pool: float = Field(5.0, gt=0, le=600, description="Timeout for a free connection of the pool, in seconds.")
    timeout_db: float = Field(10.0, gt=0, le=600, description="Timeout of a statement of the store, in seconds.")
    policy_file: Path | None = Field(
        None,
        description="Policy document (YAML), or a folder with policies.yaml or defaults.yaml. It is reloaded "
        "when it changes. The settings above govern the calls that it does not mention.",
    )
    outcomes_enabled: bool = Field(
        False, description="Whether the outcome of each call to another service is recorded below the state directory."
    )
    outcomes_max_bytes: int = Field(
        20_000_000,
        ge=10_000,
        description="Size of this record in bytes at which it is rotated. One older file is kept.",
    )
    faults_enabled: bool = Field(
        False,
        description="Whether `aurum fault` may inject delays and errors into this process. Do not enable it in "
        "production.",
    )

    event_loop: EventLoop = Field(
        "auto",
        description="Event loop of the process: uvloop, asyncio, or auto. Auto stands for uvloop in api, ingestion and "
        "prediction, where it is installed, else for asyncio.",
    )

    state_dir: Path = Field(
        Path(".aurum"), description="State directory: the default location of all files that services write."
    )

    audit_file: Path | None = Field(
        None, description="Path of the audit log. Unset, audit events are written to the service's log only."
    )
    ingestion_target: str = Field("127.0.0.1:50051", description="Address at which other services reach ingestion.")
    prediction_target: str = Field("127.0.0.1:50052", description="Address at which other services reach prediction.")
    edge_target: str = Field("127.0.0.1:50053", description="Address at which devices reach the edge gateway.")

    admin_host: str = Field("127.0.0.1", description="Address on which the admin server listens.")
    admin_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Bearer token that the admin servers require, except for probes and metrics. It must be the "
        "same in all services.",
    )
    admin_token_folder: Path | None = Field(
        None,
        description="Folder with the admin token in the file token and, while it is replaced, the one before in the "
        "file previous. It is followed, and both are accepted. It replaces AURUM_ADMIN_TOKEN.",
    )
    admin_open: Openness = Field(
        "no", description="Whether the admin server may listen on non-local addresses without a token."
    )
    admin_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port of the admin server. The default depends on the service, from 9100 (api) to 9106 (operator).",
    )
    admin_targets: str = Field(
        ",".join(f"{service}=127.0.0.1:{port}" for service, port in ADMIN_PORTS.items() if service != "operator"),
        description="Admin servers that /api/resilience and `aurum doctor` query, as name=host:port,…",
    )
    rpc_tls_folder: Path | None = Field(
        None,
        description="Folder with tls.crt, tls.key and ca.crt for mutual TLS between services. It is reloaded "
        "when it changes.",
    )
    rpc_clients_file: Path | None = Field(
        None,
        description="Roles of clients by their certificates (YAML). It is required if AURUM_RPC_TLS_FOLDER is set.",
    )
    rpc_open: Openness = Field(
        "no", description="Whether gRPC servers may listen on non-local addresses without client certificates."
    )
    rpc_max_message_bytes: int = Field(16_000_000, ge=65_536, description="Maximum size of a gRPC message, in bytes.")
    rpc_concurrency_limit: int = Field(
        256,
        ge=1,
        le=100_000,
        description="Maximum number of calls that a server handles at a time. The least critical calls are "
        "refused first.",
    )
    rpc_max_streams: int = Field(
        1000,
        ge=1,
        description="Maximum number of long-lived streams of a gRPC server. Each kind of stream has a share of it.",
    )
    rpc_ingest_share: float = Field(0.7, gt=0, le=1, description="Share of these streams for Ingest.")
    rpc_watch_share: float = Field(0.2, gt=0, le=1, description="Share of these streams for Watch and Follow.")
    rpc_follow_share: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of the streams for Watch and Follow that is for Follow alone; the others are for Watch. So "
        "consoles and scorers do not take each other's places.",
    )
    rpc_other_share: float = Field(
        0.1, gt=0, le=1, description="Share of these streams for health checks and reflection."
    )
    query_share: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Share of the calls in progress of a server, or of the API, that may be queries with long answers.",
    )
    stream_caller_share: float = Field(
        0.5, gt=0, le=1, description="Share of the streams of one kind that one caller may use."
    )
    shutdown_drain: float = Field(
        0.0,
        ge=0,
        le=300,
        description="Seconds that a stopping service continues to serve until its callers use other instances. "
        "The grace period follows. Use 0 on one machine, and in a cluster the time until a pod's "
        "address is removed everywhere.",
    )
    shutdown_grace: float = Field(
        6.0, gt=0, le=9, description="Seconds that calls in progress have to end when the service stops."
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("tracing_otlp_endpoint")
    @classmethod
    def _endpoint_has_scheme(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} must start with http:// or https://, such as http://localhost:4317")
        return value or None

    @field_validator("admin_targets")
    @classmethod
    def _targets_have_names(cls, value: str) -> str:
        for target in filter(None, value.split(",")):
            if "=" not in target or ":" not in target:
                raise ValueError(f"{target!r} is not name=host:port")
        return value

    @model_validator(mode="after")
    def _delays_in_order(self) -> "Settings":
        if self.retry_base_delay > self.retry_max_delay:
            raise ValueError(
                f"AURUM_RETRY_BASE_DELAY ({self.retry_base_delay} s) is above AURUM_RETRY_MAX_DELAY "
                f"({self.retry_max_delay} s)"
            )
        return self

    @model_validator(mode="after")
    def _one_source_of_the_admin_token(self) -> "Settings":
        if self.admin_token is not None and self.admin_token_folder is not None:
            raise ValueError("AURUM_ADMIN_TOKEN and AURUM_ADMIN_TOKEN_FOLDER are both set; unset one of them")
        return self

    @model_validator(mode="after")
    def _streams_have_places(self) -> "Settings":
        shares = self.rpc_ingest_share + self.rpc_watch_share + self.rpc_other_share
        if shares > 1 + _ROUNDING:
            raise ValueError(
                f"AURUM_RPC_INGEST_SHARE, AURUM_RPC_WATCH_SHARE and AURUM_RPC_OTHER_SHARE are {shares:g} together; "
                f"at most 1 can be given away"
            )
        return self

    @property
    def ring_spans(self) -> int:
        """Ended spans that a process keeps in memory."""
        if self.tracing_ring_spans is None:
            return 0 if self.tracing_otlp_endpoint else 4000
        return self.tracing_ring_spans

    def outcomes_path(self, service: str) -> Path:
        """Returns the file in which a service records the outcomes of its calls."""
        return self.state_dir / "outcomes" / f"{service}.jsonl"

    def admin_port_of(self, service: str) -> int:
        """Returns the port of a service's admin server."""
        return self.admin_port or ADMIN_PORTS.get(service, 9109)

    @property
    def admin_addresses(self) -> dict[str, str]:
        """The admin servers of the platform: service → host:port."""
        pairs = (target.split("=", 1) for target in self.admin_targets.split(",") if target)
        return {name.strip(): address.strip() for name, address in pairs}


S = TypeVar("S", bound=Settings)


def load_settings(model: type[S], **values: object) -> S:
    """Loads settings from the environment.

    Args:
        model: The settings of the service.
        values: Values that take precedence over the environment, by field name.

    Raises:
        SettingsError: A value is invalid. The message names the environment variable of the first one.
    """
    try:
        return model(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        location = str(first["loc"][0]) if first["loc"] else ""
        field = location.removeprefix(PREFIX).lower()
        name = environment_names(field)[0] if field in model.model_fields else location
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}: {message}" if name else message) from error


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Returns the settings that every process has, read once."""
    return load_settings(Settings)


def warn_of_unknown(names: Collection[str], environ: Mapping[str, str] = os.environ) -> None:
    """Logs a warning for each AURUM_ variable that no service reads, since most likely its name has a typing error.

    Args:
        names: The environment variables of all services of the platform.
        environ: The environment.
    """
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in names and not name.startswith(_SIMULATORS):
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            logger.warning("%s is not a setting of AurumAI and is ignored%s", name, hint)
