"""`aurum fault`: begins, lists and ends faults in running services that allow it."""

import json
import urllib.error
import urllib.request
from typing import Any

from aurum.runtime.admin.tokens import admin_headers
from aurum.runtime.settings import Settings

_TIMEOUT = 5.0  # seconds


class FaultFailedError(Exception):
    """A service did not accept the request. The message says why and what to do."""


def add(settings: Settings, service: str, fault: dict[str, Any]) -> None:
    """Injects a fault into a service. Raises FaultFailedError."""
    answer = _call_admin(settings, service, "POST", fault)
    print(f"{service}: fault {answer['id']} has begun")


def show(settings: Settings, services: list[str]) -> None:
    """Lists the faults of services; if none is named, of all that run and allow faults. Raises FaultFailedError."""
    for service in services or list(settings.admin_addresses):
        try:
            answer = _call_admin(settings, service, "GET")
        except FaultFailedError as error:
            if services:
                raise
            print(f"{service}: {error}")
            continue
        print(f"{service}: {len(answer['faults']) or 'no'} faults")
        for fault in answer["faults"]:
            print(f"  {json.dumps(fault)}")


def clear(settings: Settings, services: list[str]) -> None:
    """Ends all faults of services; if none is named, of all that run and allow faults. Raises FaultFailedError."""
    for service in services or list(settings.admin_addresses):
        try:
            answer = _call_admin(settings, service, "DELETE")
        except FaultFailedError:
            if services:
                raise
            continue
        print(f"{service}: {answer['cleared']} faults ended")


def _call_admin(settings: Settings, service: str, method: str, content: Any = None) -> Any:
    address = settings.admin_addresses.get(service)
    if address is None:
        raise FaultFailedError(f"there is no service {service!r}; there are {', '.join(settings.admin_addresses)}")
    request = urllib.request.Request(
        f"http://{address}/faults",
        data=None if content is None else json.dumps(content).encode(),
        method=method,
        headers={"Content-Type": "application/json", **admin_headers(settings)},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise FaultFailedError(
                f"{service} does not allow faults; start it with AURUM_FAULTS_ENABLED=true, but never in production"
            ) from error
        raise FaultFailedError(f"{service}: {_detail(error)}") from error
    except OSError as error:
        raise FaultFailedError(f"{service} at {address} does not answer: {getattr(error, 'reason', error)}") from error


def _detail(error: urllib.error.HTTPError) -> str:
    """The reason in an answer; its status if another program has answered."""
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"it answered {error.code}, which is not of its admin server"
