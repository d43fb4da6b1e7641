"""Settings of the ingestion service and its store."""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from aurum.security.settings import SenderSettings

_SENSOR_BYTES = 96  # of a sensor's last reading in a message, at most


class IngestionSettings(SenderSettings):
    """Settings of the ingestion service and its store."""

    store_url: str | None = Field(
        None,
        description="URL of the store: sqlite:///PATH or cassandra://HOST,HOST/KEYSPACE?replication=3. The "
        "default is a file below the state directory.",
    )
    store_username: str | None = Field(None, description="User name for the Cassandra cluster.")
    store_password: SecretStr | None = Field(None, description="Password for the Cassandra cluster.")
    store_ca_file: str | None = Field(
        None, description="CA certificates of the Cassandra cluster. If set, connections use TLS."
    )
    ingestion_host: str = Field("127.0.0.1", description="Address on which ingestion listens.")
    ingestion_port: int = Field(50051, ge=1, le=65535, description="Port of ingestion (gRPC).")
    ingestion_queue_bytes: int = Field(
        24_000_000,
        ge=1_000_000,
        description="Maximum bytes of batches that wait to be stored. Further batches are refused.",
    )
    ingestion_recent_bytes: int = Field(
        12_000_000, ge=100_000, description="Bytes of recent readings in memory that trigger a flush into segments."
    )
    ingestion_open_bytes: int = Field(
        96_000_000,
        ge=1_000_000,
        description="Maximum bytes of memory for readings that are in Cassandra and not merged yet. Queries read "
        "further ones from Cassandra.",
    )
    ingestion_flush_seconds: float = Field(300.0, gt=0, le=86_400, description="Maximum seconds between two flushes.")
    ingestion_retention_days: float = Field(0.0, ge=0, description="Days that readings are kept; 0 for ever.")
    ingestion_min_free_bytes: int = Field(
        200_000_000, ge=0, description="Free bytes of the store's disk below which new readings are refused."
    )
    ingestion_max_machines: int = Field(
        100_000, ge=1, description="Maximum number of machines. Readings of further machines are refused."
    )
    ingestion_max_sensors_per_machine: int = Field(
        10_000, ge=1, description="Maximum number of sensors per machine. Readings of further sensors are refused."
    )
    ingestion_max_sensors_per_site: int = Field(
        1_000_000, ge=1, description="Maximum number of sensors per site. Readings of further sensors are refused."
    )
    ingestion_tail_readings: int = Field(
        256,
        ge=1,
        le=65_536,
        description="Number of latest readings held in memory for each queried series, and up to 16 times as "
        "many where queries reach further back.",
    )
    ingestion_tail_bytes: int = Field(
        64_000_000,
        ge=1_000_000,
        description="Maximum bytes of memory for these readings. The least recently queried series is removed first.",
    )
    ingestion_feed_bytes: int = Field(
        32_000_000,
        ge=10_000,
        le=2_000_000_000,
        description="Bytes of the latest readings held in memory for Follow, 20 for each reading. A follower that is "
        "further behind is told of the gap.",
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
