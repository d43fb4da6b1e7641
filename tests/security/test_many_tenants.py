"""The tables of tenants at their full size: many sites, forms of claims, keys, sessions and certificates, all at once.

Each tenant asks each route, or each RPC, of machines of every site, while the others do the same.
"""

import http.client
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest

from aurum.security.api_keys import KeyFile, make_key, read_keys, write_keys
from aurum.security.permissions import PUBLIC, ROUTES, ROUTES_OF_WHOLE_PLANT
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc
from tests.support.authority import Authority
from tests.support.guarded import Guarded
from tests.support.http import Answer
from tests.support.http import http as ask
from tests.support.platform import Platform
from tests.support.rpc_tenants import CASES, CLOSED, DENIED, EVERY, INGESTION, OK, SERVERS, TenantPlant, event
from tests.support.waiting import wait_for

SITES = int(os.environ.get("AURUM_TENANT_SITES", "8"))
MACHINES = 25  # of each site
AT_ONCE = 8  # tenants that ask at the same time
UNKNOWN = "site-none-m-00"
SAYS_NOTHING = {"/openapi.json", "/api/session", "/api/events"}  # of others, repeats the claim, has no end
NAMED = re.compile(r"{(machine|alarm)_id}")
ALL = frozenset(f"site-{number}" for number in range(SITES))
# Paths with a machine in the body, and that body
BODIES: dict[str, Callable[[str], Any]] = {
    "/api/machines": lambda machine: {"machine_id": f"{machine}-new", "machine_type": "t", "site": site_of(machine)},
    "/api/predict": lambda machine: {"machine_id": machine},
    "/api/readings": lambda machine: {
        "readings": [{"machine_id": machine, "sensor": "s", "timestamp": time.time(), "value": 1.0}]
    },
}
OTHER_BODIES: dict[str, Any] = {
    "/api/machines/{machine_id}/maintenance": {"text": "looked at"},
    "/api/machines/{machine_id}/maintenance/{record_id}": {"text": "looked at"},
    "/api/machines/{machine_id}/planned-stops": {"at": "2090-01-01T00:00:00Z"},
    "/api/alarms/{alarm_id}/shelve": {"minutes": 5},
    "/api/alarms/{alarm_id}/comments": {"text": "looked at"},
}


def machine_of(site: str, number: int) -> str:
    return f"{site}-m-{number:02}"


def site_of(machine: str) -> str:
    return machine.rpartition("-m-")[0]


@dataclass
class Tenant:
    """sees: the sites that it is to see; None where it is to be refused."""

    name: str
    headers: dict[str, str]
    sees: frozenset[str] | None

    @property
    def bound(self) -> bool:
        return self.sees != ALL


@dataclass
class Tenants:
    guarded: Guarded
    all: list[Tenant] = field(default_factory=list)

    def add(self, name: str, headers: dict[str, str], sees: frozenset[str] | None) -> None:
        self.all.append(Tenant(name, headers, sees))

    def add_token(self, name: str, sees: frozenset[str] | None, **claims: Any) -> None:
        token = self.guarded.issuer.token(**{"roles": ["admin"], "sub": name, **claims})
        self.add(name, {"Authorization": f"Bearer {token}"}, sees)


