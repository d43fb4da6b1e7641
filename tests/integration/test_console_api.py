"""What the console asks the API for, without a browser."""

import datetime
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for


def events(platform: Platform, last: str | None = None, seconds: float = 15) -> Iterator[tuple[str, str, Any]]:
    """Id, name and content of server-sent events."""
    headers = {"Last-Event-ID": last} if last else {}
    request = urllib.request.Request(f"{platform.api}/api/events", headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=seconds) as stream:  # noqa: S310
        event: dict[str, str] = {}
        for line in stream:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                event[name] = value
            elif "data" in event:
                yield event.get("id", ""), event["event"], json.loads(event["data"])
                event = {}


def read(platform: Platform, machine: str, value: float) -> None:
    reading = {"machine_id": machine, "sensor": "heat", "timestamp": time.time(), "value": value}
    assert http("POST", f"{platform.api}/api/readings", {"readings": [reading]}).status == 200


def test_console_pages_have_strict_content_security_policy(serving: Platform) -> None:
    for path in ("/", "/machines/pump-1", "/alarms", "/platform"):
        page = http("GET", f"{serving.api}{path}")
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        body = page.body.decode()
        assert not re.search(r"<script(?![^>]*src=)", body)
        assert not re.search(r"\son\w+=|\sstyle=|<style", body)
        for name in re.findall(r'(?:src|href)="(/console/[^"]+)"', body):
            assert http("GET", f"{serving.api}{name}").status == 200, name


