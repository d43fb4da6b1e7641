"""`aurum policy`: checks a policy document, shows the policies in force, and replays recorded calls."""

import fnmatch
import gzip
import itertools
import json
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aurum.resilience.outcomes import Outcome, read_outcomes
from aurum.resilience.simulation import TargetResult, simulate
from aurum.runtime.admin.tokens import admin_headers
from aurum.runtime.policy.call_catalog import CALLS
from aurum.runtime.policy.document import PlatformPolicyDocument, load_platform_document
from aurum.runtime.policy.policies import default_policy
from aurum.runtime.settings import Settings

_TIMEOUT = 2.0  # seconds
_WIDTH = 160  # characters


def check(path: Path) -> PlatformPolicyDocument:
    """Reads a document and prints warnings about valid parts that have no or an unusual effect. Raises PolicyError."""
    document = load_platform_document(path)
    calls = [name for each in CALLS for name in each.names]
    for index, policy in enumerate(document.policies):
        matched = [call for call in calls if fnmatch.fnmatchcase(call, policy.target)]
        before = [
            call
            for call in matched
            if any(fnmatch.fnmatchcase(call, earlier.target) for earlier in document.policies[:index])
        ]
        if not matched:
            print(f"warning: policies[{index}].target: {policy.target!r} matches no call of this platform")
        elif len(before) == len(matched):
            print(
                f"warning: policies[{index}].target: {policy.target!r} is never used, since earlier targets match all "
                f"of its calls"
            )
    for warning in document.warnings():
        print(f"warning: {warning}")
    return document


def show(settings: Settings, services: list[str], as_json: bool) -> bool:
    """Prints the policies in force in running services. Returns whether all answered and applied their document."""
    addresses = {
        name: address for name, address in settings.admin_addresses.items() if not services or name in services
    }
    headers = admin_headers(settings)
    states = {name: _state(address, headers) for name, address in addresses.items()}
    if as_json:
        print(json.dumps(states, indent=1))
    else:
        _print_states(states)
    return all(state.get("policy", {}).get("applied") for state in states.values())


def replay(settings: Settings, document: PlatformPolicyDocument, trace: Path, as_json: bool) -> None:
    """Prints what a document would have done with recorded calls. Raises OutcomeError, OSError.

    Args:
        settings: Settings with the default policy.
        document: The document.
        trace: The file of recorded outcomes; `-` for standard input.
        as_json: Whether to print JSON.
    """
    started = time.perf_counter()
    results = simulate(document, default_policy(settings), _read(trace))
    seconds = time.perf_counter() - started
    calls = sum(result.calls for result in results.values())
    if as_json:
        print(
            json.dumps(
                {
                    "policy": {"uid": document.uid, "generation": document.generation, "hash": document.content_hash},
                    "calls": calls,
                    "seconds": round(seconds, 3),
                    "targets": {name: result.summary() for name, result in sorted(results.items())},
                },
                indent=1,
            )
        )
        return
    _print_results(results)
    print(f"{calls:,} calls replayed in {seconds:.2f} s, without sending requests.")


def _read(path: Path) -> Iterator[Outcome]:
    if str(path) == "-":
        return read_outcomes(sys.stdin.buffer, "stdin")
    return _read_file(path)


def _read_file(path: Path) -> Iterator[Outcome]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        yield from read_outcomes(stream, str(path))


def _state(address: str, headers: Mapping[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(f"http://{address}/policy", headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
            state: Any = json.load(response)
    except (OSError, ValueError) as error:
        return {"problem": f"{address} does not answer: {getattr(error, 'reason', error)}"}
    return state if isinstance(state, dict) and "policy" in state else {"problem": f"{address} is not its admin server"}


def _print_states(states: dict[str, dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("service", "document", "target", "breaker", "failures", "retry tokens", "in flight", "limit"):
        table.add_column(column, overflow="fold")
    problems: list[str] = []
    for name, state in states.items():
        if "policy" not in state:
            problems.append(f"{name}: {state['problem']}")
            continue
        policy = state["policy"]
        document = f"{policy['uid']} #{policy['generation']} {policy['hash']}"
        if not policy["applied"]:
            problems.append(f"{name} refuses the latest document: {policy['reason']}")
        rows: list[tuple[str, ...]] = [
            (
                target["name"],
                target["breaker"],
                str(target["failures"]),
                f"{target['retry_budget_tokens']:g}",
                str(target["limit"]["in_flight"]),
                str(target["limit"]["limit"]),
            )
            for target in state["targets"]
        ]
        rows += [(each["name"], "", "", "", str(each["in_flight"]), str(each["limit"])) for each in state["limits"]]
        for first, row in zip(itertools.chain([True], itertools.repeat(False)), rows or [("",) * 6], strict=False):
            table.add_row(name if first else "", document if first else "", *row)
    console = _console()
    console.print(table)
    for problem in problems:
        console.print(problem, style="red", markup=False)


def _print_results(results: dict[str, TargetResult]) -> None:
    table = Table(box=None, pad_edge=False)
    rows = {
        "calls": "calls",
        "recorded_success_share": "success, recorded",
        "success_share": "success, with this policy",
        "attempts": "attempts that reach it",
        "amplification": "amplification",
        "retries": "retries",
        "hedges": "hedges",
        "retries_without_budget": "retries without budget",
        "openings": "breaker openings",
        "breaker_rejections": "rejected by the breaker",
        "limit_rejections": "rejected by the limit",
        "added_latency_ms": "added latency, mean ms",
        "recorded_p95_ms": "p95 ms, recorded",
        "p95_ms": "p95 ms, with this policy",
    }
    table.add_column("")
    for name in sorted(results):
        table.add_column(name, justify="right", overflow="fold")
    summaries = [results[name].summary() for name in sorted(results)]
    for key, label in rows.items():
        shares = key.endswith("share")
        cells = [f"{summary[key]:.2%}" if shares else f"{summary[key]:,}" for summary in summaries]
        table.add_row(label, *cells)
    _console().print(table)


def _console() -> Console:
    """Returns a console as wide as the terminal, or wide enough for all tables without a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)
