"""Ingestion, prediction and API as real processes, through their public interfaces."""

import asyncio
import gzip
import json
import math
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aurum.readings.batch import Series, encode, now_us
from aurum.runtime.errors import from_rpc_error
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure
from tests.support import processes
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.ports import free_port
from tests.support.waiting import wait_for


def iso(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat()


@pytest.fixture(scope="module")
def pump(serving: Platform) -> str:
    """A pump with a life behind it, close to its failure."""
    run = run_to_failure(PUMP, 1, seed=42)[0]
    end = len(run.timestamps) - 8
    offset = now_us() - int(run.timestamps[end - 1])
    machine = {"machine_id": "worn-pump", "machine_type": "pump", "site": "lab"}
    assert http("POST", f"{serving.api}/api/machines", machine).status == 201
    readings = [
        {"machine_id": "worn-pump", "sensor": sensor, "timestamp": (int(at) + offset) / 1e6, "value": value}
        for sensor, column in run.columns.items()
        for at, value in zip(run.timestamps[end - 100 : end], column[end - 100 : end].tolist(), strict=True)
        if not math.isnan(value)
    ]
    answer = http("POST", f"{serving.api}/api/readings", {"readings": readings})
    assert answer.status == 200, answer.body
    assert answer.json == {"accepted": len(readings), "duplicate": 0}
    return "worn-pump"


@pytest.fixture
def ingestion(serving: Platform) -> Iterator[ingestion_pb2_grpc.IngestionServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{serving.port('ingestion')}") as channel:
        yield ingestion_pb2_grpc.IngestionServiceStub(channel)


def test_health_endpoint_has_expected_fields(serving: Platform) -> None:
    health = wait_for(
        lambda: (found := http("GET", f"{serving.api}/health").json)["status"] != "unhealthy" and found, 10, "health"
    )
    assert set(health) == {"status", "app_name", "app_version", "environment", "features", "observability"}
    assert health["app_name"] == "AurumAI Platform"
    assert health["features"] == {
        "predictive": True,
        "carbon": True,
        "energy": True,
        "water": False,
        "analytics": True,
    }
    assert health["observability"] == {"logging": "json", "tracing_enabled": True, "prometheus_enabled": True}


def test_worn_machine_is_predicted_to_fail(serving: Platform, pump: str) -> None:
    answer = http("POST", f"{serving.api}/api/predict", {"machine_id": pump})
    assert answer.status == 200, answer.body
    prediction = answer.json
    assert prediction["risk_score"] > 0.5
    assert prediction["rul"]["lower"] <= prediction["rul"]["estimate"] <= prediction["rul"]["upper"] < 100
    assert prediction["rul"]["unit"] == "h"
    assert not prediction["degraded"]
    assert prediction["model_version"]
    assert prediction["trace_id"] == answer.headers["x-trace-id"]
    same = http("POST", f"{serving.api}/api/machines/{pump}/predict").json
    assert same["risk_score"] == prediction["risk_score"]


def test_explanation_and_features_match_prediction(serving: Platform, pump: str) -> None:
    explanation = http("GET", f"{serving.api}/api/machines/{pump}/explanation?top=3").json
    assert len(explanation["factors"]) == 3
    assert (explanation["step"], explanation["step_unit"]) == (1.0, "h")
    assert any(factor["contribution"] > 0 for factor in explanation["factors"])
    features = http("GET", f"{serving.api}/api/machines/{pump}/features").json["features"]
    given = {name: value for name, value in features.items() if value is not None}
    body = {"machine_type": "pump", "features": given}
    by_features = http("POST", f"{serving.api}/api/predict", body).json
    assert by_features["risk_score"] == pytest.approx(explanation["prediction"]["risk_score"])


def test_readings_are_returned_raw_and_downsampled(serving: Platform, pump: str) -> None:
    url = f"{serving.api}/api/machines/{pump}/metrics?sensor=vibration_mm_s"
    (raw,) = http("GET", f"{url}&points=0").json["series"]
    assert len(raw["values"]) == len(raw["timestamps"]) > 80
    assert raw["minima"] is None
    (reduced,) = http("GET", f"{url}&points=10").json["series"]
    assert len(reduced["values"]) <= 10
    assert max(reduced["maxima"]) == pytest.approx(max(raw["values"]))
    assert sum(reduced["counts"]) == len(raw["values"])


def test_machine_list_is_paginated(serving: Platform) -> None:
    for index in range(5):
        body = {"machine_id": f"paged-{index}", "machine_type": "motor", "site": "pages"}
        assert http("POST", f"{serving.api}/api/machines", body).status == 201
    found, cursor = [], ""
    while True:
        page = http("GET", f"{serving.api}/api/machines?site=pages&limit=2&cursor={cursor}").json
        found += [item["machine_id"] for item in page["items"]]
        if not (cursor := page["next_cursor"]):
            break
    assert found == [f"paged-{index}" for index in range(5)]


def test_registration_retry_succeeds_and_conflict_is_409(serving: Platform) -> None:
    body = {"machine_id": "twice", "machine_type": "pump"}
    key = {"Idempotency-Key": "abc-1"}
    assert [http("POST", f"{serving.api}/api/machines", body, key).status for _ in range(2)] == [201, 201]
    assert http("POST", f"{serving.api}/api/machines", body).status == 409


def test_idempotency_key_makes_retry_safe(serving: Platform) -> None:
    body = {"readings": [{"machine_id": "key", "sensor": "s", "timestamp": time.time(), "value": 1.0}]}
    key = {"Idempotency-Key": "readings-1"}
    answers = [http("POST", f"{serving.api}/api/readings", body, key).json for _ in range(2)]
    assert answers == [{"accepted": 1, "duplicate": 0}, {"accepted": 0, "duplicate": 1}]


def test_csv_is_accepted_over_http(serving: Platform) -> None:
    text = f"machine_id,timestamp,a,b\ncsv-1,{iso(now_us())},1,2\ncsv-1,{iso(now_us() - 10**6)},3,\n"
    answer = http("POST", f"{serving.api}/api/readings", text.encode(), {"Content-Type": "text/csv"})
    assert answer.json == {"accepted": 3, "duplicate": 0}


def test_csv_form_is_declared_in_the_query(serving: Platform) -> None:
    text = "machine_id;timestamp;sensor;value\nform-1;28.11.2025 10:00;Öl;73,25\nform-1;28.11.2025 10:01;Öl;Wartung\n"
    bodies = {"Content-Type": "text/csv"}
    wrong = http("POST", f"{serving.api}/api/readings", text.encode("cp1252"), bodies)
    assert [(each["row"], each["field"]) for each in wrong.json["errors"]] == [(2, "timestamp"), (3, "value")]
    query = "time_format=%25d.%25m.%25Y+%25H:%25M&timezone=Europe/Berlin&absent_words=Wartung&absent_words=Aus"
    named = http("POST", f"{serving.api}/api/readings?{query}", text.encode("cp1252"), bodies)
    assert (named.status, named.json["errors"][0]["field"], named.json["errors"][0]["row"]) == (422, "sensor", 2)
    assert "would store it as _x00D6_l" in named.json["detail"]
    text = text.replace("Öl", "oil")
    answer = http("POST", f"{serving.api}/api/readings?{query}", text.encode(), bodies)
    notes = ["separated by semicolon, with a decimal comma"]
    assert answer.json == {"accepted": 1, "duplicate": 0, "absent": 1, "notes": notes}
    readings = (
        f"{serving.api}/api/machines/form-1/metrics?sensor=oil&start=2025-11-01T00:00:00Z&end=2025-12-01T00:00:00Z"
    )
    (series,) = http("GET", readings).json["series"]
    assert (series["timestamps"], series["values"]) == (["2025-11-28T09:00:00Z"], [73.25])


@pytest.mark.parametrize(
    ("query", "field"),
    [("time_format=soon", "time_format"), ("timezone=Berlin", "timezone"), ("encoding=klingon", "encoding")],
)
def test_wrong_declarations_of_csv_are_refused(serving: Platform, query: str, field: str) -> None:
    answer = http("POST", f"{serving.api}/api/readings?{query}", b"machine_id", {"Content-Type": "text/csv"})
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, field)
    body = {"readings": [{"machine_id": "form-2", "sensor": "s", "timestamp": time.time(), "value": 1.0}]}
    answer = http("POST", f"{serving.api}/api/readings?time_format=s", body)
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "time_format")


