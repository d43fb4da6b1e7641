"""Each route for each kind of tenant, from one table: who is bound to a site reaches, and learns of, that site only."""

import re
import time
from typing import Any

import grpc
import pytest

from aurum.security.api_keys import KeyFile, make_key, read_keys, write_keys
from aurum.security.permissions import PUBLIC, ROUTES, ROUTES_OF_WHOLE_PLANT
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.guarded import Guarded
from tests.support.http import Answer, http
from tests.support.waiting import wait_for

NORTH, SOUTH = "tenant-north", "tenant-south"  # sites, and the machines at them
BODIES: dict[str, Any] = {
    "/api/machines": {"machine_id": f"{NORTH}-new", "machine_type": "pump", "site": NORTH},
    "/api/machines/{machine_id}/maintenance": {"text": "looked at"},
    "/api/machines/{machine_id}/maintenance/{record_id}": {"text": "looked at"},
    "/api/machines/{machine_id}/planned-stops": {"at": "2090-01-01T00:00:00Z"},
    "/api/predict": {"machine_id": NORTH},
    "/api/readings": {"readings": [{"machine_id": NORTH, "sensor": "s", "timestamp": 1.7e9, "value": 1.0}]},
    "/api/alarms/{alarm_id}/shelve": {"minutes": 5},
    "/api/alarms/{alarm_id}/comments": {"text": "looked at"},
    "/api/platform/faults/{service}": {"kind": "delay", "method": "Never"},
    "/api/alarms/rules/preview": {"rule": {"name": "hot", "text": "Too hot", "sensor": {"sensor": "s", "above": 1.0}}},
}
QUERIES = {"/api/reports/energy": f"?month={time.strftime('%Y-%m', time.gmtime())}"}  # of routes that need one
_OF_RULES = ("/api/alarms/rules", "/api/alarms/rules/restore")  # whose bodies name the newest revision
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

    leave_marks(guarded, admin)

    def token(**claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {guarded.issuer.token(roles=['admin'], **claims)}"}

    return {
        "own site": token(sites=[NORTH], sub="of the north"),
        "other site": token(sites=[SOUTH], sub="of the south"),
        "no claim": admin,
        "empty claim": token(sites=[]),
        "malformed claim": token(sites={NORTH: True}),
        "revoked": revoked,
    }


def leave_marks(guarded: Guarded, admin: dict[str, str]) -> None:
    """Has the platform know a damaged event of the northern machine, and a trace that names it."""
    with grpc.insecure_channel(f"127.0.0.1:{guarded.platform.port('ingestion')}") as channel:
        event = ingestion_pb2.Event(kind="prediction", machine_id=NORTH, at_us=1, id="damaged", content=b"\xff")
        request = ingestion_pb2.RecordEventsRequest(events=[event])
        ingestion_pb2_grpc.IngestionServiceStub(channel).RecordEvents(request, timeout=5)
    assert http("GET", f"{guarded.api}/api/machines/{NORTH}/predictions", headers=admin).status == 200
    read_slowly(guarded, NORTH, admin)
    instances = http("GET", f"{guarded.api}/api/platform", headers=admin)
    assert NORTH.encode() in instances.body, "what is damaged names the machine"
    wait_for(lambda: NORTH in traced(guarded, admin), 20, "a trace names the machine")


def read_slowly(guarded: Guarded, machine: str, headers: dict[str, str]) -> None:
    """Asks for the readings of a machine so that its trace is worth a look."""
    admin = {"Authorization": f"Bearer {guarded.issuer.token(roles=['admin'])}"}
    faults = f"{guarded.api}/api/platform/faults/ingestion"
    assert http("POST", faults, {"kind": "delay", "method": "Query", "delay": "700ms"}, admin).status == 201
    assert http("GET", f"{guarded.api}/api/machines/{machine}/metrics", headers=headers).status == 200
    assert http("DELETE", faults, headers=admin).status == 200


def traced(guarded: Guarded, headers: dict[str, str]) -> str:
    """All that the traces tell which a caller is shown."""
    items = http("GET", f"{guarded.api}/api/platform/traces", headers=headers).json["items"]
    return " ".join(
        http("GET", f"{guarded.api}/api/platform/traces/{each['trace_id']}", headers=headers).body.decode()
        for each in items
    )


def ask(guarded: Guarded, method: str, template: str, headers: dict[str, str]) -> Answer:
    path = template.replace("{machine_id}", NORTH).replace("{alarm_id}", f"{NORTH}~stopped")
    path = re.sub(r"{(stop|record)_id}", "1-0", path)
    path = path.replace("{service}", "prediction").replace("{trace_id}", "0" * 32).replace("{path:path}", "app.js")
    assert "{" not in path, f"{template}: say what its parameters are"
    path += QUERIES.get(template, "")
    body = BODIES.get(template, {}) if method in ("POST", "PUT") else None
    if template in _OF_RULES and body is not None:
        body = body_of_rules(guarded, template)
    return http(method, f"{guarded.api}{path}", body, headers)


def body_of_rules(guarded: Guarded, template: str) -> dict[str, Any]:
    """A change of the alarm rules that keeps them, or the return to those of the file."""
    admin = {"Authorization": f"Bearer {guarded.issuer.token(roles=['admin'])}"}
    present = http("GET", f"{guarded.api}/api/alarms/rules", headers=admin).json
    what = {"restores": 0} if template.endswith("restore") else {"rules": present["rules"]}
    return {"revision": present["revision"], "reason": "as before", **what}


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
        if method != "GET" or "{" in template or template == "/openapi.json":
            continue
        if NORTH.encode() in ask(guarded, method, template, tenants["other site"]).body:
            told.append(template)
    assert told == []


def test_report_of_energy_is_that_of_the_own_site(guarded: Guarded, tenants: dict[str, dict[str, str]]) -> None:
    """Who is bound to a site gets its report, also without naming it, and no report of another site."""
    for path in ("/api/reports/energy" + QUERIES["/api/reports/energy"], "/api/cost?group_by=site"):
        own = http("GET", f"{guarded.api}{path}", headers=tenants["own site"])
        assert own.status == 200
        assert NORTH.encode() in own.body
        assert SOUTH.encode() not in own.body
        assert http("GET", f"{guarded.api}{path}&site={NORTH}", headers=tenants["other site"]).status == 404


def test_own_site_is_answered_like_no_claim(guarded: Guarded, tenants: dict[str, dict[str, str]]) -> None:
    """Who is bound to the machine's site gets of it what somebody who is bound to none gets."""
    differing = []
    for method, template in ASKED:
        if method == "GET" and "{machine_id}" in template:
            statuses = {ask(guarded, method, template, tenants[who]).status for who in ("own site", "no claim")}
            if len(statuses) > 1:
                differing.append((template, statuses))
    assert differing == []


def test_trace_of_another_user_is_not_there(guarded: Guarded, tenants: dict[str, dict[str, str]]) -> None:
    """Who is bound to a site is shown the traces of its own requests, also if another names them as its own."""
    unbound = http("GET", f"{guarded.api}/api/platform/traces", headers=tenants["no claim"]).json["items"]
    assert unbound
    for trace in unbound:
        path = f"{guarded.api}/api/platform/traces/{trace['trace_id']}"
        assert http("GET", path, headers=tenants["other site"]).status == 404
    read_slowly(guarded, SOUTH, tenants["other site"])
    wait_for(lambda: "of the south" in traced(guarded, tenants["other site"]), 20, "its own is there")
    told = traced(guarded, tenants["other site"])
    assert SOUTH in told
    assert NORTH not in told


@pytest.mark.parametrize("tenant", ["own site", "other site"])
def test_whole_plant_is_closed_to_a_site(guarded: Guarded, tenants: dict[str, dict[str, str]], tenant: str) -> None:
    """What tells of the plant as a whole, or changes it, is 403 for whoever is bound to a site, admins too."""
    for route in ROUTES_OF_WHOLE_PLANT:
        refused = ask(guarded, *route, tenants[tenant])
        assert (refused.status, refused.json["type"]) == (403, "urn:aurumai:problem:whole-plant"), route
        assert ask(guarded, *route, tenants["no claim"]).status < 300
