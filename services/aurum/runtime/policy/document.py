"""The policy document of the platform: resilience policies, the telemetry of services, and the document's sources."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from aurum.resilience.policy import MAX_INT64, PolicyDocument, PolicyPart, load_document, parse_document

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class TelemetrySpec(PolicyPart):
    """How much a service tells of itself; what is not given stays as the settings have it."""

    log_level: LogLevel | None = Field(None, description="Least severity that is logged.")
    sampling_ratio: float | None = Field(None, ge=0, le=1, description="Share of new traces that are recorded.")


class Source(PolicyPart):
    """A resource that the document was made from, and of which generation."""

    kind: str = Field("ResiliencePolicy", max_length=63, description="Its kind.")
    name: str = Field(max_length=253, description="Its name.")
    uid: str = Field(max_length=63, description="Its identity.")
    generation: int = Field(ge=0, le=MAX_INT64, description="Its generation.")


class PlatformPolicyDocument(PolicyDocument):
    """All policies of a system. The first policy whose target matches a call governs it; so for servers."""

    telemetry: TelemetrySpec | None = None
    sources: tuple[Source, ...] = Field((), description="The resources that an operator made the document from.")


def parse_platform_document(text: str, source: str) -> PlatformPolicyDocument:
    """Parses a document, as `aurum.resilience.policy.parse_policy_document` does."""
    return parse_document(PlatformPolicyDocument, text, source)


def load_platform_document(path: Path) -> PlatformPolicyDocument:
    """Loads a policy file, as `aurum.resilience.load_policy_document` does."""
    return load_document(PlatformPolicyDocument, path)
