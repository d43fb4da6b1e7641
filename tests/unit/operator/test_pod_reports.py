"""What a pod says of its policies."""

from typing import Any

import pytest

from aurum.operator.cluster_snapshot import Report

ANSWER = {
    "policy": {"hash": "h", "generation": 3},
    "sources": [{"uid": "u", "generation": 2}],
    "refused": {"reason": "no YAML", "generation": 4},
    "shadows": [{"target": "a/b/*", "calls": 5, "decisions": {"retries": 1}}],
}


def test_state_of_a_pod_becomes_its_report() -> None:
    report = Report.from_response(ANSWER, 7.0)
    assert (report.at, report.problem, report.hash, report.generation) == (7.0, None, "h", 3)
    assert report.sources == {("u", 2)}
    assert (report.refused, report.refused_generation) == ("no YAML", 4)
    assert report.shadows == {"a/b/*": {"calls": 5, "retries": 1}}
    assert Report.from_response({"policy": {"hash": "h", "generation": 3}}, 0.0).refused is None


@pytest.mark.parametrize(
    "answer",
    [
        [],
        None,
        {},
        {"policy": None},
        {"policy": {"hash": "h"}},
        ANSWER | {"refused": "no YAML"},
        ANSWER | {"sources": ["u"]},
        ANSWER | {"sources": [{"uid": [], "generation": 1}]},
        ANSWER | {"sources": 5},
        ANSWER | {"shadows": [{"target": "t", "calls": 1, "decisions": 5}]},
        ANSWER | {"shadows": {"target": "t"}},
    ],
)
def test_answer_of_another_form_is_no_report(answer: Any) -> None:
    """Whatever answers at a pod's address, there is one error that says so."""
    with pytest.raises(ValueError, match="no policy state"):
        Report.from_response(answer, 0.0)
