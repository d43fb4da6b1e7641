"""Every route and RPC wants a role, and only that opens it."""

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aurum.api import service
from aurum.security.api_keys import KeyFile, make_key, read_keys, write_keys
from aurum.security.identity import ASSIGNABLE, Identity, Role
from aurum.security.permissions import PUBLIC, ROUTES, RPCS
from aurum.v1 import ingestion_pb2, prediction_pb2
from tests.support import processes
from tests.support.guarded import Guarded
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

_STREAM = "/api/events"
_OF_THE_FRAMEWORK = {("GET", "/openapi.json")}
BODIES: dict[str, Any] = {
    "/api/machines": {"machine_id": "made-by-a-test", "machine_type": "pump"},
    "/api/machines/{machine_id}/maintenance": {"text": "looked at"},
    "/api/machines/{machine_id}/maintenance/{record_id}": {"text": "looked at"},
    "/api/machines/{machine_id}/planned-stops": {"at": "2090-01-01T00:00:00Z"},
    "/api/predict": {"machine_id": "nobody"},
    "/api/readings": {"readings": [{"machine_id": "m", "sensor": "s", "timestamp": 1.7e9, "value": 1.0}]},
    "/api/alarms/{alarm_id}/shelve": {"minutes": 5},
    "/api/alarms/{alarm_id}/comments": {"text": "looked at"},
    "/api/platform/faults/{service}": {"kind": "delay", "method": "Never"},
    "/api/session": {"credential": "aurum_none"},
}


def test_access_table_lists_exactly_the_routes() -> None:
    """The access table lists exactly the API's routes."""
    routes = {
        (method, route.path)
        for module in service._ROUTES
        for route in module.router.routes
        for method in route.methods - {"HEAD"}
    }
    assert routes | _OF_THE_FRAMEWORK == set(ROUTES)


def test_access_table_covers_openapi_document(guarded: Guarded) -> None:
    """Every operation of the OpenAPI document is in the access table."""
    paths = http("GET", f"{guarded.api}/openapi.json").json["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert described <= {(method, re.sub(r":\w+}", "}", path)) for method, path in ROUTES}


def test_access_table_lists_exactly_the_rpcs() -> None:
    """The access table lists exactly the RPCs of ingestion and prediction."""
    rpcs = {
        f"/{each.full_name}/{method.name}"
        for file in (ingestion_pb2.DESCRIPTOR, prediction_pb2.DESCRIPTOR)
        for each in file.services_by_name.values()
        for method in each.methods
    }
    assert rpcs == {name for name in RPCS if name.startswith("/aurum.")}


def statuses(guarded: Guarded, headers: dict[str, str]) -> Iterator[tuple[tuple[str, str], Role | None, int]]:
    """What a caller gets of each route but the one without an end: the route, the role that it wants, the status."""
    for (method, template), wanted in ROUTES.items():
        if template == _STREAM:
            continue
        path = re.sub(r"{service}", "prediction", template)
        path = re.sub(r"{trace_id}", "0" * 32, path)
        path = re.sub(r"{path:path}", "app.js", path)
        path = re.sub(r"{\w+}", "nobody", path)
        body = BODIES.get(template, {}) if method == "POST" else None
        yield (method, template), wanted, http(method, f"{guarded.api}{path}", body, headers).status


@pytest.mark.parametrize("claim", ["roles", "sites"])
@pytest.mark.parametrize(
    "value", [[], "", None, 7, [{"id": "plant-a"}]], ids=["empty", "blank", "null", "number", "objects"]
)
def test_token_with_a_bad_claim_opens_nothing(guarded: Guarded, claim: str, value: Any) -> None:
    """A token whose claim of roles or sites is empty or malformed is 401 at every route that wants a role."""
    good = {"Authorization": f"Bearer {guarded.issuer.token(roles=['admin'])}"}
    assert http("GET", f"{guarded.api}/api/machines", headers=good).status == 200
    token = guarded.issuer.token(**({"roles": ["admin"]} | {claim: value}))
    found = statuses(guarded, {"Authorization": f"Bearer {token}"})
    assert [route for route, wanted, status in found if wanted is not PUBLIC and status != 401] == []


@pytest.mark.parametrize("role", [None, *ASSIGNABLE], ids=lambda role: role.value if role else "nobody")
def test_role_opens_exactly_its_routes(guarded: Guarded, role: Role | None) -> None:
    """Each role, and a caller without one, can use exactly the routes that the access table grants."""
    wrong = []
    for (method, template), wanted, status in statuses(guarded, guarded.headers(role)):
        expected = 401 if role is None else 403
        opens = wanted is PUBLIC or (role is not None and Identity("x", frozenset({role}), "key").has(wanted))
        if template == "/api/session" and method == "POST":
            assert status == 401  # the credential that the table of bodies has is none
        elif opens == (status in (401, 403)) or (not opens and status != expected):
            wrong.append(f"{method} {template} by {role}: {status}")
    assert wrong == []