def test_key_is_bound_to_the_declared_form(serving: Platform) -> None:
    """The same table means other readings in another zone."""
    text = b"machine_id,timestamp,sensor,value\nform-3,2025-11-28T10:00:00,s,1\n"
    headers = {"Content-Type": "text/csv", "Idempotency-Key": "form-3"}
    statuses = [
        http("POST", f"{serving.api}/api/readings?timezone={zone}", text, headers).status
        for zone in ("Europe/Berlin", "Europe/Berlin", "America/New_York")
    ]
    assert statuses == [200, 200, 422]


NOW = time.time()


@pytest.mark.parametrize(
    ("rows", "row", "field"),
    [
        ([{"sensor": "s", "timestamp": NOW, "value": 1}], 0, "machine_id"),
        ([{"machine_id": "bad-1", "sensor": "s", "timestamp": NOW, "value": "x"}], 0, "value"),
        ([{"machine_id": "bad-1", "sensor": "s", "timestamp": NOW, "value": None}], 0, "value"),
        (
            [
                {"machine_id": "bad-1", "sensor": "s", "timestamp": NOW, "value": 1},
                {"machine_id": "bad-1", "sensor": "s", "timestamp": NOW + 86_400, "value": 1},
            ],
            1,
            "timestamp",
        ),
        ([{"machine_id": "bad 1", "sensor": "s", "timestamp": NOW, "value": 1}], 0, "machine_id"),
        ([{"machine_id": "bad-1", "sensor": "s", "timestamp": "soon", "value": 1}], 0, "timestamp"),
        ([{"machine_id": "bad-1", "sensor": "s", "timestamp": NOW, "value": 1, "unit": "m"}], 0, "unit"),
    ],
)
def test_invalid_readings_name_row_and_store_nothing(serving: Platform, rows: list[Any], row: int, field: str) -> None:
    answer = http("POST", f"{serving.api}/api/readings", {"readings": rows})
    assert answer.status == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json["errors"][0]["row"], answer.json["errors"][0]["field"]) == (row, field)
    assert answer.json["trace_id"]
    assert http("GET", f"{serving.api}/api/machines/bad-1").status == 404


