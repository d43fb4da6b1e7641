"""`aurum doctor`: the state of each service, what it is missing, and where to look, on one screen."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from aurum.platform_settings import PlatformSettings

_TIMEOUT = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one part of the platform.

    Attributes:
        name: The part.
        state: "ready", "damaged", "not ready" or "down".
        missing: What is missing or damaged; empty if the part is ready.
        where: Where to look for details.
    """

    name: str
    state: str
    missing: str
    where: str


def examine(settings: PlatformSettings) -> list[Finding]:
    """Returns the state of each service, by its admin server, and of the models and the store on disk."""
    findings = [_service(settings, name, address) for name, address in settings.admin_addresses.items()]
    models = sorted(path.parent.name for path in settings.models_path.glob("*/active.json"))
    findings.append(
        Finding(
            "models",
            "ready" if models else "not ready",
            "" if models else f"no model in {settings.models_path}; train with `aurum train`",
            ", ".join(models) or str(settings.models_path),
        )
    )
    store = settings.store_path
    findings.append(
        Finding(
            "store",
            "ready" if store.exists() else "not ready",
            "" if store.exists() else "the file does not exist yet; ingestion creates it when it first starts",
            f"{store} ({store.stat().st_size / 1e6:.1f} MB)" if store.exists() else str(store),
        )
    )
    return findings


def show(findings: list[Finding], settings: PlatformSettings) -> bool:
    """Prints the findings. Returns whether everything is ready."""
    console = Console()
    table = Table(box=None, pad_edge=False)
    for column in ("part", "state", "missing", "where to look"):
        table.add_column(column, overflow="fold")
    colours = {"ready": "green", "damaged": "yellow", "not ready": "yellow", "down": "red"}
    for finding in findings:
        state = f"[{colours[finding.state]}]{finding.state}[/]"
        table.add_row(finding.name, state, finding.missing, finding.where)
    console.print(table)
    well = all(finding.state == "ready" for finding in findings)
    down = sum(finding.state == "down" for finding in findings)
    if well:
        console.print(f"Everything is ready. The console is at http://{settings.api_host}:{settings.api_port}/")
    elif down == len(settings.admin_addresses):
        console.print("No service runs on this machine; start the platform with `make run`.")
    return well


def _service(settings: PlatformSettings, name: str, address: str) -> Finding:
    log = settings.state_dir / "logs" / f"{name}.log"
    where = f"http://{address}/metrics" + (f", {log}" if log.exists() else "")
    code = 200
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=_TIMEOUT) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        code = error.code
        try:
            answer = json.load(error)
        except ValueError:
            answer = None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding(name, "down", f"its admin server does not answer: {reason}", where)
    if not (isinstance(answer, dict) and isinstance(answer.get("missing"), dict)):
        return Finding(name, "not ready", f"http://{address} is not its admin server ({code})", where)
    missing = [f"{check}: {what}" for check, what in answer["missing"].items()]
    damaged = [f"{count} damaged and set apart: {kind}" for kind, count in answer.get("damaged", {}).items()]
    state = "not ready" if missing else "damaged" if damaged else "ready"
    return Finding(name, state, "; ".join(missing + damaged), where)
