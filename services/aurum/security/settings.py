"""Settings of services that accept readings."""

from pydantic import Field

from aurum.runtime.settings import Settings


class SenderSettings(Settings):
    """Settings of services that accept readings."""

    ingestion_source_rate: float = Field(
        0.0,
        ge=0,
        description="Sustained rate limit of one source, in readings per second; 0 for no limit. It also applies "
        "at gateways.",
    )
    ingestion_source_burst: float = Field(100_000.0, ge=1, description="Readings that one source may send at once.")