def test_csv_upload_names_wrong_cell_and_stores_nothing(serving: Platform) -> None:
    text = b"machine_id,timestamp,sensor,value\nbad-2,1790000001,a,1\nbad-2,1790000002,a,oops\n"
    answer = http("POST", f"{serving.api}/api/readings", text, {"Content-Type": "text/csv"})
    assert answer.status == 422
    assert answer.json["errors"] == [{"field": "value", "row": 3, "detail": "'oops' is not a number"}]
    assert http("GET", f"{serving.api}/api/machines/bad-2").status == 404


def test_compressed_readings_are_stored(serving: Platform) -> None:
    body = {"readings": [{"machine_id": "gz-1", "sensor": "a", "timestamp": NOW, "value": 1}]}
    packed = gzip.compress(json.dumps(body).encode())
    answer = http("POST", f"{serving.api}/api/readings", packed, {"Content-Encoding": "gzip"})
    assert (answer.status, answer.json) == (200, {"accepted": 1, "duplicate": 0})
    assert http("POST", f"{serving.api}/api/readings", packed, {"Content-Encoding": "br"}).status == 415


def test_json_with_byte_order_mark_is_read(serving: Platform) -> None:
    readings = {"readings": [{"machine_id": "bom-1", "sensor": "a", "timestamp": NOW, "value": 1}]}
    machine = {"machine_id": "bom-1", "machine_type": "press", "site": ""}
    for path, body in (("readings", readings), ("machines", machine)):
        marked = b"\xef\xbb\xbf" + json.dumps(body).encode()
        answer = http("POST", f"{serving.api}/api/{path}", marked, {"Content-Type": "application/json"})
        assert answer.status in (200, 201), answer.body


def test_every_get_route_answers_head(serving: Platform) -> None:
    paths = http("GET", f"{serving.api}/openapi.json").json["paths"]
    routes = [path.replace("{machine_id}", "head-1") for path, methods in paths.items() if "get" in methods]
    assert len(routes) > 20
    for path in ["/", "/docs", "/console/app.js", *(route for route in routes if "{" not in route)]:
        answer = http("HEAD", f"{serving.api}{path}")
        assert answer.body == b""
        expected = 200 if path == "/api/events" else http("GET", f"{serving.api}{path}").status
        assert (path, answer.status) == (path, expected)


