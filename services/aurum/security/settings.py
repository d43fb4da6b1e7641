"""Settings of services that accept readings."""

from pydantic import Field

from aurum.runtime.settings import Settings


class SenderSettings(Settings):
    """Settings of services that accept readings."""

    ingestion_source_rate: float = Field(
        0.0, ge=0, description="Readings a second of one source, in the long run; 0 for any. It holds at gateways too."
    )
    ingestion_source_burst: float = Field(100_000.0, ge=1, description="Readings of one source at once.")
