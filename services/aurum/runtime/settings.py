"""Every setting of the platform, with its default and unit. docs/settings.md is generated from here.

Sources, the first that has a value wins: the environment with the prefix (AURUM_LOG_LEVEL), for the settings that the
platform before had also without it (LOG_LEVEL), the OpenTelemetry standard's name where there is one, the default.
"""

import difflib
import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from pydantic import AliasChoices, AliasGenerator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from aurum.resilience import TimeoutConfig

PREFIX = "AURUM_"
_EARLIER = ("log_", "tracing_", "retry_", "circuit_breaker_", "timeout_")
_STANDARD = {
    "tracing_otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "tracing_sample_ratio": "OTEL_TRACES_SAMPLER_ARG",
    "environment": "DEPLOYMENT_ENVIRONMENT",
}
_ROUNDING = 1e-9  # of shares that are added up
_SENSOR_BYTES = 96  # of a sensor's last reading in a message, at most
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
_Open = Literal["no", "everybody-may-do-everything"]


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it."""


def environment_names(field: str) -> tuple[str, ...]:
    """The environment variables that set a field, the strongest first."""
    names = [PREFIX + field.upper()]
    if field.startswith(_EARLIER):
        names.append(field.upper())
    if field in _STANDARD:
        names.append(_STANDARD[field])
    return tuple(names)


class Settings(BaseSettings):
    """The settings of all services; each reads those that concern it."""

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

    feature_predictive: bool = Field(True, description="Predictions are offered.")
    feature_carbon: bool = Field(True, description="Carbon accounting is offered.")
    feature_energy: bool = Field(True, description="Energy accounting is offered.")
    feature_water: bool = Field(False, description="Water accounting is offered.")
    feature_analytics: bool = Field(True, description="Features and explanations are offered.")

    state_dir: Path = Field(Path(".aurum"), description="Where everything that is kept on disk goes by default.")
    store_url: str | None = Field(
        None,
        description="The store: sqlite:///PATH, or cassandra://HOST,HOST/KEYSPACE?replication=3. By default a file "
        "below the state directory.",
    )
    store_username: str | None = Field(None, description="User of the Cassandra cluster.")
    store_password: SecretStr | None = Field(None, description="Its password.")
    store_ca_file: str | None = Field(None, description="Certificates that the cluster's are checked by; sets TLS.")
    model_dir: Path | None = Field(None, description="Models; by default models below the state directory.")

    api_host: str = Field("127.0.0.1", description="Address that the API listens on.")
    api_port: int = Field(8000, ge=1, le=65535, description="Port of the API.")
    api_body_budget_bytes: int = Field(
        64_000_000,
        ge=1_000_000,
        description="Bytes of request bodies that the API holds at once; half for one caller.",
    )
    api_max_body_bytes: int = Field(16_000_000, ge=1024, description="Largest body of readings, in bytes.")
    api_head_timeout: float = Field(
        10.0, gt=0, le=600, description="Seconds that a client gets for a request's line and headers."
    )
    api_body_timeout: float = Field(120.0, gt=0, le=3600, description="Seconds that it gets for a whole body.")
    api_max_connections: int = Field(
        2000, ge=1, description="Open connections; beyond, whoever has waited longest with its headers goes."
    )
    api_max_connections_per_address: int = Field(
        1000, ge=1, description="Of one address; behind a proxy that is the proxy's."
    )
    api_trusted_proxies: str = Field(
        "", description="Addresses or networks of proxies whose X-Forwarded-For says who a client is, with commas."
    )
    api_refresh_interval: float = Field(
        3.0, ge=0.2, description="Seconds between two looks at the plant, for risk in lists and the console."
    )
    api_first_look: float = Field(
        10.0, ge=0, description="Seconds that a new API waits at most to know the plant, before it counts as ready."
    )
    api_max_event_streams: int = Field(
        200, ge=1, description="Open /api/events streams; more are refused. Each caller may have a share of them."
    )
    api_key: SecretStr | None = Field(None, description="Key that `aurum import --api` shows, where an API asks.")
    auth_keys_file: Path | None = Field(
        None, description="File of API keys, made by `aurum key`; callers then have to say who they are."
    )
    auth_oidc_issuer: str | None = Field(
        None, description="OIDC issuer, such as https://login.example.com/realms/plant, whose tokens are accepted."
    )
    auth_oidc_audience: str = Field("aurumai", description="Audience that its tokens must be for.")
    auth_oidc_jwks_url: str | None = Field(
        None, description="Its key set; by default what its /.well-known/openid-configuration names."
    )
    auth_oidc_roles_claim: str = Field("roles", description="Claim with the roles, such as realm_access.roles.")
    auth_oidc_sites_claim: str = Field("sites", description="Claim with the sites that a user is bound to.")
    auth_oidc_role_names: str = Field(
        "", description="What roles of the issuer mean here, as name=role,…; those with our names need none."
    )
    auth_session_secret: SecretStr | None = Field(
        None, description="Signs the console's sessions, at least 32 characters, alike at all replicas; else made anew."
    )
    auth_session_hours: float = Field(12.0, gt=0, le=720, description="Hours that a session of the console lasts.")
    auth_open: _Open = Field(
        "no", description="Whether the API listens on more than this machine without asking callers who they are."
    )
    audit_file: Path | None = Field(
        None, description="Where acts that change something are written down, beside the log; only there if unset."
    )
    api_rate: float = Field(0.0, ge=0, description="Requests a second of one identity, in the long run; 0 for any.")
    api_rate_burst: float = Field(200.0, ge=1, description="Requests of one identity at once.")
    console_jaeger_url: str | None = Field(
        None,
        description="Jaeger as a browser reaches it, such as http://localhost:16686; the console links its traces.",
    )
    console_grafana_url: str | None = Field(None, description="Grafana, likewise; the console links its dashboards.")
    console_logs_url: str | None = Field(
        None,
        description="Where the logs of a trace are shown, with {trace_id} in its place, such as a query of Grafana's "
        "Explore; the console links it.",
    )
    ingestion_host: str = Field("127.0.0.1", description="Address that ingestion listens on.")
    ingestion_port: int = Field(50051, ge=1, le=65535, description="Port of ingestion (gRPC).")
    ingestion_target: str = Field("127.0.0.1:50051", description="Where the others find ingestion.")
    ingestion_queue_bytes: int = Field(
        64_000_000, ge=1_000_000, description="Bytes of batches waiting to be stored; more are refused."
    )
    ingestion_recent_bytes: int = Field(
        16_000_000, ge=100_000, description="Bytes of readings gathered in memory before they are packed into segments."
    )
    ingestion_flush_seconds: float = Field(
        300.0, gt=0, le=86_400, description="Seconds after which they are packed anyway."
    )
    ingestion_source_rate: float = Field(
        0.0, ge=0, description="Readings a second of one source, in the long run; 0 for any. It holds at gateways too."
    )
    ingestion_source_burst: float = Field(100_000.0, ge=1, description="Readings of one source at once.")
    ingestion_retention_days: float = Field(0.0, ge=0, description="Days that readings are kept; 0 for ever.")
    ingestion_min_free_bytes: int = Field(
        200_000_000, ge=0, description="Bytes of the store's disk that stay free; below, new readings are refused."
    )
    ingestion_max_machines: int = Field(100_000, ge=1, description="Machines kept; readings of more are refused.")
    ingestion_max_sensors_per_machine: int = Field(
        10_000, ge=1, description="Sensors kept of a machine; readings of more are refused."
    )
    ingestion_max_sensors_per_site: int = Field(
        1_000_000, ge=1, description="Sensors kept of a site; readings of more are refused."
    )
    ingestion_tail_readings: int = Field(
        256,
        ge=1,
        le=65_536,
        description="Latest readings of a series that is asked for, held in memory; up to 16 times as many where "
        "questions reach so far back.",
    )
    ingestion_tail_bytes: int = Field(
        64_000_000, ge=1_000_000, description="Bytes of memory for them; the series not asked for longest goes first."
    )
    prediction_host: str = Field("127.0.0.1", description="Address that prediction listens on.")
    prediction_port: int = Field(50052, ge=1, le=65535, description="Port of prediction (gRPC).")
    prediction_target: str = Field("127.0.0.1:50052", description="Where the others find prediction.")
    prediction_model_poll: float = Field(2.0, ge=0.1, description="Seconds between two looks for new models on disk.")
    prediction_history_interval: float = Field(
        60.0, ge=0, description="Least seconds between two predictions of a machine that are written down."
    )
    prediction_batch_most: int = Field(
        256, ge=1, le=10_000, description="Predictions that the model makes in one call."
    )
    prediction_batch_waiting: int = Field(
        4096, ge=1, description="Predictions that may wait for the model; more are refused."
    )
    prediction_batch_wait: float = Field(
        0.005, ge=0, le=1, description="Seconds that a prediction waits at most for others to be made with it."
    )
    prediction_rescore_after: float = Field(
        600.0, ge=1, description="Seconds until a kept prediction is looked at again for readings that came late."
    )
    prediction_rescore_rate: float = Field(5.0, gt=0, le=1000, description="Such looks in a second, at most.")
    alarm_rules: Path | None = Field(None, description="Alarm rules (YAML); by default a few that fit most machines.")
    costs_file: Path | None = Field(
        None, description="Cost table of maintenance (YAML); by default assumptions for the simulated plant."
    )
    sustainability_plan: Path | None = Field(
        None, description="Accounting plan (YAML): meters, lines, sites, contracts; by default the simulated plant's."
    )
    sustainability_factors: Path | None = Field(
        None, description="Yearly emission factors (CSV) beside those that come with AurumAI, or in their place."
    )
    sustainability_hourly_factors: Path | None = Field(None, description="Hourly emission factors (CSV).")
    sustainability_provider: Literal["none", "electricity_maps", "carbon_aware"] = Field(
        "none", description="Interface of the service that is asked for hourly emission factors."
    )
    sustainability_provider_url: str | None = Field(None, description="Where it is, such as https://host.")
    sustainability_provider_key: SecretStr | None = Field(None, description="Key that it wants (header auth-token).")
    edge_host: str = Field("127.0.0.1", description="Address that the edge gateway listens on.")
    edge_port: int = Field(50053, ge=1, le=65535, description="Port of the edge gateway (gRPC).")
    edge_target: str = Field("127.0.0.1:50053", description="Where devices find the edge gateway.")
    edge_uplink_target: str | None = Field(None, description="Where a gateway forwards to; ingestion by default.")
    edge_inputs: Path | None = Field(
        None, description="File of inputs (YAML): MQTT, Sparkplug B, OPC UA, Modbus and folders that it listens to."
    )
    edge_spool_path: Path | None = Field(
        None, description="Folder of the spool; edge-spool below the state directory by default."
    )
    edge_spool_max_bytes: int = Field(1_000_000_000, ge=1_000_000, description="Bytes of the spool's files.")
    edge_spool_when_full: Literal["hold_back", "drop_oldest"] = Field(
        "hold_back", description="What a full spool does: hold devices back, or give up the oldest batches, counted."
    )
    edge_spool_min_free_bytes: int = Field(
        50_000_000, ge=0, description="Bytes of the spool's disk that stay free; below, new batches are refused."
    )
    edge_dead_letter_max_bytes: int = Field(
        200_000_000,
        ge=1_000_000,
        description="Bytes of the batches that ingestion refused for good; beyond, the oldest are deleted.",
    )
    edge_live_first: bool = Field(
        True, description="Batches that have just come overtake a backlog; otherwise all go in the order of arrival."
    )
    edge_drain_bytes: float = Field(
        8_000_000.0, gt=0, description="Bytes of a backlog that are sent in a second, beside what has just come."
    )
    edge_spool_max_age: float = Field(
        7 * 86400.0, gt=0, description="Age in seconds at which a spooled batch is given up, counted and logged."
    )

    operator_namespace: str | None = Field(
        None, description="Namespace that the operator looks after; that of its pod or kube-context by default."
    )
    operator_release: str = Field("aurumai", description="Helm release in it: the label app.kubernetes.io/instance.")
    operator_defaults: str = Field(
        "aurumai-policy", description="ConfigMap with the policies that hold where no resource says otherwise."
    )
    operator_prometheus_url: str | None = Field(
        None,
        description="Prometheus in which rollouts are watched, such as http://prometheus:9090; without one, each "
        "change applies at once.",
    )
    operator_resync: float = Field(
        60.0, ge=1, description="Seconds between two looks at everything, for what events have not told."
    )

    admin_host: str = Field("127.0.0.1", description="Address of the admin server: metrics, health, policy.")
    admin_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="What admin servers want as bearer token, for all but probes and metrics; alike in all services.",
    )
    admin_open: _Open = Field(
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
    rpc_open: _Open = Field(
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

    @field_validator("store_url")
    @classmethod
    def _store_is_known(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("sqlite:///", "cassandra://")):
            raise ValueError(f"{value!r} is not supported; use sqlite:///PATH or cassandra://HOST,HOST/KEYSPACE")
        return value

    @field_validator("operator_prometheus_url")
    @classmethod
    def _prometheus_has_scheme(cls, value: str | None) -> str | None:
        if value and not value.startswith("http://"):
            raise ValueError(f"{value!r} must start with http://, such as http://prometheus:9090")
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
    def _machine_fits_into_a_message(self) -> "Settings":
        most = self.ingestion_max_sensors_per_machine * _SENSOR_BYTES
        if most > self.rpc_max_message_bytes:
            raise ValueError(
                f"AURUM_INGESTION_MAX_SENSORS_PER_MACHINE ({self.ingestion_max_sensors_per_machine}) allows machines "
                f"of {most} bytes, but AURUM_RPC_MAX_MESSAGE_BYTES is {self.rpc_max_message_bytes}"
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
    def store_path(self) -> Path:
        """The SQLite file of the store."""
        return Path(self.store_url.removeprefix("sqlite:///")) if self.store_url else self.state_dir / "store.db"

    @property
    def timeouts(self) -> TimeoutConfig:
        """The timeouts by phase, for HTTP clients."""
        return TimeoutConfig(
            self.timeout_connect, self.timeout_read, self.timeout_write, self.timeout_pool, self.timeout_db
        )

    @property
    def ring_spans(self) -> int:
        """Ended spans that a process keeps in memory."""
        if self.tracing_ring_spans is None:
            return 0 if self.tracing_otlp_endpoint else 4000
        return self.tracing_ring_spans

    @property
    def models_path(self) -> Path:
        return self.model_dir or self.state_dir / "models"

    @property
    def spool_path(self) -> Path:
        return self.edge_spool_path or self.state_dir / "edge-spool"

    @property
    def uplink_target(self) -> str:
        return self.edge_uplink_target or self.ingestion_target

    def outcomes_path(self, service: str) -> Path:
        """Where a service records what became of its calls."""
        return self.state_dir / "outcomes" / f"{service}.jsonl"

    def admin_port_of(self, service: str) -> int:
        return self.admin_port or ADMIN_PORTS.get(service, 9109)

    @property
    def admin_headers(self) -> dict[str, str]:
        """With what admin servers are asked."""
        return {"Authorization": f"Bearer {self.admin_token.get_secret_value()}"} if self.admin_token else {}

    @property
    def admin_addresses(self) -> dict[str, str]:
        """The admin servers of the platform: service → host:port."""
        pairs = (target.split("=", 1) for target in self.admin_targets.split(",") if target)
        return {name.strip(): address.strip() for name, address in pairs}


def load_settings(**values: object) -> Settings:
    """The settings from the environment and `values`. Raises SettingsError that names the first wrong one."""
    try:
        return Settings(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        known = field.removeprefix(PREFIX).lower()
        name = environment_names(known)[0] if known in Settings.model_fields else field
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}: {message}" if name else message) from error


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return load_settings()


def warn_of_unknown(environ: Mapping[str, str] = os.environ) -> None:
    """Logs a warning for each AURUM_ variable that is no setting: most likely one with a typing error."""
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known and not name.startswith(("AURUM_IOT_", "AURUM_EDGE_SIM_")):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            logging.getLogger(__name__).warning("%s is not a setting of AurumAI%s", name, hint)


def settings_table() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Generated by `make docs` from `aurum.runtime.settings`. Each setting is an environment variable. Where",
        "several names are given the first one that is set wins: ours, the name without prefix of the platform",
        "before, the OpenTelemetry standard's. A value that cannot be used stops the start and is named.",
        "",
        "| variable | default | what |",
        "| --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = "unset" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        names = ", ".join(f"`{variable}`" for variable in environment_names(name))
        lines.append(f"| {names} | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"