def test_console_files_are_compressed_and_cached(serving: Platform) -> None:
    plain = http("GET", f"{serving.api}/console/app.js")
    packed = http("GET", f"{serving.api}/console/app.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body)
    assert http("GET", f"{serving.api}/console/app.js", headers={"If-None-Match": plain.headers["etag"]}).status == 304
    for path in ("none.js", "..%2fservice.py", "../service.py", "vendor/uPlot.LICENSE"):
        assert http("GET", f"{serving.api}/console/{path}").status == 404, path


def test_event_stream_resumes_with_missed_changes_only(serving: Platform) -> None:
    for name in ("first", "second"):
        read(serving, f"heard-{name}", 1)

    def whole() -> tuple[str, set[str]]:
        machines: set[str] = set()
        begun = False
        for id_, name, content in events(serving):
            if name == "machines":
                assert content["whole"] or begun  # the first one is whole, although it may have no machines yet
                begun = True
                machines |= {each["machine_id"] for each in content["machines"]}
                if id_ and machines >= {"heard-first", "heard-second"}:
                    return id_, machines
        raise AssertionError("the stream ended")

    last, _ = whole()
    read(serving, "heard-second", 2)
    id_, _, content = next(each for each in events(serving, last) if each[1] == "machines" and each[2]["machines"])
    assert not content["whole"]
    names = {each["machine_id"] for each in content["machines"]}
    assert "heard-second" in names
    assert "heard-first" not in names
    assert content["machines"][0]["values"]["heat"] == 2
    assert id_ != last
    foreign = next(each for each in events(serving, "ffff.3") if each[1] == "machines")
    assert foreign[2]["whole"]


def test_event_stream_sends_alarms_and_pulse(serving: Platform) -> None:
    told: dict[str, Any] = {}
    for _, name, content in events(serving):
        told[name] = content
        if {"alarms", "pulse"} <= told.keys():
            break
    assert told["pulse"]["unreachable"] == []
    assert told["pulse"]["gateways"] == []
    assert abs(told["pulse"]["now"] / 1000 - time.time()) < 5
    assert set(told["alarms"]) == {"revision", "loaded", "counts", "flood", "groups"}


def test_event_stream_beyond_limit_is_rejected(platform: Platform) -> None:
    platform.extra |= {"AURUM_API_MAX_EVENT_STREAMS": "1", "AURUM_FEATURE_PREDICTIVE": "false"}
    platform.start("ingestion")
    platform.start("api")
    first = events(platform)
    next(first)
    refused = http("GET", f"{platform.api}/api/events")
    assert refused.status == 429
    assert "AURUM_API_MAX_EVENT_STREAMS" in refused.json["detail"]
    first.close()  # type: ignore[attr-defined]
    wait_for(lambda: _hears(platform), 10, "the place is free again")


def _hears(platform: Platform) -> bool:
    try:
        return bool(next(events(platform)))
    except OSError:
        return False


def test_platform_view_reports_reachable_and_missing_services(serving: Platform) -> None:
    def rated() -> Any:
        http("GET", f"{serving.api}/api/machines")
        http("POST", f"{serving.api}/api/predict", {"machine_id": "nobody"})  # the first request to prediction, perhaps
        found = {each["service"]: each for each in http("GET", f"{serving.api}/api/platform").json["instances"]}
        rates = found["api"].get("rates")
        counted = found["prediction"].get("requests", {}).get("bounds")
        return found if rates and rates["requests_per_second"] > 0 and counted else None

    found = wait_for(rated, 15, "rates")
    assert found["prediction"]["reachable"]
    assert found["prediction"]["policy"]["generation"] >= 0
    assert found["prediction"]["requests"]["bounds"]
    assert not found["edge"]["reachable"]
    assert found["edge"]["reason"]
    assert any(target["breaker"] == "closed" for target in found["api"]["targets"])


def test_slow_and_degraded_requests_are_kept_with_spans(platform: Platform) -> None:
    platform.extra["AURUM_TRACING_RING_SLOW"] = "0.000001"
    platform.start("ingestion")
    platform.start("api")
    machine = {"machine_id": "lonely", "machine_type": "pump"}
    assert http("POST", f"{platform.api}/api/machines", machine).status == 201
    reading = {"machine_id": "lonely", "sensor": "vibration_mm_s", "timestamp": time.time(), "value": 3.0}
    assert http("POST", f"{platform.api}/api/readings", {"readings": [reading]}).status == 200
    answer = http("POST", f"{platform.api}/api/machines/lonely/predict")
    assert answer.json["degraded"], "prediction does not run"

    slow = http("GET", f"{platform.api}/api/machines/lonely/metrics").headers["x-trace-id"]

    def kept() -> Any:
        found = {each["trace_id"]: each for each in http("GET", f"{platform.api}/api/platform/traces").json["items"]}
        return found if {slow, answer.json["trace_id"]} <= found.keys() else None

    traces = wait_for(kept, 15, "the traces are kept")
    assert traces[answer.json["trace_id"]]["reason"] == "degraded"
    assert traces[answer.json["trace_id"]]["detail"]
    assert traces[slow]["reason"] == "slow"
    spans = http("GET", f"{platform.api}/api/platform/traces/{slow}").json["spans"]
    assert {span["service"] for span in spans} == {"api", "ingestion"}
    ids = {span["span_id"] for span in spans}
    assert [span for span in spans if span["parent_id"] not in ids] == [spans[0]], "they are one tree"
    assert http("GET", f"{platform.api}/api/platform/traces/{'0' * 32}").status == 404
    assert http("GET", f"{platform.api}/api/platform/traces/xyz").status == 422
    assert platform.admin("ingestion", "/spans?trace_id=xyz").status == 422


def test_fault_endpoint_is_refused_unless_enabled(serving: Platform) -> None:
    refused = http("POST", f"{serving.api}/api/platform/faults/prediction", {"kind": "delay"})
    assert refused.status == 409
    assert "AURUM_FAULTS_ENABLED" in refused.json["detail"]


def test_today_sums_consumption_and_rejects_wrong_midnight(serving: Platform) -> None:
    midnight = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    answer = http("GET", f"{serving.api}/api/today?midnight={midnight.isoformat().replace('+00:00', 'Z')}")
    assert answer.status == 200
    assert answer.json["energy_kwh"]["amount"] >= 0
    assert answer.json["water_litres"] is None
    for wrong in ("2001-01-01T00:00:00Z", "yesterday"):
        refused = http("GET", f"{serving.api}/api/today?midnight={wrong}")
        assert refused.status == 422
        assert "midnight" in json.dumps(refused.json)


def test_maintenance_is_recorded_once_and_validated(serving: Platform) -> None:
    read(serving, "upkeep", 1)
    path = f"{serving.api}/api/machines/upkeep/maintenance"
    record = {"text": "Bearing replaced", "by": "Ada", "at": "2026-01-02T03:04:05Z"}
    for _ in range(2):
        assert http("POST", path, record).status == 201
    (kept,) = http("GET", path).json["items"]
    assert (kept["at"], kept["text"], kept["by"]) == ("2026-01-02T03:04:05Z", "Bearing replaced", "Ada")
    for more in (
        "Bearing replaced; the other side was inspected too: worn",
        "Bearing replaced; the other side was fine",
    ):
        assert http("POST", path, record | {"text": more}).status == 201
    items = http("GET", path).json["items"]
    assert len({item["id"] for item in items}) == len(items) == 3
    times = [
        {"text": "x", "at": at}
        for at in ("soon", "+275760-09-13T00:00:00Z", "9e20", "1e300", "2999-01-01T00:00Z", "-5", "0", "1969-01-01")
    ]
    for wrong, field in (({}, "text"), ({"text": ""}, "text"), *((each, "at") for each in times)):
        refused = http("POST", path, wrong)
        assert refused.status == 422
        assert field in json.dumps(refused.json)
    assert http("POST", f"{serving.api}/api/machines/nobody/maintenance", record).status == 404


def test_record_is_edited_and_deleted_with_a_trail(serving: Platform) -> None:
    read(serving, "edited", 1)
    path = f"{serving.api}/api/machines/edited/maintenance"
    failure = {
        "text": "Stopped",
        "by": "Ada",
        "kind": "failure",
        "from": "2026-01-02T03:00:00Z",
        "to": "2026-01-02T09:00:00Z",
        "component": "bearing",
        "failure_mode": "wear",
        "cost": 1200,
        "downtime": 6,
    }
    made = http("POST", path, failure)
    assert made.status == 201
    assert made.json.items() >= failure.items()
    record = f"{path}/{made.json['id']}"
    moved = http("PUT", record, failure | {"from": "2026-01-02T02:00:00Z", "failure_mode": "seizure"})
    assert (moved.status, moved.json["revision"], moved.json["failure_mode"]) == (200, 1, "seizure")
    assert [item["from"] for item in http("GET", path).json["items"]] == ["2026-01-02T02:00:00Z"]
    assert http("GET", f"{path}?start=2026-01-02T02:30:00Z").json["items"] == []
    record = f"{path}/{moved.json['id']}"
    outdated = http("PUT", record, failure | {"revision": 0})
    assert (outdated.status, outdated.json["type"]) == (409, "urn:aurumai:problem:record-changed")
    assert http("DELETE", record).status == 204
    assert http("DELETE", record).status == 404
    assert http("GET", path).json["items"] == []
    changes = http("GET", f"{record}/changes").json["items"]
    assert [each["action"] for each in changes] == ["deleted", "edited", "created"]
    assert [each["after"]["failure_mode"] for each in changes] == ["seizure", "seizure", "wear"]
    for wrong, field in (({"to": "2026-01-01T00:00:00Z"}, "to"), ({"kind": "party"}, "kind"), ({"cost": -1}, "cost")):
        refused = http("POST", path, failure | wrong)
        assert refused.status == 422
        assert field in json.dumps(refused.json)
