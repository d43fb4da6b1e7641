"""Schemathesis over the whole description of the API: what it says is so, and nothing that is sent breaks anything."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from aurum.security.identity import Role
from tests.support.guarded import Guarded

_EXAMPLES = 40  # of each operation, for those who may and for those who may not
_LEFT_OUT = ("/api/events", "/metrics")  # one has no end, the other is no JSON
# Left out of the checks: that whatever fits the schema is accepted. A machine may be unknown, a cursor none of ours.


def operations(guarded: Guarded) -> Iterator[Any]:
    import schemathesis  # takes a second, which only proofs are to spend

    for found in schemathesis.openapi.from_url(f"{guarded.api}/openapi.json").get_all_operations():
        operation = found.ok()
        if operation.path not in _LEFT_OUT:
            yield operation


def problems(
    guarded: Guarded, headers: Callable[[Any], dict[str, str]], check: Callable[[Any, Any], None]
) -> list[str]:
    """What went wrong, by operation; each with many made-up requests."""
    found = []
    for operation in operations(guarded):

        @settings(
            max_examples=_EXAMPLES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        @given(case=operation.as_strategy())
        def sent(case: Any) -> None:
            check(case, case.call(headers=headers(case), timeout=20))

        try:
            sent()
        except (Exception, BaseExceptionGroup) as error:  # each operation is looked at, whatever the others did
            found.append(f"{operation.label}: {error}")
    return found


@pytest.mark.proof("api-fuzzing")
@pytest.mark.timeout(900)
def test_admin_requests_are_answered_as_described(guarded: Guarded) -> None:
    """Generated requests of an admin are answered as the OpenAPI document says, never with 5xx."""

    from schemathesis.specs.openapi.checks import positive_data_acceptance

    def check(case: Any, response: Any) -> None:
        assert response.status_code < 500, response.text
        case.validate_response(response, excluded_checks=[positive_data_acceptance])

    def headers(case: Any) -> dict[str, str]:
        return {} if case.path.startswith("/api/session") else guarded.headers(Role.ADMIN)

    wrong = problems(guarded, headers, check)
    assert wrong == [], "\n\n".join(wrong)


@pytest.mark.proof("api-fuzzing")
@pytest.mark.timeout(900)
def test_anonymous_requests_cause_no_server_error(guarded: Guarded) -> None:
    """Generated requests without credentials are never answered with 5xx."""

    def check(case: Any, response: Any) -> None:
        assert response.status_code < 500, response.text

    wrong = problems(guarded, lambda case: {}, check)
    assert wrong == [], "\n\n".join(wrong)
