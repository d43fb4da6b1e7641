"""Settings of the edge gateway."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from aurum.security.settings import SenderSettings


class EdgeSettings(SenderSettings):
    """Settings of the edge gateway."""

    edge_host: str = Field("127.0.0.1", description="Address that the edge gateway listens on.")
    edge_port: int = Field(50053, ge=1, le=65535, description="Port of the edge gateway (gRPC).")
    edge_uplink_target: str | None = Field(
        None, description="Address that the gateway forwards to; ingestion by default."
    )
    edge_inputs: Path | None = Field(
        None, description="Inputs file (YAML): the brokers, servers, devices and folders that the gateway reads from."
    )
    edge_spool_path: Path | None = Field(
        None, description="Folder of the spool; edge-spool in the state directory by default."
    )
    edge_spool_max_bytes: int = Field(1_000_000_000, ge=1_000_000, description="Maximum bytes of the spool's files.")
    edge_spool_when_full: Literal["hold_back", "drop_oldest"] = Field(
        "hold_back", description="What a full spool does: hold devices back, or drop the oldest batches."
    )
    edge_spool_min_free_bytes: int = Field(
        50_000_000, ge=0, description="Free bytes of the spool's disk below which new batches are refused."
    )
    edge_dead_letter_max_bytes: int = Field(
        200_000_000,
        ge=1_000_000,
        description="Maximum bytes of the dead letters; above it, the oldest are deleted.",
    )
    edge_live_first: bool = Field(
        True, description="Whether new batches overtake a backlog; otherwise batches are sent in the order of arrival."
    )
    edge_drain_bytes: float = Field(
        8_000_000.0, gt=0, description="Bytes of the backlog that are sent per second, in addition to new batches."
    )
    edge_spool_max_age: float = Field(
        7 * 86400.0, gt=0, description="Age in seconds at which a batch in the spool is dropped."
    )

    @property
    def spool_path(self) -> Path:
        """The folder of the spool."""
        return self.edge_spool_path or self.state_dir / "edge-spool"

    @property
    def uplink_target(self) -> str:
        """The address that the gateway forwards to."""
        return self.edge_uplink_target or self.ingestion_target
