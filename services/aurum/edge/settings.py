"""Settings of the edge gateway."""

import re
import socket
from pathlib import Path
from typing import Literal

from pydantic import Field

from aurum.readings.transport.sending_gateway import GATEWAY_NAME
from aurum.security.settings import SenderSettings


class EdgeSettings(SenderSettings):
    """Settings of the edge gateway."""

    edge_host: str = Field("127.0.0.1", description="Address on which the edge gateway listens.")
    edge_port: int = Field(50053, ge=1, le=65535, description="Port of the edge gateway (gRPC).")
    edge_name: str | None = Field(
        None,
        pattern=rf"^{GATEWAY_NAME}$",
        description="Name of the gateway in alarms and on the Platform page; unique within the installation. The "
        "default is the name of the host.",
    )
    edge_uplink_target: str | None = Field(
        None, description="Address to which the gateway forwards batches. The default is ingestion."
    )
    edge_inputs: Path | None = Field(
        None, description="File of inputs (YAML): MQTT, Sparkplug B, OPC UA, Modbus and folders."
    )
    edge_spool_path: Path | None = Field(
        None, description="Folder of the spool. The default is edge-spool below the state directory."
    )
    edge_spool_max_bytes: int = Field(
        1_000_000_000, ge=1_000_000, description="Maximum size of the spool's files, in bytes."
    )
    edge_spool_when_full: Literal["hold_back", "drop_oldest"] = Field(
        "hold_back",
        description="Behaviour of a full spool: hold_back stops reading from devices and refuses batches, "
        "drop_oldest deletes and counts the oldest batches.",
    )
    edge_spool_min_free_bytes: int = Field(
        50_000_000, ge=0, description="Free bytes of the spool's disk below which new batches are refused."
    )
    edge_dead_letter_max_bytes: int = Field(
        200_000_000,
        ge=1_000_000,
        description="Maximum size of the dead letters, in bytes. Beyond it the oldest are deleted.",
    )
    edge_live_first: bool = Field(
        True,
        description="Whether new batches are sent before a backlog. Otherwise batches are sent in the order of "
        "arrival.",
    )
    edge_drain_bytes: float = Field(
        8_000_000.0, gt=0, description="Bytes of a backlog that are sent per second, in addition to new batches."
    )
    edge_spool_max_age: float = Field(
        7 * 86400.0, gt=0, description="Age in seconds at which a spooled batch is dropped, counted and logged."
    )

    @property
    def gateway_name(self) -> str:
        """The name of the gateway: the configured one, or that of the host without characters that no name may have."""
        return self.edge_name or re.sub(r"[^A-Za-z0-9._:-]", "-", socket.gethostname()).lstrip("._:-")[:64] or "gateway"

    @property
    def spool_path(self) -> Path:
        """The folder of the spool."""
        return self.edge_spool_path or self.state_dir / "edge-spool"

    @property
    def uplink_target(self) -> str:
        """The address that the gateway forwards to."""
        return self.edge_uplink_target or self.ingestion_target