SEEN: dict[str, tuple[Any, frozenset[str]]] = {
    "two sites": (["site-0", "site-1"], frozenset({"site-0", "site-1"})),
    "words": ("site-0 site-2", frozenset({"site-0", "site-2"})),
    "a site twice": (["site-1", "site-1"], frozenset({"site-1"})),
    "known and unknown": (["site-0", "nowhere"], frozenset({"site-0"})),
    "unknown": (["nowhere"], frozenset()),
    "other case": (["SITE-0"], frozenset()),
    "trailing space": (["site-0 "], frozenset()),
    "line break": (["site-0\n"], frozenset()),
    "prefix": (["site-"], frozenset()),
    "pattern": (["site-*"], frozenset()),
    "star": (["*"], frozenset()),
    "comma": (["site-0,site-1"], frozenset()),
    "look-alike": (["\N{CYRILLIC SMALL LETTER DZE}ite-0"], frozenset()),
    "machine": (["site-0-m-00"], frozenset()),
    "long": (["site-0" * 1000], frozenset()),
}
BAD_SITES: list[Any] = [
    [], "", "  ", None, 0, 7, 1.5, True, False, {}, {"site-0": True}, [[]], [["site-0"]], [None], [""], [" "],
    ["site-0", ""], ["site-0", 7], ["site-0", None], [{"id": "site-0"}],
]  # fmt: skip
BAD_ROLES: list[Any] = [[], "", None, 7, True, {}, [[]], [None], ["root"], ["service"], ["ADMIN"], {"admin": True}]
BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": 1},
    "far future": {"exp": 10**12},
    "no number": {"exp": "tomorrow"},
    "not yet": {"nbf": 10**10},
    "issued later": {"iat": 10**10},
    "other audience": {"aud": "others"},
    "other issuer": {"iss": "https://elsewhere.example"},
    "no user": {"sub": " "},
    "user of a key": {"preferred_username": "key:admin"},
}


@pytest.fixture(scope="module")
def tenants(guarded: Guarded) -> Tenants:
    """A plant of many sites, and a tenant for each form of a claim, a key or a session."""
    found = Tenants(guarded)
    admin = {"Authorization": f"Bearer {guarded.issuer.token(roles=['admin'], sub='unbound')}"}
    found.add("unbound", admin, ALL)
    for site in sorted(ALL):
        found.add_token(f"of {site}", frozenset({site}), sites=[site])
        for number in range(MACHINES):
            body = {"machine_id": machine_of(site, number), "machine_type": "t", "site": site}
            assert ask("POST", f"{guarded.api}/api/machines", body, admin).status == 201
        readings = [
            {"machine_id": machine_of(site, number), "sensor": "s", "timestamp": time.time(), "value": 1.0}
            for number in range(MACHINES)
        ]
        assert ask("POST", f"{guarded.api}/api/readings", {"readings": readings}, admin).status == 200
    for name, (claim, sees) in SEEN.items():
        found.add_token(name, sees, sites=claim)
    for number, claim in enumerate(BAD_SITES):
        found.add_token(f"bad sites {number}", None, sites=claim)
    for number, claim in enumerate(BAD_ROLES):
        found.add_token(f"bad roles {number}", None, roles=claim)
    for name, claims in BAD_CLAIMS.items():
        found.add_token(name, None, **claims)
    unsigned = jwt.encode({"iss": guarded.issuer.url, "roles": ["admin"]}, None, algorithm="none")  # type: ignore[arg-type]
    found.add("unsigned", {"Authorization": f"Bearer {unsigned}"}, None)
    found.add("nobody", {}, None)
    add_keys(found)
    return found


def add_keys(tenants: Tenants) -> None:
    """Adds keys that are bound, unbound, expired and revoked, and sessions that were begun with them."""
    guarded, file = tenants.guarded, tenants.guarded.platform.folder / "keys.yaml"
    before = read_keys(file)
    made = {
        "key": (make_key("many unbound", ("admin",)), ALL),
        "key of a site": (make_key("many bound", ("admin",), ("site-1",)), frozenset({"site-1"})),
        "key of two sites": (
            make_key("many of two", ("admin",), ("site-1", "site-2")),
            frozenset({"site-1", "site-2"}),
        ),
        "revoked key": (make_key("many revoked", ("admin",)), None),
    }
    write_keys(file, KeyFile(keys=(*before.keys, *(record for (_, record), _ in made.values()))))
    for name, ((key, _), sees) in made.items():
        headers = {"X-API-Key": key}
        wait_for(lambda headers=headers: is_let_in(guarded, headers), 20, f"{name} is taken")  # type: ignore[misc]
        tenants.add(name, headers, sees)
        for ends in (False, True):
            cookie = {"Cookie": session(guarded, key), "Origin": guarded.api}
            if ends:
                assert ask("DELETE", f"{guarded.api}/api/session", headers=cookie).status == 204
            tenants.add(f"{'ended session' if ends else 'session'} of {name}", cookie, None if ends else sees)
    write_keys(file, KeyFile(keys=(*before.keys, *(made[name][0][1] for name in made if name != "revoked key"))))
    revoked = {"X-API-Key": made["revoked key"][0][0]}
    wait_for(lambda: not is_let_in(guarded, revoked), 20, "the key is revoked")


