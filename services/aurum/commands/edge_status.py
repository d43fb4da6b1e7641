"""`aurum edge status`: what each input of a gateway and each device sends, what of it is not stored, and what waits."""

import json
import urllib.request
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_TIMEOUT = 5.0  # seconds
_MAX_BYTES = 20_000_000  # of the answer
_WIDTH = 200  # characters, if the output is not a terminal


class StatusError(Exception):
    """The gateway did not answer. The message says why, and what to do."""


def read_overview(address: str) -> dict[str, Any]:
    """Returns the overview of a gateway with inputs, given the host:port of its admin server. Raises StatusError."""
    try:
        with urllib.request.urlopen(f"http://{address}/overview", timeout=_TIMEOUT) as response:
            overview: Any = json.loads(response.read(_MAX_BYTES))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise StatusError(
            f"no gateway answers at {address}: {reason}; name its admin server by --address or AURUM_ADMIN_TARGETS"
        ) from error
    if not isinstance(overview, dict) or not isinstance(overview.get("inputs"), list):
        raise StatusError(f"the gateway at {address} has no inputs; set AURUM_EDGE_INPUTS")
    return overview


def show(overview: dict[str, Any], *, as_json: bool) -> bool:
    """Prints the state of the inputs and, unless as JSON, of the spool. Returns whether all inputs are connected."""
    inputs = overview["inputs"]
    if as_json:
        print(json.dumps(inputs, indent=1, ensure_ascii=False))
    else:
        console = Console()
        console = console if console.is_terminal else Console(width=_WIDTH)
        console.print(_table_of_inputs(inputs))
        for each in inputs:
            _show_devices(console, each)
        _show_spool(console, overview)
    return all(each["problem"] is None for each in inputs)


def _table_of_inputs(inputs: Sequence[dict[str, Any]]) -> Table:
    columns = ("input", "state", "devices", "rate", "accepted", "corrected", "refused", "quality", "clock skew")
    table = _table(*columns)
    for each in inputs:
        state = "[red]away[/]" if each["problem"] else "[green]connected[/]"
        table.add_row(
            escape(each["name"]),
            state,
            str(each["sources"]),
            f"{each['readings_per_second']:g}/s",
            str(each["accepted"]),
            _counts(each["corrected"]),
            _counts(each["refused"]),
            f"{each['worst_quality']:.0%}",
            _seconds(each["clock_skew_seconds"]),
        )
    return table


def _show_devices(console: Console, state: dict[str, Any]) -> None:
    console.print(f"\n[bold]{escape(state['name'])}[/]")
    if state["problem"]:
        console.print(f"  {state['problem']}", style="red", markup=False)
    for loss in state["losses"]:
        console.print(f"  loses data: {loss}", style="red", markup=False)
    for done in ("refused", "corrected"):
        for tally in state[done]:
            example = f"{done} {tally['count']}, {_words(tally['reason'])}: {tally['example']} ({tally['last']})"
            console.print(f"  {example}", markup=False)
    for each in state["unusable"]:
        console.print(f"  cannot be stored: {each['problem']}", markup=False)
    for each in state["renamed"]:
        original, stored = (
            f"{each['machine']!r} {each['sensor']!r}",
            f"{each['stored_machine']} {each['stored_sensor']}",
        )
        console.print(f"  {original} is stored as {stored}", markup=False)
    if not state["worst"]:
        return
    table = _table("device", "last value", "at", "rate", "accepted", "corrected", "refused", "quality", "clock skew")
    for device in state["worst"]:
        last = device["last"]
        table.add_row(
            escape(device["source"]),
            escape(f"{last['machine']} {last['sensor']} = {last['value']:g}") if last else "none",
            last["time"] if last else "",
            f"{device['readings_per_second']:g}/s",
            str(device["accepted"]),
            _counts(device["corrected"], examples=True),
            _counts(device["refused"], examples=True),
            f"{device['quality']:.0%}",
            _seconds(device["clock_skew_seconds"]),
        )
    console.print(table)
    if state["sources"] > len(state["worst"]):
        console.print(f"  and {state['sources'] - len(state['worst'])} devices with a higher quality")


def _show_spool(console: Console, overview: dict[str, Any]) -> None:
    """Prints what waits to be forwarded, why, and what will never be."""
    if (spool := overview.get("spool")) is None:
        return
    console.print("\n[bold]spool[/]")
    size = f"{spool['disk_bytes'] / 1e6:.1f} of {spool['limit_bytes'] / 1e6:.1f} MB"
    waiting = f"{spool['batches']:.0f} batches wait to be forwarded, the oldest for {spool['oldest_seconds']:.0f} s"
    console.print(f"  {waiting}; {size}", markup=False)
    if problem := overview.get("uplink_problem"):
        console.print(f"  not forwarded: {problem}", style="red", markup=False)
    if spool["waiting_writes"]:
        console.print("  full: inputs and devices wait for room", style="red", markup=False)
    for reason, batches in spool["dropped"].items():
        console.print(f"  dropped {batches} batches: {_words(reason)}", style="red", markup=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _counts(tallies: Sequence[dict[str, Any]], *, examples: bool = False) -> str:
    return (
        ", ".join(
            f"{tally['count']} {_words(tally['reason'])}" + (f" ({escape(tally['example'])})" if examples else "")
            for tally in tallies
        )
        or "0"
    )


def _words(reason: str) -> str:
    return reason.replace("_", " ")


def _seconds(seconds: float) -> str:
    """Returns a clock skew. Less than a millisecond is not worth a digit."""
    return f"{seconds:.3f} s" if abs(seconds) < 100 else f"{seconds:.0f} s"
