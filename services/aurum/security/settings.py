"""Settings of services that accept readings."""

from pydantic import Field

from aurum.runtime.settings import Settings


class SenderSettings(Settings):
    """Settings of services that accept readings."""

    ingestion_source_rate: float = Field(
        0.0, ge=0, description="Readings per second allowed for one source, also at gateways; 0 for no limit."
    )
    ingestion_source_burst: float = Field(100_000.0, ge=1, description="Readings that one source may send in a burst.")
