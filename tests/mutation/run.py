"""Changes the code at one place at a time, and says which changes no test notices.

    python -m tests.mutation.run [--package NAME]... [--sample N] [--seed N] [--jobs N]

mutmut makes the changes (mutants) and runs the tests of each function that is changed. It changes what is inside of
functions and methods without decorators (but @staticmethod and @classmethod): properties, context managers, and what
stands in classes and modules stay as they are. A mutant is killed where a test fails or runs out of time; one that no
test executes survives. Each package is tried in a copy of its own, .cache/mutation/PACKAGE, beside the log of mutmut.

The table and the survivors go to the terminal and to .cache/mutation.md. The exit status is 1 if a package is below the
goal, and 2 if that could not be found out, as with an entry below equivalent/ that no mutant matches.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from mutmut.configuration import reset_config
from mutmut.stats import status_by_exit_code

from tests.mutation.mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".cache" / "mutation"
REPORT = ROOT / ".cache" / "mutation.md"
EQUIVALENT = Path(__file__).parent / "equivalent"
GOAL = 85.0  # percent
_READ_BY_TESTS = ("docs", "k8s", "policies.yaml", "requirements")
_KILLED, _SURVIVED = {"killed", "timeout", "segfault"}, {"survived", "no tests"}
# A mutant may take 30 s and ten times what its tests do, for the machine may have more to do.
_CONFIGURATION = """
[tool.mutmut]
source_paths = ["src/aurum"]
only_mutate = {mutated}
also_copy = {copied}
do_not_mutate_patterns = ['logger\\.\\w+\\(']
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = [
  "-p", "tests.mutation.plugin", "--hypothesis-profile=mutation", "-o", "tmp_path_retention_policy=none",
  "-p", "no:cacheprovider", "-p", "no:schemathesis",
  "-p", "no:unraisableexception", # whose collections of garbage take longer than most tests
]
process_isolation = "forkserver" # gRPC bears no fork once it is in use
track_dependencies = false
use_git_change_detection = false
timeout_constant = 3.0
timeout_multiplier = 10.0
"""


@dataclass(frozen=True)
class Package:
    """mutated: patterns below services/. tests: what pytest is told to find those that run it in their own process."""

    mutated: tuple[str, ...]
    tests: tuple[str, ...]


_LENGTHY = (  # half of the time of all tests of models, and nothing in them looks at a feature
    "tests/unit/prediction/test_prediction.py::test_model_with_unknown_features_is_rejected",
    "tests/unit/prediction/test_prediction.py::test_registry_handles_champion_shadow_and_rollback",
    "tests/unit/prediction/test_training.py::test_training_is_reproducible_by_seed",
)
PACKAGES = {
    "resilience": Package(
        ("aurum/resilience/*.py",),
        ("tests/unit/resilience", "tests/unit/test_policy_volume.py", "tests/unit/operator/test_merging.py"),
    ),
    "storage": Package(("aurum/storage/*.py",), ("tests/unit/storage", "tests/unit/test_store.py")),
    "spool": Package(("aurum/edge/spool.py",), ("tests/unit/storage",)),
    "alarms": Package(("aurum/alarms/*.py",), ("tests/unit/alarms",)),
    "sustainability": Package(("aurum/sustainability/*.py",), ("tests/unit/sustainability",)),
    "prediction": Package(  # what computes features, and what chooses the columns and rows that they are computed of
        tuple(
            f"aurum/prediction/{name}.py"
            for name in (
                "model/features",
                "model/regimes",
                "training/columns",
                "training/regimes_fit",
                "training/table",
            )
        ),
        ("tests/unit/prediction", *(f"--deselect={test}" for test in _LENGTHY)),
    ),
}


@dataclass(frozen=True)
class Result:
    """What became of a package. tried of made: mutants. survivors: with mutmut's word for each."""

    package: str
    tried: int
    made: int
    equivalent: int
    survivors: list[tuple[Mutant, str]]
    seconds: float

    @property
    def share(self) -> float:
        """Percent that were killed."""
        return 100 * (1 - len(self.survivors) / self.tried) if self.tried else 100.0


class MutationError(Exception):
    """It could not be found out; the message says why."""


def prepare(name: str) -> tuple[Path, list[Mutant]]:
    """Lays out the folder that mutmut runs in, and lists the mutants that it is going to make there."""
    package, work = PACKAGES[name], WORK / name
    shutil.rmtree(work, ignore_errors=True)
    (work / "tmp").mkdir(parents=True)
    links = {"src": "services", **{each: each for each in ("tests", *_READ_BY_TESTS)}}
    for link, target in links.items():
        (work / link).symlink_to(ROOT / target)
    lists = {"mutated": [f"src/{each}" for each in package.mutated], "copied": _READ_BY_TESTS, "tests": package.tests}
    configuration = _CONFIGURATION.format(**{key: json.dumps(each) for key, each in lists.items()})
    (work / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + configuration)
    with contextlib.chdir(work):
        reset_config()  # of the package before
        paths = sorted({path for pattern in package.mutated for path in Path("src").glob(pattern)})
        return work, [mutant for path in paths for mutant in mutants_of(path, "services")]


