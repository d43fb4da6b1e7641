"""Runs the proofs, topic by topic, and says which claims held.

    python -m tests.proof [TOPIC ...] [-- ARGUMENTS OF PYTEST]
    python -m tests.proof --list

Each topic is a pytest of its own, so that a failure, a crash or a service left over by one does not reach the next. The
table goes to the terminal and to .cache/proof.md. The exit status is 1 if a proof failed or a topic proved nothing.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.proof import TOPICS, Outcome

ROOT = Path(__file__).parents[1]
TABLE = ROOT / ".cache" / "proof.md"
_TIMEOUT = 1800  # seconds for one proof
_ALL_PASSED, _SOME_FAILED = 0, 1  # exit codes of pytest that leave nothing more to be said


@dataclass
class Run:
    """The proofs of a topic. problem: why it has no outcomes, or too few."""

    topic: str
    outcomes: list[Outcome]
    seconds: float
    problem: str = ""

    @property
    def held(self) -> bool:
        return not self.problem and all(each.result in ("passed", "skipped") for each in self.outcomes)


def run(topic: str, arguments: list[str]) -> Run:
    report = ROOT / ".cache" / f"proof-{topic}.json"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    started = time.monotonic()
    options = [f"--proof={topic}", f"--proof-report={report}", f"--timeout={_TIMEOUT}", *arguments]
    done = subprocess.run([sys.executable, "-m", "pytest", *TOPICS[topic].split(), *options], cwd=ROOT, check=False)
    outcomes = [Outcome(**each) for each in json.loads(report.read_text())] if report.exists() else []
    problem = ""
    if not outcomes:
        problem = f"no proof ran (pytest ended with {done.returncode})"
    elif done.returncode not in (_ALL_PASSED, _SOME_FAILED):
        problem = f"pytest ended with {done.returncode} before all proofs had run"
    return Run(topic, outcomes, time.monotonic() - started, problem)


def table(runs: list[Run]) -> str:
    """Markdown: claim, test, result, seconds, by topic."""
    lines = []
    for each in runs:
        lines += [f"## {each.topic} ({each.seconds:.0f} s)", ""]
        if each.outcomes:
            lines += ["| claim | test | result | seconds |", "| --- | --- | --- | ---: |"]
        for proof in each.outcomes:
            detail = f": {_cell(proof.detail)[:200]}" if proof.detail else ""
            name = proof.test.removeprefix("tests/")
            lines.append(f"| {_cell(proof.claim)} | `{name}` | {proof.result}{detail} | {proof.seconds:.1f} |")
        lines += ["", each.problem, ""] if each.problem else [""]
    results = [proof.result for each in runs for proof in each.outcomes]
    counted = [f"{results.count(name)} {name}" for name in ("passed", "failed", "error", "skipped") if name in results]
    problems = [f"{each.topic}: {each.problem}" for each in runs if each.problem]
    lines.append(f"{', '.join(counted + problems)} in {sum(each.seconds for each in runs):.0f} s")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def main(arguments: list[str]) -> int:
    if arguments == ["--list"]:
        print("\n".join(sorted(TOPICS)))
        return 0
    topics = arguments[: arguments.index("--")] if "--" in arguments else arguments
    given = arguments[len(topics) + 1 :]
    if unknown := [topic for topic in topics if topic not in TOPICS]:
        print(f"no topic {', '.join(unknown)}; there are {', '.join(sorted(TOPICS))}", file=sys.stderr)
        return 2
    runs = []
    for topic in topics or sorted(TOPICS):
        print(f"\n=== {topic}", flush=True)
        runs.append(run(topic, given))
        TABLE.write_text(table(runs))
    print("\n" + TABLE.read_text(), flush=True)
    return 0 if all(each.held for each in runs) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
