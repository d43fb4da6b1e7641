"""Each route for each kind of tenant, from one table: who is bound to a site reaches, and learns of, that site only."""

import re
import time
from typing import Any

import pytest

from aurum.security.access import PUBLIC, ROUTES
from aurum.security.api_keys import KeyFile, make_key, read_keys, write_keys
from tests.support.guarded import Guarded
from tests.support.http import Answer, http
from tests.support.waiting import wait_for

NORTH, SOUTH = "tenant-north", "tenant-south"  # sites, and the machines at them
BODIES: dict[str, Any] = {
    "/api/machines": {"machine_id": f"{NORTH}-new", "machine_type": "pump", "site": NORTH},
    "/api/machines/{machine_id}/maintenance": {"text": "looked at"},
    "/api/predict": {"machine_id": NORTH},
    "/api/readings": {"readings": [{"machine_id": NORTH, "sensor": "s", "timestamp": 1.7e9, "value": 1.0}]},
    "/api/alarms/{alarm_id}/shelve": {"minutes": 5},
    "/api/platform/faults/{service}": {"kind": "delay", "method": "Never"},
}
_WITHOUT_END = "/api/events"
_OF_THE_SESSION = "/api/session"  # which says who it is itself
_OF_BODIES = ("/api/machines", "/api/predict", "/api/readings")  # which name their machine or site in the body


@pytest.fixture(scope="module")
def tenants(guarded: Guarded) -> dict[str, dict[str, str]]:
    """Headers of each kind of tenant, all of them admins; a machine at each of two sites."""
    admin = {"Authorization": f"Bearer {guarded.issuer.token(roles=['admin'])}"}
    for machine in (NORTH, SOUTH):
        body = {"machine_id": machine, "machine_type": "pump", "site": machine}
        assert http("POST", f"{guarded.api}/api/machines", body, admin).status in (201, 409)
        reading = {"machine_id": machine, "sensor": "s", "timestamp": time.time(), "value": 1.0}
        assert http("POST", f"{guarded.api}/api/readings", {"readings": [reading]}, admin).status == 200
    file = guarded.platform.folder / "keys.yaml"
    before = read_keys(file)
    key, record = make_key("soon revoked", ("admin",))
    write_keys(file, KeyFile(keys=(*before.keys, record)))
    revoked = {"X-API-Key": key}
    ask = f"{guarded.api}/api/machines"
    wait_for(lambda: http("GET", ask, headers=revoked).status == 200, 20, "the key is taken")
    write_keys(file, before)
    wait_for(lambda: http("GET", ask, headers=revoked).status == 401, 20, "the key is revoked")

    def token(**claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {guarded.issuer.token(roles=['admin'], **claims)}"}

    return {
        "own site": token(sites=[NORTH]),
        "other site": token(sites=[SOUTH]),
        "no claim": admin,
        "empty claim": token(sites=[]),
        "malformed claim": token(sites={NORTH: True}),
        "revoked": revoked,
    }


def ask(guarded: Guarded, method: str, template: str, headers: dict[str, str]) -> Answer:
    path = template.replace("{machine_id}", NORTH).replace("{alarm_id}", f"{NORTH}~stopped")
    path = path.replace("{service}", "prediction").replace("{trace_id}", "0" * 32).replace("{path:path}", "app.js")
    assert "{" not in path, f"{template}: say what its parameters are"
    body = BODIES.get(template, {}) if method == "POST" else None
    return http(method, f"{guarded.api}{path}", body, headers)


ASKED = [route for route in ROUTES if route[1] not in (_WITHOUT_END, _OF_THE_SESSION)]


@pytest.mark.parametrize("tenant", ["empty claim", "malformed claim", "revoked"])
def test_bad_proof_opens_no_route(guarded: Guarded, tenants: dict[str, dict[str, str]], tenant: str) -> None:
    """An empty or malformed claim and a revoked key are 401 at every route that wants a role."""
    wrong = [
        route for route in ASKED if ROUTES[route] is not PUBLIC and ask(guarded, *route, tenants[tenant]).status != 401
    ]
    assert wrong == []


def test_routes_of_a_machine_are_404_for_another_site(guarded: Guarded, tenants: dict[str, dict[str, str]]) -> None:
    """Whatever names a machine, an alarm or a site of others is answered as if that did not exist."""
    named = [route for route in ASKED if re.search(r"{(machine|alarm)_id}", route[1])]
    named += [("POST", template) for template in _OF_BODIES]
    found = {route: ask(guarded, *route, tenants["other site"]).status for route in named}
    assert {route: status for route, status in found.items() if status != 404} == {}


def test_no_route_tells_of_another_site(guarded: Guarded, tenants: dict[str, dict[str, str]]) -> None:
    """No answer to a tenant of another site has the name of the site or of its machine, unless the question had it."""
    told = []
    for method, template in ASKED:
        if method != "GET" or "{" in template or template in ("/metrics", "/openapi.json"):
            continue
        if NORTH.encode() in ask(guarded, method, template, tenants["other site"]).body:
            told.append(template)
    assert told == []


def test_own_site_is_answered_like_no_claim(guarded: Guarded, tenants: dict[str, dict[str, str]]) -> None:
    """Who is bound to the machine's site gets of it what somebody who is bound to none gets."""
    differing = []
    for method, template in ASKED:
        if method == "GET" and "{machine_id}" in template:
            statuses = {ask(guarded, method, template, tenants[who]).status for who in ("own site", "no claim")}
            if len(statuses) > 1:
                differing.append((template, statuses))
    assert differing == []