def test_small_number_is_no_time_of_a_reading(serving: Platform) -> None:
    """It would be in 1970; it is rather a serial date or a counter."""
    readings = [{"machine_id": "old-1", "sensor": "a", "timestamp": 46354.4166667, "value": 1}]
    answer = http("POST", f"{serving.api}/api/readings", {"readings": readings})
    assert answer.status == 422
    assert "may be a serial date of a spreadsheet (2026-11-28 10:00)" in answer.json["errors"][0]["detail"]


def test_reading_without_a_number_does_not_stop_the_others(serving: Platform) -> None:
    text = f"machine_id,timestamp,a,b\nabsent-1,{NOW},Bad Input,1\n".encode()
    answer = http("POST", f"{serving.api}/api/readings", text, {"Content-Type": "text/csv"})
    assert answer.json == {"accepted": 1, "duplicate": 0, "absent": 1, "notes": ["without any number: absent-1 a"]}
    readings = [{"machine_id": "absent-1", "sensor": each, "timestamp": NOW, "value": None} for each in "cd"]
    readings.append({"machine_id": "absent-1", "sensor": "e", "timestamp": NOW, "value": 2})
    answer = http("POST", f"{serving.api}/api/readings", {"readings": readings})
    assert (answer.status, answer.json) == (200, {"accepted": 1, "duplicate": 0, "absent": 2})


def test_malformed_bodies_are_rejected_with_422(serving: Platform) -> None:
    assert http("POST", f"{serving.api}/api/readings", b"{not json").status == 422
    assert http("POST", f"{serving.api}/api/readings", b"x", {"Content-Type": "image/png"}).status == 422
    assert http("POST", f"{serving.api}/api/readings", {"readings": []}).status == 422
    assert http("POST", f"{serving.api}/api/predict", {"machine_type": "pump"}).status == 422
    wrong = {"machine_type": "pump", "features": {"nonsense": 1}}
    answer = http("POST", f"{serving.api}/api/predict", wrong)
    assert answer.status == 422
    assert "features.nonsense" in answer.json["detail"]


