"""The largest requests of each route of the API."""

import http.client
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from tests.support.costs.cases import Case
from tests.support.costs.plant import BROAD, DAY_US, LONG, SITE, CostPlant

BODY = 16_000_000  # bytes of the largest body of readings
SMALL_BODY = 65_536  # bytes of the largest body of most other routes
FEATURES_BODY = 262_144  # bytes of the largest body of features
HEAD = 60_000  # bytes of a path or query that a request's line may have
JSON, CSV = {"Content-Type": "application/json"}, {"Content-Type": "text/csv"}


def request(
    name: str,
    method: str,
    path: str | Callable[[CostPlant, int], str],
    *expected: int,
    body: Callable[[CostPlant, int], bytes] | None = None,
    headers: dict[str, str] | None = None,
) -> Case:
    def ask(plant: CostPlant, number: int) -> str:
        sent = path if isinstance(path, str) else path(plant, number)
        return str(plant.http(method, sent, body(plant, number) if body else None, headers).status)

    return Case(name, ask, frozenset(str(status) for status in expected))


def long_query(path: str, *expected: int) -> Case:
    """A request whose line is as long as it may be."""
    return request(
        "long query", "GET", f"{path}?unknown={'a' * HEAD}", *(expected or (422 if path.startswith("/api/") else 200,))
    )


def filled(content: dict[str, Any], key: str, size: int = SMALL_BODY) -> Callable[[CostPlant, int], bytes]:
    """JSON of exactly `size` bytes, by the length of one of its texts."""
    missing = size - len(json.dumps({**content, key: ""}))
    return lambda plant, number: json.dumps({**content, key: "a" * missing}).encode()


