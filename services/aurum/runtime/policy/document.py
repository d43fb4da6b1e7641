"""The policy document of the platform: resilience policies, telemetry, and the sources of the document."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from aurum.resilience.policy import MAX_INT64, PolicyDocument, PolicyPart, load_document, parse_document

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class TelemetrySpec(PolicyPart):
    """Verbosity of a service's telemetry. Omitted fields keep the values of the settings."""

    log_level: LogLevel | None = Field(None, description="Lowest severity that is logged.")
    sampling_ratio: float | None = Field(None, ge=0, le=1, description="Share of new traces that are recorded.")


class PolicySource(PolicyPart):
    """A resource from which the document was derived."""

    kind: str = Field("ResiliencePolicy", max_length=63, description="Kind of the resource.")
    name: str = Field(max_length=253, description="Name of the resource.")
    uid: str = Field(max_length=63, description="Uid of the resource.")
    generation: int = Field(ge=0, le=MAX_INT64, description="Generation of the resource.")


class PlatformPolicyDocument(PolicyDocument):
    """All policies of a system. The first policy whose target matches a call governs it. The same holds for servers."""

    telemetry: TelemetrySpec | None = None
    sources: tuple[PolicySource, ...] = Field((), description="Resources from which the operator derived the document.")


def parse_platform_document(text: str, source: str) -> PlatformPolicyDocument:
    """Parses a document, as `aurum.resilience.policy.parse_policy_document` does."""
    return parse_document(PlatformPolicyDocument, text, source)


def load_platform_document(path: Path) -> PlatformPolicyDocument:
    """Loads a policy file, as `aurum.resilience.load_policy_document` does."""
    return load_document(PlatformPolicyDocument, path)