async def test_gigabyte_body_is_rejected_without_reading_it(serving: Platform) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port("api"))
    writer.write(b"POST /api/readings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
    assert b"413" in await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.port("api"))
    writer.write(b"POST /api/readings HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"%x\r\n" % 1_000_000 + b"a" * 1_000_000 + b"\r\n"
    answer = asyncio.create_task(reader.readline())
    sent = 0
    while not answer.done() and sent < 100:
        try:
            writer.write(chunk)
            await writer.drain()
        except ConnectionError:
            break
        sent += 1
        await asyncio.sleep(0)
    assert sent < 60
    assert b"413" in await asyncio.wait_for(answer, 10)
    writer.close()


@pytest.mark.parametrize("path", ["/api/readings", "/nothing"])
def test_client_sending_refused_body_sees_the_answer(serving: Platform, path: str) -> None:
    """A client that sends its whole body before it reads, and closes, gets the refusal and no reset connection."""
    assert http("POST", f"{serving.api}{path}", b"x" * 17_000_000).status == 413


def test_query_of_too_many_series_is_refused(ingestion: ingestion_pb2_grpc.IngestionServiceStub) -> None:
    """A question for more series than can be answered at once is refused before anything is read, and says how many."""
    one = np.array([now_us()], np.int64), np.array([1.0])
    for part in range(2):
        series = [Series(f"many-{part}-{n}", f"s{k}", *one) for n in range(21) for k in range(500)]
        ingestion.Write(ingestion_pb2.WriteRequest(batch=encode(f"many-{part}", 1, series)), timeout=20)
    machines = [f"many-{part}-{n}" for part in range(2) for n in range(21)]
    with pytest.raises(grpc.RpcError) as caught:
        list(ingestion.Query(ingestion_pb2.QueryRequest(machine_ids=machines, last=1), timeout=20))
    error = from_rpc_error(caught.value)
    assert error.reason == "TOO_MANY_SERIES"
    assert "21000 series; at most 20000" in error.message
    answers = ingestion.Query(ingestion_pb2.QueryRequest(machine_ids=machines, sensors=["s1"], last=1), timeout=20)
    assert sum(len(answer.series) for answer in answers) == 42


def test_predictions_of_too_many_sensors_are_refused(
    serving: Platform, ingestion: ingestion_pb2_grpc.IngestionServiceStub
) -> None:
    """A batch of machines without a model, of which too many sensors would be read, is refused with the limit."""
    one = np.array([now_us()], np.int64), np.array([1.0])
    series = [Series(f"broad-{n}", f"s{k}", *one) for n in range(21) for k in range(500)]
    ingestion.Write(ingestion_pb2.WriteRequest(batch=encode("broad", 1, series)), timeout=20)

    def predicted(count: int) -> list[prediction_pb2.PredictBatchItem]:
        asked = [prediction_pb2.PredictRequest(machine_id=f"broad-{n}") for n in range(count)]
        with grpc.insecure_channel(f"127.0.0.1:{serving.port('prediction')}") as channel:
            stub = prediction_pb2_grpc.PredictionServiceStub(channel)
            answers = stub.PredictBatch(iter([prediction_pb2.PredictBatchRequest(requests=asked)]), timeout=20)
            return [item for answer in answers for item in answer.items]

    assert len(predicted(20)) == 20
    with pytest.raises(grpc.RpcError) as caught:
        predicted(21)
    error = from_rpc_error(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_MANY_SERIES")
    assert "all 10500 sensors are read; at most 10000" in error.message


def test_machine_without_its_sensors_tells_their_number(ingestion: ingestion_pb2_grpc.IngestionServiceStub) -> None:
    one = np.array([now_us()], np.int64), np.array([1.0])
    batch = encode("counted", 1, [Series("counted", f"s{k}", *one) for k in range(3)])
    ingestion.Write(ingestion_pb2.WriteRequest(batch=batch), timeout=20)
    for omitted, listed in ((True, 0), (False, 3)):
        request = ingestion_pb2.GetMachineRequest(machine_id="counted", omit_sensors=omitted)
        machine = ingestion.GetMachine(request, timeout=5).machine
        assert (len(machine.sensors), machine.sensor_count) == (listed, 3)


def test_bodies_that_are_no_readings_are_small(serving: Platform) -> None:
    """A body that is parsed as a whole may have 64 KiB, or 256 of features; of many wrong fields the first are told."""
    answer = http("POST", f"{serving.api}/api/machines", {f"f{number}": 1 for number in range(5000)})
    assert answer.status == 422
    assert len(answer.json["errors"]) == 20
    for path, most in (("machines", 65_536), ("predict", 262_144)):
        large = http("POST", f"{serving.api}/api/{path}", b" " * (most + 1))
        assert (large.status, f"{most} bytes" in large.json["detail"]) == (413, True)
        assert http("POST", f"{serving.api}/api/{path}", b" " * most).status == 422
    assert http("POST", f"{serving.api}/api/readings", b" " * 262_145).status == 422


@pytest.mark.parametrize("path", ["", "/metrics", "/features", "/explanation"])
def test_unknown_machine_is_404(serving: Platform, path: str) -> None:
    answer = http("GET", f"{serving.api}/api/machines/nobody{path}")
    assert answer.status == 404
    assert answer.json["type"] == "urn:aurumai:problem:machine-not-found"
    assert http("POST", f"{serving.api}/api/predict", {"machine_id": "nobody"}).status == 404


def test_openapi_contains_every_route_of_the_contract(serving: Platform) -> None:
    paths = http("GET", f"{serving.api}/openapi.json").json["paths"]
    routes = """
        /health /livez /readyz /metrics /api/machines /api/machines/{machine_id} /api/readings /api/predict
        /api/machines/{machine_id}/metrics /api/machines/{machine_id}/features /api/machines/{machine_id}/predict
        /api/machines/{machine_id}/explanation /api/energy /api/carbon /api/water /api/alarms
        /api/carbon/hint /api/machines/{machine_id}/advice /api/models /api/outcomes
        /api/alarms/{alarm_id}/ack /api/alarms/{alarm_id}/shelve /api/alarms/journal /api/resilience /api/events
        /api/console /api/today /api/platform /api/platform/traces /api/machines/{machine_id}/maintenance
        /api/machines/{machine_id}/maintenance/{record_id}
        /api/machines/{machine_id}/maintenance/{record_id}/changes
    """
    for path in routes.split():
        assert path in paths, path


def test_resilience_endpoint_reports_every_service(serving: Platform) -> None:
    states = {each["service"]: each for each in http("GET", f"{serving.api}/api/resilience").json["services"]}
    assert states["prediction"]["reachable"]
    assert states["prediction"]["policy"]["applied"]
    assert not states["edge"]["reachable"]
    assert states["edge"]["reason"]
    assert any(target["name"] == "api/ingestion" for target in states["api"]["targets"])


def test_event_stream_sends_values_and_risk(serving: Platform, pump: str) -> None:
    with urllib.request.urlopen(f"{serving.api}/api/events", timeout=20) as stream:  # noqa: S310
        assert stream.headers["content-type"].startswith("text/event-stream")
        seen: dict[str, Any] = {}
        while not (pump in seen and seen[pump]["risk_score"] and seen[pump]["values"]):
            line = stream.readline().decode()
            if line.startswith("data:"):
                seen |= {item["machine_id"]: item for item in json.loads(line[5:])["machines"]}
    assert seen[pump]["values"]["vibration_mm_s"] > 0


def test_ingest_acknowledges_cumulatively(ingestion: ingestion_pb2_grpc.IngestionServiceStub) -> None:
    def requests() -> Iterator[ingestion_pb2.IngestRequest]:
        for sequence in (1, 2, 3, 2):
            series = Series("stream-1", "s", np.array([now_us() + sequence]), np.array([1.0]))
            yield ingestion_pb2.IngestRequest(batch=encode("stream-source", sequence, [series]))

    responses = list(ingestion.Ingest(requests(), timeout=10))
    counts = [response.acknowledged for response in responses]
    assert counts == sorted(counts)
    assert (counts[-1], responses[-1].duplicates) == (4, 1)


def test_invalid_batch_ends_stream_and_keeps_earlier_one(
    ingestion: ingestion_pb2_grpc.IngestionServiceStub,
) -> None:
    good = encode("half", 1, [Series("half-1", "s", np.array([now_us()]), np.array([1.0]))])
    bad = encode("half", 2, [Series("half-1", "s", np.array([now_us()]), np.array([math.inf]))])
    call = ingestion.Ingest(iter([ingestion_pb2.IngestRequest(batch=each) for each in (good, bad)]), timeout=10)
    received = []
    with pytest.raises(grpc.RpcError) as caught:
        received.extend(call)
    error = from_rpc_error(caught.value)  # type: ignore[arg-type]
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert error.violations[0].field == "requests[1].batch.series[0].values[0]"
    assert error.metadata["position"] == "1"
    machine = ingestion.GetMachine(ingestion_pb2.GetMachineRequest(machine_id="half-1"), timeout=5).machine
    assert machine.sensors[0].value == 1.0


def test_watch_sends_the_latest_state(ingestion: ingestion_pb2_grpc.IngestionServiceStub) -> None:
    call = ingestion.Watch(ingestion_pb2.WatchRequest(machine_ids=["watched"], interval_ms=100), timeout=15)
    at = now_us()
    batch = encode("watch", 1, [Series("watched", "s", np.array([at]), np.array([7.0]))])
    ingestion.Write(ingestion_pb2.WriteRequest(batch=batch), timeout=5)
    response = next(response for response in call if response.machines)
    assert response.machines[0].last_seen_us == at
    call.cancel()


def test_grpc_health_and_reflection_are_served(serving: Platform) -> None:
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    for service, name in (("ingestion", "aurum.v1.IngestionService"), ("prediction", "aurum.v1.PredictionService")):
        with grpc.insecure_channel(f"127.0.0.1:{serving.port(service)}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert check.status == health_pb2.HealthCheckResponse.SERVING
            assert name in ProtoReflectionDescriptorDatabase(channel).get_services()


def test_prediction_batch_answers_each_request(serving: Platform, pump: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{serving.port('prediction')}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        request = prediction_pb2.PredictBatchRequest(
            requests=[prediction_pb2.PredictRequest(machine_id=machine_id) for machine_id in (pump, "nobody", pump)]
        )
        (response,) = stub.PredictBatch(iter([request]), timeout=10)
        models = stub.ListModels(prediction_pb2.ListModelsRequest(), timeout=5).models
        activated = stub.ActivateModel(
            prediction_pb2.ActivateModelRequest(machine_type="pump", version=models[0].version), timeout=5
        )
    assert response.items[0].prediction.risk_score == response.items[2].prediction.risk_score > 0.5
    assert "nobody" in response.items[1].error
    assert activated.model.active
    assert json.loads(models[0].card_json)["machine_type"] == "pump"


def test_machine_type_without_model_is_judged_by_rule(serving: Platform) -> None:
    at = now_us()
    rows = [
        {"machine_id": "odd-1", "sensor": "x", "timestamp": (at - index * 10**6) / 1e6, "value": float(index % 7)}
        for index in range(40)
    ]
    assert http("POST", f"{serving.api}/api/readings", {"readings": rows}).status == 200
    prediction = http("POST", f"{serving.api}/api/predict", {"machine_id": "odd-1"}).json
    assert prediction["degraded"]
    assert "no model" in prediction["degraded_reason"]
    assert prediction["rul"] is None
    assert prediction["model_version"] is None
    assert http("GET", f"{serving.api}/api/machines/odd-1/explanation").json["factors"][0]["sensor"] == "x"


def test_too_few_readings_are_answered_with_409(serving: Platform) -> None:
    body = {"readings": [{"machine_id": "young-1", "sensor": "x", "timestamp": time.time(), "value": 1}]}
    http("POST", f"{serving.api}/api/readings", body)
    answer = http("POST", f"{serving.api}/api/predict", {"machine_id": "young-1"})
    assert answer.status == 409
    assert "too few readings" in answer.json["detail"]
    assert "12 readings of one sensor and has 1;" in answer.json["detail"]
    assert answer.json["parameters"] == {"machine_id": "young-1", "present": "1", "needed": "12"}


def test_window_is_read_from_store_once_after_restart(platform: Platform) -> None:
    """After a restart a window is read from the store once, and later ones come from memory."""
    platform.extra["AURUM_FEATURE_PREDICTIVE"] = "false"
    platform.start("ingestion")
    platform.start("api")
    first = int(time.time()) - 4000

    def send(start: int, end: int) -> None:
        readings = [
            {"machine_id": "m", "sensor": "s", "timestamp": first + number, "value": float(number)}
            for number in range(start, end)
        ]
        assert http("POST", f"{platform.api}/api/readings", {"readings": readings}).status == 200

    def window(end: int) -> list[float]:
        start = first + end - 1000
        answer = http("GET", f"{platform.api}/api/machines/m/metrics?start={start}&end={first + end}&points=200")
        (series,) = answer.json["series"]
        return [float(value) for value in series["values"]]

    def reads() -> float:
        return platform.metric("ingestion", 'db_queries_total{operation="read"')

    send(0, 3000)
    platform.processes["ingestion"].kill(signal.SIGTERM)
    platform.restart("ingestion")
    wait_for(lambda: http("GET", f"{platform.api}/api/machines/m/metrics").status == 200, 20, "it answers again")
    window(3000)
    send(3000, 3020)
    assert window(3020)
    before = reads()
    assert before > 0
    for end in range(3021, 3030):
        send(end - 1, end)
        values = window(end)
        assert len(values) == 200
        assert abs(sum(values) / 200 - (end - 500.5)) < 0.01
    assert reads() == before


def test_service_exits_with_0_within_10_s_of_sigterm(platform: Platform) -> None:
    process = platform.start("ingestion")
    series = Series("drain-1", "s", np.array([now_us()]), np.array([1.0]))
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('ingestion')}") as channel:
        stub = ingestion_pb2_grpc.IngestionServiceStub(channel)
        watching = stub.Watch(ingestion_pb2.WatchRequest(), timeout=60)
        stub.Write(ingestion_pb2.WriteRequest(batch=encode("drain", 1, [series])), timeout=5)
        assert next(watching) is not None
        started = time.monotonic()
        assert process.kill(15) == 0
        assert time.monotonic() - started < 10
    for line in process.lines():
        json.loads(line)


@pytest.mark.parametrize(
    ("service", "setting", "value", "code"),
    [("ingestion", "AURUM_INGESTION_PORT", "x", 2), ("api", "AURUM_POLICY_FILE", "/nowhere.yaml", 2)],
)
def test_invalid_setting_prevents_startup(
    platform: Platform, service: str, setting: str, value: str, code: int
) -> None:
    platform.extra[setting] = value
    process = platform.start(service, ready=False)
    assert process.popen.wait(20) == code
    assert value in process.lines()[-1] or setting in process.lines()[-1]
    assert "Traceback" not in process.log.read_text()


def test_port_in_use_is_reported_with_its_setting(platform: Platform) -> None:
    platform.start("ingestion")
    taken = platform.port("ingestion")
    second = Platform(platform.folder / "second", ports={"ingestion": taken})
    process = second.start("ingestion", ready=False)
    assert process.popen.wait(20) == 1
    assert f"port {taken}" in process.lines()[-1]
    assert "AURUM_INGESTION_PORT" in process.lines()[-1]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("DELETE", "/api/machines", "GET, POST"), ("PUT", "/api/machines/x", "GET"), ("PATCH", "/api/predict", "POST")],
)
def test_other_method_of_a_route_is_405(serving: Platform, method: str, path: str, allowed: str) -> None:
    answer = http(method, f"{serving.api}{path}", {})
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("method", "path", "named", "hint"),
    [
        ("GET", "/api/machines?sites=lab", "sites", "did you mean site"),
        ("GET", "/api/alarms?state=shelved&machine=pump-1", "machine", "did you mean machine_id"),
        ("POST", "/api/readings?timezones=UTC", "timezones", "did you mean timezone"),
        ("GET", "/api/resilience?x=1", "x", "this route has none"),
    ],
)
def test_unknown_query_parameter_is_refused(serving: Platform, method: str, path: str, named: str, hint: str) -> None:
    answer = http(method, f"{serving.api}{path}", {"readings": []} if method == "POST" else None)
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, f"query.{named}")
    assert hint in answer.json["detail"]


