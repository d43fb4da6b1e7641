import pytest

from aurum.resilience import PolicyError
from aurum.resilience.policy import parse_policy_document
from aurum.runtime.policy.document import parse_platform_document


def test_platform_document_has_telemetry_and_sources() -> None:
    document = parse_platform_document(
        "{telemetry: {logLevel: DEBUG}, sources: [{name: calls, uid: u-1, generation: 3}]}", "x"
    )
    assert document.telemetry is not None
    assert document.telemetry.log_level == "DEBUG"
    assert [(source.name, source.generation) for source in document.sources] == [("calls", 3)]


def test_error_in_telemetry_names_the_field() -> None:
    with pytest.raises(PolicyError, match=r"^x: telemetry.samplingRatio: Input should be less than or equal to 1"):
        parse_platform_document("telemetry: {samplingRatio: 2}", "x")


def test_library_document_has_no_telemetry() -> None:
    with pytest.raises(PolicyError, match="telemetry: is not a field"):
        parse_policy_document("telemetry: {logLevel: DEBUG}", "x")