def test_event_stream_requires_a_permitted_role(guarded: Guarded) -> None:
    """The event stream is 401 without credentials and 403 for the ingest role."""
    assert http("GET", f"{guarded.api}{_STREAM}").status == 401
    assert http("GET", f"{guarded.api}{_STREAM}", headers=guarded.headers(Role.INGEST)).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "aurum_aaaaaaaaaa_" + "b" * 43},
        {"X-API-Key": "'; DROP TABLE keys; --"},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
        {"Authorization": "Bearer"},
        {"Cookie": "aurum_session=e30.AAAA"},
        {"Cookie": "aurum_session=" + "x" * 5000},
    ],
    ids=str,
)
def test_invalid_credentials_are_rejected_with_401(guarded: Guarded, headers: dict[str, str]) -> None:
    """Invalid credentials of any kind are answered with 401 and not echoed."""
    answer = http("GET", f"{guarded.api}/api/machines", headers=headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert not any(value in answer.body.decode() for value in headers.values() if len(value) > 8)


def test_session_rejects_cross_site_requests(guarded: Guarded) -> None:
    """A session admits requests of its own site, rejects cross-site ones, and can be ended."""
    key = guarded.keys[Role.OPERATOR]
    begun = http("POST", f"{guarded.api}/api/session", {"credential": key})
    assert begun.status == 200
    assert begun.json["roles"] == ["operator"]
    cookie = begun.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert key not in cookie
    jar = {"Cookie": cookie.partition(";")[0]}
    assert http("GET", f"{guarded.api}/api/session", headers=jar).json["user_id"] == "key:operator of the tests"
    assert http("GET", f"{guarded.api}/api/machines", headers=jar).status == 200
    act = f"{guarded.api}/api/alarms/nobody~hot/ack"
    assert http("POST", act, {}, jar).json["type"].endswith("cross-site")
    assert http("POST", act, {}, {**jar, "Origin": "https://evil.example.com"}).status == 403
    assert http("POST", act, {}, {**jar, "Sec-Fetch-Site": "cross-site"}).status == 403
    assert http("POST", act, {}, {**jar, "Sec-Fetch-Site": "same-origin"}).status == 404
    assert http("POST", act, {}, {**jar, "Origin": guarded.api}).status == 404
    for elsewhere in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example.com"}):
        foreign = http("POST", f"{guarded.api}/api/session", {"credential": key}, elsewhere)
        assert foreign.status == 403, "nobody is signed in by another site"
    ended = http("DELETE", f"{guarded.api}/api/session", headers={**jar, "Sec-Fetch-Site": "same-origin"})
    assert ended.status == 204
    assert "Max-Age=0" in ended.headers["set-cookie"]


def test_session_ends_when_its_key_is_revoked(platform: Platform) -> None:
    """Revoking a key ends the session and the event stream that it began."""
    key = _key(platform, "leaves soon")
    platform.extra |= {"AURUM_AUTH_KEYS_FILE": str(platform.folder / "keys.yaml"), "AURUM_FEATURE_PREDICTIVE": "false"}
    platform.start("ingestion")
    platform.start("api")
    begun = http("POST", f"{platform.api}/api/session", {"credential": key})
    jar = {"Cookie": begun.headers["set-cookie"].partition(";")[0]}
    assert http("GET", f"{platform.api}/api/machines", headers=jar).status == 200
    stream = urllib.request.urlopen(urllib.request.Request(f"{platform.api}/api/events", headers=jar), timeout=30)  # noqa: S310
    assert stream.readline() == b"retry: 1000\n"
    write_keys(platform.folder / "keys.yaml", KeyFile())
    while stream.readline():
        pass  # it would have no end, and the time of reading would be over
    ended = wait_for(lambda: http("GET", f"{platform.api}/api/machines", headers=jar).status == 401, 15, "its end")
    assert ended


def test_open_api_rejects_cross_site_requests(platform: Platform) -> None:
    """An API without authentication rejects cross-site requests and foreign host names."""
    platform.extra["AURUM_FEATURE_PREDICTIVE"] = "false"
    platform.start("ingestion")
    platform.start("api")
    machine = {"machine_id": "pump-1", "machine_type": "pump"}
    for elsewhere in ({"Origin": "https://evil.example.com"}, {"Sec-Fetch-Site": "cross-site"}):
        assert http("POST", f"{platform.api}/api/machines", machine, elsewhere).json["type"].endswith("cross-site")
    renamed = http("GET", f"{platform.api}/api/machines", headers={"Host": "evil.example.com"})
    assert renamed.json["type"].endswith("foreign-name")
    assert http("POST", f"{platform.api}/api/machines", machine, {"Origin": platform.api}).status == 201


def test_forwarded_for_counts_only_from_trusted_proxy(platform: Platform) -> None:
    """X-Forwarded-For tells clients apart only when it comes from a trusted proxy."""
    platform.extra |= {"AURUM_API_RATE": "0.5", "AURUM_API_RATE_BURST": "3", "AURUM_FEATURE_PREDICTIVE": "false"}
    platform.start("ingestion")

    def statuses() -> list[int]:
        return [
            http("GET", f"{platform.api}/api/console", headers={"X-Forwarded-For": f"192.0.2.{number}"}).status
            for number in range(8)
        ]

    platform.start("api")
    assert 429 in statuses(), "whatever it says, it is one client"
    platform.processes["api"].kill()
    platform.extra["AURUM_API_TRUSTED_PROXIES"] = "127.0.0.0/8"
    platform.start("api")
    assert statuses() == [200] * 8


def test_responses_carry_security_headers(guarded: Guarded) -> None:
    """Responses carry a CSP and nosniff, and behind TLS also HSTS and secure cookies."""
    plain = http("GET", f"{guarded.api}/health")
    assert plain.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert plain.headers["x-content-type-options"] == "nosniff"
    assert "strict-transport-security" not in plain.headers
    behind_tls = {"X-Forwarded-Proto": "https"}
    assert (
        "max-age=31536000"
        in http("GET", f"{guarded.api}/health", headers=behind_tls).headers["strict-transport-security"]
    )
    credential = {"credential": guarded.keys[Role.VIEWER]}
    begun = http("POST", f"{guarded.api}/api/session", credential, behind_tls)
    assert "secure" in begun.headers["set-cookie"].lower()
    page = http("GET", f"{guarded.api}/docs")
    policy = dict(each.strip().split(" ", 1) for each in page.headers["content-security-policy"].split(";"))
    assert not any("unsafe" in each or "http" in each for each in policy.values())
    foreign = re.findall(r"<(?:script|link)[^>]+(?:src|href)=\"https://[^>]+>", page.body.decode())
    assert foreign == [], "everything is served from here"


def test_acts_are_audited_without_secrets_in_logs(guarded: Guarded) -> None:
    """Acts are audited with user, outcome and trace id, and no log contains a key's secret."""
    machine = {"machine_id": f"audited-{time.time_ns()}", "machine_type": "pump"}
    made = http("POST", f"{guarded.api}/api/machines", machine, guarded.headers(Role.ENGINEER))
    assert made.status == 201
    again = http("POST", f"{guarded.api}/api/machines", machine, guarded.headers(Role.ENGINEER))
    assert again.status == 409
    lines = [json.loads(line) for line in (guarded.platform.folder / "audit.log").read_text().splitlines()]
    acts = [each for each in lines if each["subject"] == machine["machine_id"]]
    assert [each["outcome"] for each in acts] == ["done", "failed: ALREADY_EXISTS"]
    assert acts[0]["user_id"] == "key:engineer of the tests"
    assert acts[0]["action"] == "machine.register"
    assert acts[0]["trace_id"] == made.headers["x-trace-id"]
    logs = [*guarded.platform.folder.glob("*.log")]
    assert any("engineer of the tests" in log.read_text() for log in logs)
    for log in logs:
        for secret in guarded.keys.values():
            assert secret.split("_", 2)[2] not in log.read_text(), log


def test_user_id_reaches_inner_services(guarded: Guarded) -> None:
    """The caller's user id, also a non-ASCII one, reaches prediction's logs and spans."""
    key, record = make_key("Zoë Ñandú", ("viewer",))
    file = guarded.platform.folder / "keys.yaml"
    write_keys(file, KeyFile(keys=(*read_keys(file).keys, record)))
    ask = f"{guarded.api}/api/machines/nobody/predict"
    wait_for(lambda: http("POST", ask, headers={"X-API-Key": key}).status == 404, 15, "the new key is known")
    trace_id = http("POST", ask, headers={"X-API-Key": key}).headers["x-trace-id"]

    def told() -> bool:
        lines = (guarded.platform.folder / "prediction.log").read_text().splitlines()
        return any(json.loads(line).get("user_id") == "key:Zoë Ñandú" for line in lines)

    wait_for(told, 10, "the user's name in prediction's log")
    for name in ("api", "prediction"):
        spans = guarded.platform.admin(name, f"/spans?trace_id={trace_id}").json["spans"]
        assert spans, name
        assert {span["attributes"].get("user_id") for span in spans} == {"key:Zoë Ñandú"}, name


def test_exposed_api_requires_authentication_or_opt_out(platform: Platform) -> None:
    """An exposed API without authentication starts only with an explicit opt-out."""
    platform.extra["AURUM_API_HOST"] = "0.0.0.0"
    process = platform.start("api", ready=False)
    assert process.popen.wait(20) == 2
    assert "AURUM_AUTH_OPEN=everybody-may-do-everything" in process.log.read_text()
    platform.extra["AURUM_AUTH_OPEN"] = "everybody-may-do-everything"
    platform.extra["AURUM_FEATURE_PREDICTIVE"] = "false"
    platform.start("ingestion")
    platform.start("api")
    session = http("GET", f"{platform.api}/api/session").json
    assert "POST /api/alarms/{alarm_id}/ack" in session.pop("changes")
    assert session == {"asked": False, "user_id": "anonymous", "roles": ["admin"], "sites": []}


def test_rate_limit_applies_per_caller(platform: Platform) -> None:
    """A caller above the rate limit gets 429 with Retry-After, and another caller is served."""
    made = [make() for make in (lambda: _key(platform, "loud"), lambda: _key(platform, "quiet"))]
    platform.extra |= {"AURUM_API_RATE": "2", "AURUM_API_RATE_BURST": "5", "AURUM_FEATURE_PREDICTIVE": "false"}
    platform.extra["AURUM_AUTH_KEYS_FILE"] = str(platform.folder / "keys.yaml")
    platform.start("ingestion")
    platform.start("api")
    loud, quiet = ({"X-API-Key": key} for key in made)
    statuses = [http("GET", f"{platform.api}/api/machines", headers=loud).status for _ in range(12)]
    assert 429 in statuses
    refused = http("GET", f"{platform.api}/api/machines", headers=loud)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert http("GET", f"{platform.api}/api/machines", headers=quiet).status == 200


def _key(platform: Platform, name: str) -> str:
    file = platform.folder / "keys.yaml"
    key, record = make_key(name, ("viewer",))
    write_keys(file, KeyFile(keys=(*read_keys(file).keys, record)))
    return key


def test_applied_policy_is_audited(platform: Platform) -> None:
    """Applying a policy document is audited with generation and hash, before and after."""
    file, log = platform.folder / "policies.yaml", platform.folder / "audit.log"
    platform.folder.mkdir(exist_ok=True)
    file.write_text("uid: plant\ngeneration: 1\npolicies: []\n")
    platform.extra |= {"AURUM_POLICY_FILE": str(file), "AURUM_AUDIT_FILE": str(log)}
    platform.start("ingestion")
    beside = file.with_suffix(".new")
    beside.write_text("uid: plant\ngeneration: 2\npolicies: []\n")
    beside.replace(file)

    def acts() -> list[Any]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [each for each in map(json.loads, lines) if each["action"] == "policy.apply"]

    found = wait_for(acts, 15, "the policy's line")[-1]
    assert found["user_id"] == "policy document"
    assert (found["before"]["generation"], found["after"]["generation"]) == (1, 2)
    assert found["before"]["hash"] != found["after"]["hash"]


def test_import_authenticates_with_api_key(guarded: Guarded, tmp_path: Path) -> None:
    """`aurum import` is refused without an API key and works with one."""
    file = tmp_path / "readings.csv"
    file.write_text(f"machine_id,timestamp,sensor,value\nimported-1,{time.time() - 60},load,1\n")
    key, record = make_key("importer", ("engineer", "ingest"))
    keys = guarded.platform.folder / "keys.yaml"
    write_keys(keys, KeyFile(keys=(*read_keys(keys).keys, record)))

    def imported(more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        command = ["import", str(file), "--format", "csv", "--machine-type", "pump", "--api", guarded.api]
        environment = {**guarded.platform.environment("import"), **more}
        return processes.run(*command, environment=environment)

    refused = imported({})
    assert refused.returncode == 1
    assert "authentication is required" in refused.stderr
    wait_for(
        lambda: imported({"AURUM_API_KEY": key}).returncode == 0, 30, "the new key is known, and the file imported"
    )
    stored = http("GET", f"{guarded.api}/api/machines/imported-1", headers=guarded.headers(Role.VIEWER)).json
    assert "load" in stored["sensors"]