def test_pages_and_probes_accept_any_query_parameter(serving: Platform) -> None:
    for path in ("/?site=lab", "/alarms?view=shelved", "/health?verbose"):
        assert http("GET", f"{serving.api}{path}").status == 200


@pytest.mark.parametrize("length", [129, 5_000, 50_000])
def test_machine_id_of_any_length_is_404(serving: Platform, length: int) -> None:
    answer = http("GET", f"{serving.api}/api/machines/{'a' * length}")
    assert answer.status == 404
    assert len(answer.body) < 2000


def test_corrupt_model_costs_its_type_only(platform: Platform, models: Path) -> None:
    """A model whose file is damaged, and an empty active.json, are named; the other types have their models."""
    folder = platform.folder / "models"
    shutil.copytree(models, folder)
    shutil.copytree(folder / "pump", folder / "fan")
    (damaged,) = (folder / "fan").glob("*/rul.txt")
    damaged.write_text("tree")
    (folder / "motor").mkdir()
    (folder / "motor" / "active.json").write_text("")
    platform.start("prediction")
    ready = platform.admin("prediction", "/readyz").json
    assert ready["damaged"] == {"model": 2}
    log = "".join(platform.processes["prediction"].lines())
    assert "rul.txt is corrupt" in log
    assert "motor/active.json is not readable" in log
    with grpc.insecure_channel(f"127.0.0.1:{platform.port('prediction')}") as channel:
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        served = {
            each.machine_type for each in stub.ListModels(prediction_pb2.ListModelsRequest()).models if each.active
        }
    assert "pump" in served
    assert not served & {"fan", "motor"}
    environment = platform.environment("doctor") | {"COLUMNS": "400"}
    doctor = processes.run("doctor", environment=environment)
    (line,) = [line for line in doctor.stdout.splitlines() if line.startswith("prediction")]
    assert "2 damaged and set apart: model" in line


def test_admin_server_listens_on_configured_port(platform: Platform) -> None:
    platform.ports["edge admin"] = free_port()
    platform.start("edge")
    assert platform.admin("edge", "/livez").json == {"status": "alive", "service": "edge"}
    assert b"edge_spool_seconds_until_full" in platform.admin("edge", "/metrics").body


def test_predictions_are_kept_in_history(serving: Platform, pump: str) -> None:
    machine = f"{serving.api}/api/machines/{pump}"
    made = http("POST", f"{machine}/predict").json
    past = wait_for(
        lambda: http("GET", f"{machine}/predictions").json["items"], 20, "the prediction is in the machine's history"
    )
    assert past[0]["model_version"] == made["model_version"]
    assert {item["risk_score"] for item in past} >= {made["risk_score"]} or past[0]["as_of"] != made["as_of"]
    assert http("GET", f"{machine}/predictions?end=2001-01-01").json["items"] == []
    assert http("GET", f"{machine}/predictions?limit=0").status == 422
    assert http("GET", f"{serving.api}/api/machines/nobody/predictions").status == 404
