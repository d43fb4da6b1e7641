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

    environment: str = Field("development", description="Name of the deployment, in logs, traces and /health.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severity that is logged."
    )
    log_format: Literal["json", "ecs", "text"] = Field(
        "json", description="json; ecs (the same with the field names of the Elastic Common Schema); text for people."
    )
    log_to_file: bool = Field(False, description="Also write the log to a file.")
    log_file_path: Path = Field(Path(".aurum/aurum.log"), description="That file.")
    log_file_max_bytes: int = Field(10_000_000, ge=10_000, description="Size in bytes at which that file is rotated.")
    log_file_backups: int = Field(3, ge=0, le=100, description="Rotated files that are kept.")

    tracing_enabled: bool = Field(True, description="Make spans. Without, there are no trace ids either.")
    tracing_otlp_endpoint: str | None = Field(
        None, description="Where spans are sent by OTLP/gRPC, such as http://localhost:4317; nowhere if unset."
    )
    tracing_console_export: bool = Field(False, description="Write spans to stderr, for debugging.")
    tracing_sample_ratio: float = Field(1.0, ge=0, le=1, description="Share of new traces that are recorded.")
    tracing_export_interval: float = Field(
        2.5,
        ge=0.1,
        le=60,
        description="Seconds between two exports of spans; each costs some milliseconds of CPU.",
    )
    tracing_queue_spans: int = Field(2048, ge=16, description="Spans waiting for export; more are dropped and counted.")

    tracing_ring_spans: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Ended spans that each process keeps in memory for the console; 0 for none. By default 4,000 where "
        "spans are sent nowhere, else none.",
    )
    tracing_ring_slow: float = Field(
        0.5, gt=0, description="Seconds from which on a request counts as slow there, and its trace is kept longer."
    )

    retry_max_attempts: int = Field(3, ge=1, le=10, description="Calls to a dependency in all, the first one included.")
    retry_base_delay: float = Field(0.1, ge=0, le=60, description="Bound of the first backoff, in seconds.")
    retry_max_delay: float = Field(2.0, ge=0, le=300, description="Largest bound of a backoff, in seconds.")
    circuit_breaker_enabled: bool = Field(True, description="Refuse calls to a dependency that keeps failing.")
    circuit_breaker_fail_max: int = Field(5, ge=1, le=10_000, description="Failures in a row that open a breaker.")
    circuit_breaker_timeout: float = Field(
        5.0, ge=0, le=3600, description="Seconds that a breaker stays open at first; longer while probes fail."
    )
    timeout_connect: float = Field(0.5, gt=0, le=600, description="Seconds to wait for a connection.")
    timeout_read: float = Field(
        2.0,
        gt=0,
        le=240,
        description="Seconds to wait for an answer, in each attempt; all attempts together get 2.5 times that.",
    )
    timeout_write: float = Field(5.0, gt=0, le=600, description="Seconds to wait for room to send.")
    timeout_pool: float = Field(5.0, gt=0, le=600, description="Seconds to wait for a free connection.")
    timeout_db: float = Field(10.0, gt=0, le=600, description="Seconds to wait for the store.")
    policy_file: Path | None = Field(
        None,
        description="Policy document (YAML), or a folder with policies.yaml or else defaults.yaml, followed while "
        "running; the settings above govern the calls that it does not mention.",
    )
    outcomes_enabled: bool = Field(
        False, description="Record what became of each call to another service, below the state directory."
    )
    outcomes_max_bytes: int = Field(
        20_000_000, ge=10_000, description="Size in bytes at which that record begins anew; one older file is kept."
    )
    faults_enabled: bool = Field(
        False, description="Let `aurum fault` inject delays and errors into this process. Never in production."
    )

    state_dir: Path = Field(Path(".aurum"), description="Where everything that is kept on disk goes by default.")

    audit_file: Path | None = Field(
        None, description="Where acts that change something are written down, beside the log; only there if unset."
    )
    ingestion_target: str = Field("127.0.0.1:50051", description="Where the others find ingestion.")
    prediction_target: str = Field("127.0.0.1:50052", description="Where the others find prediction.")
    edge_target: str = Field("127.0.0.1:50053", description="Where devices find the edge gateway.")

    admin_host: str = Field("127.0.0.1", description="Address of the admin server: metrics, health, policy.")
    admin_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="What admin servers want as bearer token, for all but probes and metrics; alike in all services.",
    )
    admin_open: Openness = Field(
        "no", description="Whether the admin server listens on more than this machine without wanting a token."
    )
    admin_port: int | None = Field(
        None, ge=1, le=65535, description="Its port; by default 9100 (api) to 9106, by service."
    )
    admin_targets: str = Field(
        ",".join(f"{service}=127.0.0.1:{port}" for service, port in ADMIN_PORTS.items() if service != "operator"),
        description="Admin servers that /api/resilience and `aurum doctor` ask, as name=host:port,…",
    )
    rpc_tls_folder: Path | None = Field(
        None,
        description="Folder with tls.crt, tls.key and ca.crt, followed while running; services then speak mutual TLS.",
    )
    rpc_clients_file: Path | None = Field(
        None, description="What each client may do by its certificate (YAML); wanted where that folder is set."
    )
    rpc_open: Openness = Field(
        "no", description="Whether gRPC servers listen on more than this machine without asking for a certificate."
    )
    rpc_max_message_bytes: int = Field(16_000_000, ge=65_536, description="Largest gRPC message, in bytes.")
    rpc_concurrency_limit: int = Field(
        256, ge=1, le=100_000, description="Calls that a server handles at a time; the least critical go without first."
    )
    rpc_max_streams: int = Field(
        1000, ge=1, description="Places of a gRPC server for endless streams; each kind has a share of them."
    )
    rpc_ingest_share: float = Field(0.7, gt=0, le=1, description="Share of these places for Ingest.")
    rpc_watch_share: float = Field(0.2, gt=0, le=1, description="Share of these places for Watch.")
    rpc_other_share: float = Field(0.1, gt=0, le=1, description="Share of these places for health and reflection.")
    query_share: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Share of the calls that a server, or the API, handles at a time which may be queries with long "
        "answers.",
    )
    stream_caller_share: float = Field(
        0.5, gt=0, le=1, description="Share of the places of any kind of streams that one caller may have."
    )
    shutdown_drain: float = Field(
        0.0,
        ge=0,
        le=300,
        description="Seconds that a service which is asked to stop goes on serving, until its callers know; then comes "
        "the grace. 0 on one machine; in a cluster as long as it takes until a pod's address is forgotten.",
    )
    shutdown_grace: float = Field(6.0, gt=0, le=9, description="Seconds that calls in progress get when stopping.")

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
    def admin_headers(self) -> dict[str, str]:
        """The headers of requests to admin servers: the admin token, if there is one."""
        return {"Authorization": f"Bearer {self.admin_token.get_secret_value()}"} if self.admin_token else {}

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