def session(guarded: Guarded, key: str) -> str:
    answer = ask("POST", f"{guarded.api}/api/session", {"credential": key})
    assert answer.status == 200
    return {name.lower(): value for name, value in answer.headers.items()}["set-cookie"].partition(";")[0]


def is_let_in(guarded: Guarded, headers: dict[str, str]) -> bool:
    return ask("GET", f"{guarded.api}/api/console", headers=headers).status == 200


def request(tenants: Tenants, tenant: Tenant, method: str, template: str, machine: str) -> Answer:
    path = template.replace("{machine_id}", machine).replace("{alarm_id}", f"{machine}~stopped")
    path = re.sub(r"{(stop|record)_id}", "1-0", path)
    path = path.replace("{service}", "prediction").replace("{trace_id}", "0" * 32).replace("{path:path}", "app.js")
    body = BODIES[template](machine) if template in BODIES and method == "POST" else OTHER_BODIES.get(template)
    sent = (body or {}) if method == "POST" else None
    return ask(method, f"{tenants.guarded.api}{path}", sent, tenant.headers, 60)


def listed(tenants: Tenants, tenant: Tenant, site: str) -> set[str]:
    """The machines of a site that the list of machines shows to a tenant, page by page."""
    found: set[str] = set()
    cursor = ""
    while True:
        path = f"/api/machines?limit=10&site={site}{f'&cursor={cursor}' if cursor else ''}"
        page = ask("GET", f"{tenants.guarded.api}{path}", headers=tenant.headers, timeout=60)
        assert page.status == 200
        found |= {machine["machine_id"] for machine in page.json["items"]}
        cursor = page.json["next_cursor"]
        if not cursor:
            return found


def of_all(tenants: list[Tenant], check: Callable[[Tenant], list[str]]) -> list[str]:
    """What is wrong with any of the tenants, which all ask at the same time."""
    with ThreadPoolExecutor(AT_ONCE) as callers:
        return list(itertools.chain.from_iterable(callers.map(check, tenants)))


@pytest.mark.proof("tenants")
@pytest.mark.parametrize("route", [route for route in ROUTES if ROUTES[route] is not PUBLIC], ids=" ".join)
def test_route_is_closed_to_every_bad_proof(tenants: Tenants, route: tuple[str, str]) -> None:
    """No malformed, empty, expired or foreign claim, revoked key or ended session opens a route, by any method."""
    method, template = route
    methods = {"GET": ("GET", "HEAD", "OPTIONS")}.get(method, (method,))

    def check(tenant: Tenant) -> list[str]:
        found = {each: request(tenants, tenant, each, template, machine_of("site-0", 0)).status for each in methods}
        return [f"{tenant.name}: {each} {status}" for each, status in found.items() if status != 401]

    refused = [tenant for tenant in tenants.all if tenant.sees is None]
    assert len(refused) > 40
    assert of_all(refused, check) == []


@pytest.mark.proof("tenants")
@pytest.mark.parametrize(
    "route",
    [
        route
        for route in ROUTES
        if (NAMED.search(route[1]) or (route[0] == "POST" and route[1] in BODIES)) and ROUTES[route] is not PUBLIC
    ],
    ids=" ".join,
)
def test_route_of_a_machine_is_open_to_its_tenants_only(tenants: Tenants, route: tuple[str, str]) -> None:
    """Who sees the machine's site is answered as somebody unbound is; to others the machine does not exist."""
    unbound = tenants.all[0]

    def check(tenant: Tenant) -> list[str]:
        wrong = []
        unknown = told(request(tenants, tenant, *route, UNKNOWN), UNKNOWN)
        for number, site in enumerate(sorted(ALL)):
            machine = machine_of(site, number % MACHINES)
            got = request(tenants, tenant, *route, machine)
            if site in (tenant.sees or ()):
                expected = request(tenants, unbound, *route, machine).status
                if got.status != expected and {got.status, expected} - {201, 409}:  # the first of them registers it
                    wrong.append(f"{tenant.name}: {machine} {got.status}, not {expected}")
            elif told(got, machine) != unknown or got.status != 404:
                wrong.append(f"{tenant.name}: {machine} {told(got, machine)}, not {unknown}")
        return wrong

    assert of_all([tenant for tenant in tenants.all if tenant.sees is not None], check) == []


