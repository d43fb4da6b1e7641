"""What every benchmark does with its figures: medians and spreads, goals, one JSON object at the end and in a file."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from aurum import __version__

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Goal:
    """value: what was measured. goal: what it should reach. at_most: whether less is better."""

    value: float
    goal: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.value <= self.goal if self.at_most else self.value >= self.goal


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def cpu_of(pid: int) -> float:
    """CPU seconds of a process: on Linux by its CPU clock, which counts ns, elsewhere by what the system reports."""
    if sys.platform == "linux":
        return time.clock_gettime(~pid << 3 | 2)  # the id of the clock (clock_getcpuclockid(3), CPUCLOCK_SCHED)
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def report(name: str, goals: dict[str, Goal], details: dict[str, Any]) -> None:
    """Prints the result, as the last line one JSON object, and writes it to benchmarks/results/."""
    for key, goal in goals.items():
        bound = "at most" if goal.at_most else "at least"
        print(f"{name}: {key} {goal.value:,.2f} ({bound} {goal.goal:,.2f}: {'met' if goal.met else 'MISSED'})")
    result = {
        "benchmark": name,
        "goals": {
            key: {"value": round(goal.value, 4), "goal": goal.goal, "met": goal.met} for key, goal in goals.items()
        },
    }
    full = {
        **result,
        "details": details,
        "version": __version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "loop_seconds": speed(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(full, indent=1, default=asdict) + "\n")
    print(json.dumps(result))


def speed() -> float:
    """Seconds of ten million turns of a plain loop: what this machine is worth at the moment."""
    started = time.perf_counter()
    total = 0
    for number in range(10_000_000):
        total += number
    return round(time.perf_counter() - started, 3)
