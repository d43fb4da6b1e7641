"""The proofs that the docs name exist, and each topic is named where its claim is made."""

import re
from pathlib import Path

import pytest

from tests.proof import Run, table
from tests.support.proof import TOPICS, Outcome

ROOT = Path(__file__).parents[2]
_COMMAND = re.compile(r"make proof ARGS=(?:([\w-]+)|['\"]([\w -]+)['\"])")


def test_docs_name_every_proof_topic_and_no_other() -> None:
    named = set()
    for path in (ROOT / "docs").glob("*.md"):
        for one, several in _COMMAND.findall(path.read_text()):
            named |= {one} if one else set(several.split())
    assert named == set(TOPICS)


@pytest.mark.parametrize("topic", TOPICS)
def test_proof_topic_has_existing_folders_with_proofs(topic: str) -> None:
    marked = f'pytest.mark.proof("{topic}")'
    for folder in TOPICS[topic].split():
        assert any(marked in path.read_text() for path in (ROOT / folder).rglob("test_*.py")), folder


def test_proof_table_shows_failures_and_missing_proofs() -> None:
    outcomes = [
        Outcome("Nothing is lost.", "tests/faults/test_x.py::test_x", "passed", 3.25),
        Outcome("A | B.", "tests/faults/test_x.py::test_y", "failed", 1.0, "lost 3\nreadings"),
    ]
    failed, missing = Run("chaos", outcomes, 5.0), Run("soak", [], 1.0, "no proof ran (pytest ended with 4)")
    assert not failed.held
    assert not missing.held
    assert Run("chaos", outcomes[:1], 5.0).held
    shown = table([failed, missing]).splitlines()
    assert "| Nothing is lost. | `faults/test_x.py::test_x` | passed | 3.2 |" in shown
    assert "| A \\| B. | `faults/test_x.py::test_y` | failed: lost 3 readings | 1.0 |" in shown
    assert shown[-1] == "1 passed, 1 failed, soak: no proof ran (pytest ended with 4) in 6 s"