def told(answer: Answer, machine: str) -> tuple[int, str]:
    """An answer without what is of the machine's name, its site's, or of the request."""
    text = re.sub(r'"trace_id": ?"[0-9a-f]*"', "", answer.body.decode())
    return answer.status, text.replace(machine, "M").replace(site_of(machine), "S")


@pytest.mark.proof("tenants")
@pytest.mark.parametrize(
    "template",
    [
        template
        for method, template in ROUTES
        if method == "GET" and "{" not in template and template not in SAYS_NOTHING
    ],
)
def test_route_shows_no_site_that_a_tenant_does_not_see(tenants: Tenants, template: str) -> None:
    """No answer names another site or a machine of it; the list of machines has all of each site that is seen."""

    def check(tenant: Tenant) -> list[str]:
        sees = tenant.sees or frozenset()
        answer = request(tenants, tenant, "GET", template, "")
        if ("GET", template) in ROUTES_OF_WHOLE_PLANT and tenant.bound and answer.status != 403:
            return [f"{tenant.name}: {answer.status}, not 403"]
        shown = {site for site in ALL if re.search(rf"\b{site}\b(?!-)|{site}-m-", answer.body.decode())}
        wrong = [f"{tenant.name}: {site}" for site in sorted(shown - sees)]
        for site in sees if template == "/api/machines" else ():
            found = {machine.removesuffix("-new") for machine in listed(tenants, tenant, site)}
            if found != {machine_of(site, number) for number in range(MACHINES)}:
                wrong.append(f"{tenant.name}: {site} {sorted(found)}")
        return wrong

    assert of_all([tenant for tenant in tenants.all if tenant.sees is not None], check) == []


@pytest.mark.proof("tenants")
def test_event_stream_shows_the_sites_of_each_tenant(tenants: Tenants) -> None:
    """The stream of events, read by all tenants at once while machines send, has the machines of their sites only."""

    def check(tenant: Tenant) -> list[str]:
        connection = http.client.HTTPConnection("127.0.0.1", tenants.guarded.platform.port("api"), timeout=30)
        try:
            connection.request("GET", "/api/events", headers=tenant.headers)
            answer = connection.getresponse()
            if tenant.sees is None:
                return [] if answer.status == 401 else [f"{tenant.name}: {answer.status}"]
            seen: set[str] = set()
            machines = 0
            while machines < MACHINES * len(tenant.sees):
                line = answer.readline()
                if line.startswith(b'data: {"machines"'):
                    items = json.loads(line[6:])["machines"]
                    machines += len(items)
                    seen |= {site_of(item["machine_id"].removesuffix("-new")) for item in items}
            return [f"{tenant.name}: {site}" for site in sorted(seen - tenant.sees) if site in ALL]
        finally:
            connection.close()

    assert of_all(tenants.all, check) == []


# gRPC

