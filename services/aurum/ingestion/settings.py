"""Settings of the ingestion service and its store."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from aurum.security.settings import SenderSettings

_SENSOR_BYTES = 96  # of a sensor's last reading in a message, at most


class IngestionSettings(SenderSettings):
    """Settings of the ingestion service and its store."""

    store_url: str | None = Field(
        None,
        description="The store: sqlite:///PATH, or cassandra://HOST,HOST/KEYSPACE?replication=3. By default a file "
        "below the state directory.",
    )
    store_username: str | None = Field(None, description="User of the Cassandra cluster.")
    store_password: SecretStr | None = Field(None, description="Its password.")
    store_ca_file: str | None = Field(None, description="Certificates that the cluster's are checked by; sets TLS.")
    ingestion_host: str = Field("127.0.0.1", description="Address that ingestion listens on.")
    ingestion_port: int = Field(50051, ge=1, le=65535, description="Port of ingestion (gRPC).")
    ingestion_queue_bytes: int = Field(
        64_000_000, ge=1_000_000, description="Bytes of batches waiting to be stored; more are refused."
    )
    ingestion_recent_bytes: int = Field(
        16_000_000, ge=100_000, description="Bytes of readings gathered in memory before they are packed into segments."
    )
    ingestion_flush_seconds: float = Field(
        300.0, gt=0, le=86_400, description="Seconds after which they are packed anyway."
    )
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

    @field_validator("store_url")
    @classmethod
    def _store_is_known(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("sqlite:///", "cassandra://")):
            raise ValueError(f"{value!r} is not supported; use sqlite:///PATH or cassandra://HOST,HOST/KEYSPACE")
        return value

    @model_validator(mode="after")
    def _machine_fits_into_a_message(self) -> "IngestionSettings":
        most = self.ingestion_max_sensors_per_machine * _SENSOR_BYTES
        if most > self.rpc_max_message_bytes:
            raise ValueError(
                f"AURUM_INGESTION_MAX_SENSORS_PER_MACHINE ({self.ingestion_max_sensors_per_machine}) allows machines "
                f"of {most} bytes, but AURUM_RPC_MAX_MESSAGE_BYTES is {self.rpc_max_message_bytes}"
            )
        return self

    @property
    def store_path(self) -> Path:
        """The SQLite file of the store."""
        return Path(self.store_url.removeprefix("sqlite:///")) if self.store_url else self.state_dir / "store.db"