def many_fields(size: int = SMALL_BODY) -> Callable[[CostPlant, int], bytes]:
    """An object of as many fields as a body has room for; none is known."""
    fields = ",".join(f'"{field:x}":1' for field in range(size // 7))
    body = b"{" + fields.encode()[: size - 2].rpartition(b",")[0] + b"}"
    return lambda plant, number: body


def small_bodies(
    method: str, path: str, content: dict[str, Any], key: str, *expected: int, size: int = SMALL_BODY
) -> list[Case]:
    """A body that is as large as it may be: of one long text, and of very many fields; and one byte more."""
    return [
        request("long text", method, path, *expected, body=filled(content, key, size), headers=JSON),
        request("many fields", method, path, 422, body=many_fields(size), headers=JSON),
        request("body beyond the limit", method, path, 413, body=filled(content, key, size + 1), headers=JSON),
    ]


def reported(path: str) -> Case:
    """A report on the longest period."""
    return request(
        "longest period", "GET", lambda plant, n: f"{path}?start={plant.started_us - 90 * DAY_US + n * 1_000_000}", 200
    )


def accounts(path: str) -> list[Case]:
    """An account of all machines with meters over the longest time: for each machine, and as tables."""

    def over(plant: CostPlant) -> str:
        end = plant.started_us + DAY_US
        return f"start={end - plant.size.days * DAY_US}&end={end}"

    def of(group_by: str, format_: str) -> Callable[[CostPlant, int], str]:
        return lambda plant, _: f"{path}?site={SITE}&group_by={group_by}&format={format_}&{over(plant)}"

    return [
        request("all machines", "GET", of("machine", "json"), 200),
        request("all machines as CSV", "GET", of("machine", "csv"), 200),
        request("all machines as Parquet", "GET", of("machine", "parquet"), 200),
        request("all of a site", "GET", of("site", "json"), 200),
    ]


def energy_report(format_: str) -> Callable[[CostPlant, int], str]:
    """The report on the month of the plant's readings."""
    return lambda plant, _: (
        f"/api/reports/energy?site={SITE}&format={format_}&month="
        f"{datetime.fromtimestamp(plant.started_us / 1e6, UTC):%Y-%m}"
    )


def baseline(plant: CostPlant, number: int) -> str:
    """Energy of all machines over the longest time, compared with as long a time."""
    end = plant.started_us + DAY_US
    start = end - plant.size.days * DAY_US
    return f"/api/energy?site={SITE}&start={start}&end={end}&baseline_start={start}&baseline_end={end}"


def json_body(plant: CostPlant, number: int) -> bytes:
    one = b'{"machine_id":"cost","sensor":"s","timestamp":1700000000,"value":1.5}'
    return b'{"readings":[' + b",".join([one] * 200_000) + b"]}"


def distinct_json_body(plant: CostPlant, number: int) -> bytes:
    """As many series as a batch may have, with long names and times as texts."""
    rows = [
        f'{{"machine_id":"json-{n // 100:03}","sensor":"{"s" * 50}{n % 100:02}","timestamp":"2026-05-04T12:00:00Z",'
        f'"value":1.5}}'
        for n in range(20_000)
    ]
    return f'{{"readings":[{",".join(rows)}]}}'.encode()


def csv_body(plant: CostPlant, number: int) -> bytes:
    return b"machine_id,timestamp,sensor,value\n" + b"cost,1700000000,s,1.5\n" * 200_000


def wide_csv_body(plant: CostPlant, number: int) -> bytes:
    """As many columns as a table may have, and as many readings as a batch may."""
    sensors = [f"{'c' * 40}{column:03}" for column in range(498)]
    row = ",".join(["cost-wide", "1700000000", *["1.5"] * len(sensors)])
    return "\n".join([",".join(["machine_id", "timestamp", *sensors]), *[row] * 400, ""]).encode()


def repeated(head: bytes, part: bytes, tail: bytes) -> Callable[[CostPlant, int], bytes]:
    """A body of the largest size, of one part again and again."""
    return lambda plant, number: head + part * ((BODY - len(head) - len(tail)) // len(part)) + tail


READINGS_PATH = "/api/readings"
ROUTES: dict[tuple[str, str], list[Case]] = {
    ("GET", "/livez"): [long_query("/livez")],
    ("GET", "/readyz"): [long_query("/readyz")],
    ("GET", "/health"): [long_query("/health")],
    ("GET", "/metrics"): [long_query("/metrics")],
    ("GET", "/"): [long_query("/")],
    ("GET", "/machines/{machine_id}"): [request("long path", "GET", f"/machines/{'a' * HEAD}", 200)],
    ("GET", "/alarms"): [long_query("/alarms")],
    ("GET", "/platform"): [long_query("/platform")],
    ("GET", "/compare"): [long_query("/compare")],
    ("GET", "/connect"): [long_query("/connect")],
    ("GET", "/console/{path:path}"): [
        request("largest file", "GET", "/console/vendor/uPlot.iife.min.js", 200),
        request("long path", "GET", f"/console/{'a/' * (HEAD // 2)}", 404),
    ],
    ("GET", "/docs"): [long_query("/docs")],
    ("GET", "/openapi.json"): [long_query("/openapi.json")],
    ("GET", "/api/session"): [
        request("long cookie", "GET", "/api/session", 200, headers={"Cookie": f"a={'b' * HEAD}"}),
        request("many cookies", "GET", "/api/session", 200, headers={"Cookie": "a=b;" * (HEAD // 4)}),
    ],
    ("POST", "/api/session"): [
        Case("own key", lambda plant, _: sign_in(plant, plant.key), frozenset({"200"})),
        Case("longest credential", lambda plant, _: sign_in(plant, "a" * 16_384), frozenset({"401"})),
        *small_bodies("POST", "/api/session", {}, "credential", 422),
    ],
    ("DELETE", "/api/session"): [
        request("long cookie", "DELETE", "/api/session", 204, headers={"Cookie": f"a={'b' * HEAD}"})
    ],
    ("GET", "/api/console"): [long_query("/api/console")],
    ("GET", "/api/events"): [Case("all machines", lambda plant, _: all_events(plant), frozenset({"200"}))],
    ("GET", "/api/today"): [
        request("all machines", "GET", lambda plant, n: f"/api/today?midnight={plant.started_us + n * 1_000_000}", 200)
    ],
    ("GET", "/api/resilience"): [long_query("/api/resilience")],
    ("GET", "/api/platform"): [long_query("/api/platform")],
    ("GET", "/api/platform/traces"): [long_query("/api/platform/traces")],
    ("GET", "/api/platform/traces/{trace_id}"): [
        Case("latest trace", lambda plant, _: latest_trace(plant), frozenset({"200"})),
        request("long path", "GET", f"/api/platform/traces/{'0' * HEAD}", 422),
    ],
    ("POST", "/api/platform/faults/{service}"): small_bodies(
        "POST", "/api/platform/faults/prediction", {"kind": "delay"}, "method", 422
    ),
    ("DELETE", "/api/platform/faults/{service}"): [
        request("long path", "DELETE", f"/api/platform/faults/{'a' * HEAD}", 404)
    ],
    ("GET", "/api/machines"): [
        request("most machines", "GET", "/api/machines?limit=1000", 200),
        request("no such type", "GET", f"/api/machines?limit=1000&machine_type={'a' * HEAD}", 200),
    ],
    ("POST", "/api/machines"): small_bodies("POST", "/api/machines", {"machine_type": "pump"}, "machine_id", 422),
    ("GET", "/api/machines/{machine_id}"): [
        request("most sensors", "GET", f"/api/machines/{BROAD}", 200),
        request("long path", "GET", f"/api/machines/{'a' * HEAD}", 404),
    ],
    ("GET", "/api/machines/{machine_id}/metrics"): [
        request("every reading", "GET", f"/api/machines/{LONG}/metrics?points=0", 200),
        request("most points", "GET", f"/api/machines/{LONG}/metrics?points=10000", 200),
        request("most sensors", "GET", f"/api/machines/{BROAD}/metrics", 200),
        request("many names", "GET", f"/api/machines/{BROAD}/metrics?{'&sensor=a' * (HEAD // 9)}", 200),
    ],
    ("GET", "/api/machines/{machine_id}/features"): [
        request("most sensors", "GET", f"/api/machines/{BROAD}/features", 200)
    ],
    ("GET", "/api/machines/{machine_id}/explanation"): [
        request("most factors", "GET", f"/api/machines/{BROAD}/explanation?top=50", 200)
    ],
    ("GET", "/api/machines/{machine_id}/predictions"): [
        request("longest history", "GET", f"/api/machines/{LONG}/predictions?limit=1000", 200)
    ],
    ("GET", "/api/machines/{machine_id}/advice"): [
        request("most readings", "GET", f"/api/machines/{LONG}/advice", 409)
    ],
    ("GET", "/api/machines/{machine_id}/maintenance"): [
        request("longest history", "GET", f"/api/machines/{LONG}/maintenance?limit=1000", 200)
    ],
    ("POST", "/api/machines/{machine_id}/maintenance"): small_bodies(
        "POST", f"/api/machines/{LONG}/maintenance", {}, "text", 422
    ),
    ("GET", "/api/outcomes"): [request("most items", "GET", "/api/outcomes?limit=1000", 200)],
    ("PUT", "/api/machines/{machine_id}/maintenance/{record_id}"): small_bodies(
        "PUT", f"/api/machines/{LONG}/maintenance/1-0", {}, "text", 422
    ),
    ("DELETE", "/api/machines/{machine_id}/maintenance/{record_id}"): [
        request("no such record", "DELETE", f"/api/machines/{LONG}/maintenance/1-0", 404)
    ],
    ("GET", "/api/machines/{machine_id}/maintenance/{record_id}/changes"): [
        request("longest history", "GET", f"/api/machines/{LONG}/maintenance/1-0/changes?limit=1000", 404)
    ],
    ("GET", "/api/machines/{machine_id}/alarm-limits"): [
        request("limits", "GET", f"/api/machines/{LONG}/alarm-limits", 200)
    ],
    ("GET", "/api/machines/{machine_id}/life-suggestions"): [
        request("longest history", "GET", f"/api/machines/{LONG}/life-suggestions", 200),
        request("most sensors", "GET", f"/api/machines/{BROAD}/life-suggestions", 200),
    ],
    ("GET", "/api/machines/{machine_id}/planned-stops"): [
        request("longest history", "GET", f"/api/machines/{LONG}/planned-stops", 200)
    ],
    ("POST", "/api/machines/{machine_id}/planned-stops"): small_bodies(
        "POST", f"/api/machines/{LONG}/planned-stops", {"at": "2000-01-01"}, "text", 422
    ),
    ("DELETE", "/api/machines/{machine_id}/planned-stops/{stop_id}"): [
        request("no such stop", "DELETE", f"/api/machines/{LONG}/planned-stops/1-0", 404)
    ],
    ("POST", "/api/machines/{machine_id}/predict"): [
        request("most sensors", "POST", f"/api/machines/{BROAD}/predict", 200),
        request("largest body", "POST", f"/api/machines/{BROAD}/predict", 200, body=many_fields(), headers=JSON),
    ],
    ("POST", "/api/predict"): [
        request("most sensors", "POST", "/api/predict", 200, body=lambda *_: b'{"machine_id":"%s"}' % BROAD.encode()),
        request("many features", "POST", "/api/predict", 422, body=lambda *_: features(b"1.5"), headers=JSON),
        request("many wrong features", "POST", "/api/predict", 422, body=lambda *_: features(b'"x"'), headers=JSON),
        *small_bodies("POST", "/api/predict", {}, "machine_id", 404, 422, size=FEATURES_BODY),
    ],
    ("POST", READINGS_PATH): [
        request("JSON", "POST", READINGS_PATH, 200, body=json_body, headers=JSON),
        request("JSON of most series", "POST", READINGS_PATH, 200, body=distinct_json_body, headers=JSON),
        request("CSV", "POST", READINGS_PATH, 200, body=csv_body, headers=CSV),
        request("wide CSV", "POST", READINGS_PATH, 200, body=wide_csv_body, headers=CSV),
        request(
            "CSV of empty cells",
            "POST",
            READINGS_PATH,
            422,
            body=repeated(b"machine_id,timestamp," + b",".join(b"s%d" % n for n in range(400)) + b"\n", b",", b"\n"),
            headers=CSV,
        ),
        request(
            "empty lists", "POST", READINGS_PATH, 422, body=repeated(b'{"readings":[[]', b",[]", b"]}"), headers=JSON
        ),
        request(
            "one huge reading",
            "POST",
            READINGS_PATH,
            422,
            body=repeated(b'{"readings":[{"a":[0', b",[]", b"]}]}"),
            headers=JSON,
        ),
        request("one huge field", "POST", READINGS_PATH, 422, body=repeated(b'{"a":[0', b",[]", b"]}"), headers=JSON),
        request(
            "one huge text",
            "POST",
            READINGS_PATH,
            422,
            body=repeated(b'{"source_id":"', "\N{SNOWMAN}".encode(), b'"}'),
            headers=JSON,
        ),
        request("only spaces", "POST", READINGS_PATH, 422, body=repeated(b"", b" ", b""), headers=JSON),
        request("deep lists", "POST", READINGS_PATH, 422, body=repeated(b'{"readings":', b"[", b""), headers=JSON),
    ],
    ("GET", "/api/models"): [long_query("/api/models")],
    ("GET", "/api/energy"): [
        *accounts("/api/energy"),
        request("against a baseline", "GET", baseline, 200),
    ],
    ("GET", "/api/cost"): accounts("/api/cost"),
    ("GET", "/api/carbon"): accounts("/api/carbon"),
    ("GET", "/api/carbon/hint"): [
        request("longest forecast", "GET", "/api/carbon/hint?kw=5&duration_hours=24&within_hours=48", 200)
    ],
    ("GET", "/api/water"): accounts("/api/water"),
    ("GET", "/api/alarms"): [
        request("most alarms", "GET", "/api/alarms?limit=1000", 200),
        request("many states", "GET", f"/api/alarms?limit=1000{'&state=normal' * (HEAD // 13)}", 200),
    ],
    ("GET", "/api/alarms/journal"): [
        request("longest journal", "GET", "/api/alarms/journal?limit=1000", 200),
        request("rule without entries", "GET", "/api/alarms/journal?limit=1000&rule=none", 200),
    ],
    ("GET", "/api/alarms/rules"): [long_query("/api/alarms/rules")],
    ("GET", "/api/alarms/rules/history"): [
        request("longest history", "GET", "/api/alarms/rules/history?limit=50", 200)
    ],
    ("PUT", "/api/alarms/rules"): small_bodies(
        "PUT", "/api/alarms/rules", {"revision": 0, "rules": []}, "reason", 422, size=FEATURES_BODY
    ),
    ("POST", "/api/alarms/rules/restore"): small_bodies(
        "POST", "/api/alarms/rules/restore", {"revision": 0, "restores": 0}, "reason", 422
    ),
    ("POST", "/api/alarms/rules/preview"): [
        *small_bodies("POST", "/api/alarms/rules/preview", {"rule": {}}, "by", 422),
        request(
            "rule of all machines",
            "POST",
            "/api/alarms/rules/preview",
            200,
            body=lambda plant, number: b'{"rule": {"name": "a", "text": "b", "stale": {"after_seconds": 1}}}',
            headers=JSON,
        ),
    ],
    ("GET", "/api/reports/handover"): [reported("/api/reports/handover")],
    ("GET", "/api/reports/alarms"): [reported("/api/reports/alarms")],
    ("GET", "/api/reports/energy"): [
        request("a month of all machines", "GET", energy_report("json"), 200),
        request("a month as PDF", "GET", energy_report("pdf"), 200),
        request("a month as XLSX", "GET", energy_report("xlsx"), 200),
    ],
    ("POST", "/api/alarms/ack"): small_bodies("POST", "/api/alarms/ack", {"ids": ["a~b"]}, "reason", 422),
    ("POST", "/api/alarms/shelve"): small_bodies(
        "POST", "/api/alarms/shelve", {"ids": ["a~b"], "minutes": 5}, "reason", 422
    ),
    ("POST", "/api/alarms/{alarm_id}/comments"): small_bodies(
        "POST", f"/api/alarms/{LONG}~silent_0/comments", {}, "text", 422
    ),
    ("POST", "/api/alarms/{alarm_id}/ack"): small_bodies("POST", f"/api/alarms/{LONG}~silent_0/ack", {}, "by", 422),
    ("POST", "/api/alarms/{alarm_id}/shelve"): small_bodies(
        "POST", f"/api/alarms/{LONG}~silent_0/shelve", {"minutes": 5}, "reason", 422
    ),
    ("POST", "/api/alarms/{alarm_id}/unshelve"): small_bodies(
        "POST", f"/api/alarms/{LONG}~silent_0/unshelve", {}, "by", 422
    ),
}
"""By method and template."""


def features(value: bytes) -> bytes:
    """As many given features as a body has room for."""
    head, tail = b'{"machine_type":"pump","features":{', b"}}"
    pairs = b",".join(b'"feature.%06d":%s' % (number, value) for number in range(FEATURES_BODY // 20))
    return head + pairs[: FEATURES_BODY - len(head) - len(tail)].rpartition(b",")[0] + tail


def sign_in(plant: CostPlant, credential: str) -> str:
    return str(plant.http("POST", "/api/session", json.dumps({"credential": credential}).encode(), JSON).status)


def latest_trace(plant: CostPlant) -> str:
    """The trace of a request that is slow enough to be kept, or of one that failed."""
    items = plant.http("GET", "/api/platform/traces").json["items"]
    if not items:
        return "no trace"
    return str(plant.http("GET", f"/api/platform/traces/{quote(items[0]['trace_id'])}").status)


def all_events(plant: CostPlant) -> str:
    """Follows the stream of events until every machine was in one."""
    connection = http.client.HTTPConnection("127.0.0.1", plant.platform.port("api"), timeout=60)
    try:
        connection.request("GET", "/api/events", headers={"X-API-Key": plant.key})
        answer = connection.getresponse()
        seen, wanted = 0, 2 * plant.size.machines
        while answer.status == 200 and seen < wanted:
            line = answer.readline()
            if line.startswith(b'data: {"machines"'):
                seen += len(json.loads(line[6:])["machines"])
        return str(answer.status)
    finally:
        connection.close()