PATTERNS: dict[str, tuple[list[str], str]] = {
    **{f"of-{number}": ([f"site-{number}-*"], rf"site-{number}-.*") for number in range(SITES)},
    "of-two": (["site-0-*", "site-1-*"], r"site-[01]-.*"),
    "of-one-machine": (["site-0-m-00"], r"site-0-m-00"),
    "any-letter": (["site-?-m-00"], r"site-.-m-00"),
    "set": (["site-[12]-*"], r"site-[12]-.*"),
    "suffix": (["*-m-01"], r".*-m-01"),
    "prefix": (["site-0*"], r"site-0.*"),
    "other-case": (["SITE-0-*"], r"SITE-0-.*"),
    "nothing": ([], r"(?!)"),
    "empty": ([""], r""),
    "unknown": (["nowhere-*"], r"nowhere-.*"),
    "all": (["*"], r".*"),
    "one-and-all": (["site-0-*", "*"], r".*"),
}


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[TenantPlant]:
    """Machines of many sites, and a certificate for each form of a pattern."""
    folder = tmp_path_factory.mktemp("many-certificates")
    authority = Authority()
    clients = "".join(
        f"\n  - {{name: {name}.test, roles: [admin], machines: {json.dumps(patterns)}}}"
        for name, (patterns, _) in PATTERNS.items()
    )
    platform = "\n  - {name: platform.test, roles: [service]}"
    behind = authority.settings(folder, "platform.test", f"clients:{platform}{clients}\n")
    running = Platform(folder, extra={**behind, "AURUM_MODEL_DIR": str(models)})
    for service in SERVERS:
        running.start(service)
    found = TenantPlant(running, authority)
    for site, number in itertools.product(sorted(ALL), range(3)):
        machine = machine_of(site, number)
        for rpc in ("Write", "RegisterMachine"):
            made = CASES[f"{INGESTION}/{rpc}"][0].request(machine, "all")
            assert found.ask("ingestion", "all.test", f"{INGESTION}/{rpc}", made)[0] is OK
        assert found.ask("ingestion", "platform.test", f"{INGESTION}/RecordEvents", event(machine, "x"))[0] is OK
    for name, (server, _) in itertools.product(PATTERNS, EVERY):
        found.channel(server, f"{name}.test")  # before they are used by several threads
    yield found
    for channel in found.channels.values():
        channel.close()
    running.stop()


@pytest.mark.proof("tenants")
@pytest.mark.parametrize(("server", "rpc"), EVERY, ids=lambda each: each.rpartition(".")[2])
def test_rpc_opens_what_the_patterns_of_a_client_say(certified: TenantPlant, server: str, rpc: str) -> None:
    """For each form of a pattern, of clients that call at once, an RPC reaches and tells of its machines only."""
    asked = [machine_of(site, number) for site in sorted(ALL) for number in range(3)]

    def check(name: str) -> list[str]:
        pattern = PATTERNS[name][1]
        unbound = "*" in PATTERNS[name][0]
        wrong = []
        for case, machine in itertools.product(CASES[rpc], asked):
            code, answer = certified.ask(server, f"{name}.test", rpc, case.request(machine, name))
            text = answer.decode("utf-8", "replace")
            if case.of == "service" or (case.of == "plant" and not unbound):
                fine = code is DENIED
            elif case.of == "machine" and not re.fullmatch(pattern, machine):
                unknown = certified.ask(server, f"{name}.test", rpc, case.request(UNKNOWN, name))
                fine = (code, text) == (DENIED, unknown[1].decode().replace(UNKNOWN, machine))
            else:
                fine = code not in CLOSED
            shown = set(re.findall(r"site-\d-m-\d\d", text)) - {machine}
            fine = fine and all(re.fullmatch(pattern, each) for each in shown)
            if not fine:
                wrong.append(f"{name}: {case.of} {machine} {code.name} {sorted(shown)[:3]}")
            if case.of != "machine":
                break  # it is the same for all machines
        return wrong

    with ThreadPoolExecutor(AT_ONCE) as callers:
        assert list(itertools.chain.from_iterable(callers.map(check, PATTERNS))) == []


@pytest.mark.proof("tenants")
@pytest.mark.parametrize("server", ["ingestion", "edge"])
def test_pages_of_each_client_are_complete(certified: TenantPlant, server: str) -> None:
    """Page by page each client gets the machines that its patterns name, and no others."""

    def check(name: str) -> list[str]:
        stub = ingestion_pb2_grpc.IngestionServiceStub(certified.channel(server, f"{name}.test"))
        found: list[str] = []
        token = ""
        while True:
            page = stub.ListMachines(ingestion_pb2.ListMachinesRequest(page_size=2, page_token=token), timeout=20)
            found += [machine.machine_id for machine in page.machines]
            token = page.next_page_token
            if not token:
                break
        every = [machine_of(site, number) for site in sorted(ALL) for number in range(3)]
        expected = [machine for machine in every if re.fullmatch(PATTERNS[name][1], machine)]
        return [] if found == sorted(expected) else [f"{name}: {found}"]

    with ThreadPoolExecutor(AT_ONCE) as callers:
        assert list(itertools.chain.from_iterable(callers.map(check, PATTERNS))) == []