def try_out(work: Path, mutants: Sequence[Mutant], jobs: int) -> dict[str, str]:
    """What became of each mutant, by name, in mutmut's words."""
    environment = {**os.environ, "PYTEST_DEBUG_TEMPROOT": str(work / "tmp"), "PYTHONHASHSEED": "0"}
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(jobs)]
    log = work / "mutmut.log"
    with log.open("w") as output:
        names = [mutant.name for mutant in mutants]
        done = subprocess.run([*command, *names], cwd=work, env=environment, stdout=output, stderr=output, check=False)
    if done.returncode:
        raise MutationError(f"mutmut ended with {done.returncode}, see {log}: {log.read_text()[-2000:]}")
    found: dict[str, int | None] = {}
    for meta in (work / "mutants" / "src").rglob("*.py.meta"):
        found |= json.loads(meta.read_text())["exit_code_by_key"]
    became = {name: status_by_exit_code[found[name]] for name in names}
    if lost := sorted(name for name, word in became.items() if word not in _KILLED | _SURVIVED):
        raise MutationError(f"mutmut did not find out about {len(lost)}, see {log}: {became[lost[0]]} {lost[0]}")
    return became


def run(name: str, equivalent: set[tuple[str, str, str, str]], options: argparse.Namespace) -> Result:
    """Tries a package's mutants, or a sample of them, but for those that are known to be equivalent."""
    started = time.monotonic()
    work, made = prepare(name)
    files = {mutant.file for mutant in made}
    if stale := {entry for entry in equivalent if entry[0] in files} - {mutant.change for mutant in made}:
        raise MutationError(f"{EQUIVALENT.name}: no mutant is {' | '.join(min(stale))!r}")
    chosen = [mutant for mutant in made if mutant.change not in equivalent]
    listed = len(made) - len(chosen)
    if options.sample and options.sample < len(chosen):
        chosen = random.Random(f"{options.seed}/{name}").sample(chosen, options.sample)
    became = try_out(work, chosen, options.jobs)
    survivors = [(mutant, became[mutant.name]) for mutant in chosen if became[mutant.name] not in _KILLED]
    survivors.sort(key=lambda each: (each[0].file, each[0].line, each[0].name))
    return Result(name, len(chosen), len(made), listed, survivors, time.monotonic() - started)


def table(results: Sequence[Result]) -> str:
    """Markdown: a row for each package, then the survivors, each with its place and its change."""
    lines = ["| package | mutants | killed | survived | share | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    for each in results:
        notes = [f"a sample of {each.made}"] if each.tried + each.equivalent < each.made else []
        notes += [f"{each.equivalent} listed as equivalent"] if each.equivalent else []
        notes += [f"{each.seconds:.0f} s", *([] if each.share >= GOAL else [f"below the goal of {GOAL:.0f} %"])]
        left = len(each.survivors)
        row = f"| {each.package} | {each.tried} | {each.tried - left} | {left} | {each.share:.1f} % "
        lines.append(f"{row}| {', '.join(notes)} |")
    for each in results:
        lines += ["", f"## Survivors in {each.package}"] if each.survivors else []
        for mutant, word in each.survivors:
            lines += ["", f"{mutant.file}:{mutant.line} `{mutant.function}`: {word}", "", "```diff"]
            lines += [f"-{line}" for line in mutant.before.splitlines()]
            lines += [f"+{line}" for line in mutant.after.splitlines()] + ["```"]
    return "\n".join(lines) + "\n"


def known(folder: Path) -> set[tuple[str, str, str, str]]:
    """Returns the changes that the files of a folder list as equivalent. Raises MutationError if an entry is wrong."""
    found = set()
    for path in sorted(folder.glob("*.yaml")):
        for number, entry in enumerate(yaml.safe_load(path.read_text()) or [], 1):
            if not isinstance(entry, dict) or set(entry) != {"file", "function", "before", "after", "reason"}:
                raise MutationError(f"{path.name}: entry {number} needs file, function, before, after and reason")
            if not any(Path(entry["file"]).match(f"services/{each}") for p in PACKAGES.values() for each in p.mutated):
                raise MutationError(f"{path.name}: entry {number}: {entry['file']} is in no package")
            before, after = ("\n".join(map(str.strip, entry[key].splitlines())) for key in ("before", "after"))
            found.add((entry["file"], entry["function"], before, after))
    return found


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="make mutation", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--package", action="append", choices=PACKAGES, help="only this one; may be given again")
    parser.add_argument("--sample", type=int, metavar="N", help="try N mutants of each package, drawn at random")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (1)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time (2)")
    options = parser.parse_args(arguments)
    results = []
    try:
        equivalent = known(EQUIVALENT)
        for name in options.package or PACKAGES:
            print(f"=== {name}", flush=True)
            results.append(run(name, equivalent, options))
            REPORT.write_text(table(results))
    except MutationError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n" + REPORT.read_text(), flush=True)
    return 0 if all(each.share >= GOAL for each in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
