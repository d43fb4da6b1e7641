"""Acts are OTel log events too, in the trace of the request that they were done by."""

import asyncio
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc

from aurum.runtime.audit import Act, AuditLog
from aurum.runtime.errors import UnavailableError
from aurum.security.identity import EVERYBODY
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.ports import free_port
from tests.support.waiting import wait_for


class Receiver(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self) -> None:
        self.events: list[tuple[dict[str, str], Any]] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        for resource in request.resource_logs:
            described = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.events += [(described, record) for scope in resource.scope_logs for record in scope.log_records]
        return logs_service_pb2.ExportLogsServiceResponse()


def test_act_is_exported_as_log_event_of_its_trace(platform: Platform) -> None:
    """An act is exported as an OTel log event of its request's trace, also right before a stop."""
    receiver, port = Receiver(), free_port()
    collector = grpc.server(ThreadPoolExecutor(2))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(receiver, collector)
    collector.add_insecure_port(f"127.0.0.1:{port}")
    collector.start()
    platform.extra |= {
        "AURUM_TRACING_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "AURUM_TRACING_EXPORT_INTERVAL": "0.2",
        "AURUM_FEATURE_PREDICTIVE": "false",
    }
    platform.start("ingestion")
    platform.start("api")
    made = http("POST", f"{platform.api}/api/machines", {"machine_id": "pump-1", "machine_type": "pump"})
    assert made.status == 201

    def registered() -> list[tuple[dict[str, str], Any]]:
        return [each for each in receiver.events if "machine.register" in each[1].body.string_value]

    service, event = wait_for(registered, 15, "the event")[0]
    assert service["service.name"] == "api"
    assert abs(event.time_unix_nano / 1e9 - time.time()) < 60
    assert event.event_name == "aurum.audit"
    assert event.trace_id.hex() == made.headers["x-trace-id"]
    said = {each.key: each.value for each in event.attributes}
    assert said["audit.user_id"].string_value == "anonymous"
    assert said["audit.subject"].string_value == "pump-1"
    assert said["audit.outcome"].string_value == "done"
    after = {each.key: each.value.string_value for each in said["audit.after"].kvlist_value.values}
    assert after["machine_type"] == "pump"
    # One that ends has told all
    http("POST", f"{platform.api}/api/machines", {"machine_id": "pump-2", "machine_type": "pump"})
    platform.processes["api"].popen.terminate()
    assert platform.processes["api"].popen.wait(15) == 0
    assert any("pump-2" in each[1].body.string_value for each in receiver.events)
    collector.stop(0)


def test_missing_collector_loses_no_audit_record(platform: Platform) -> None:
    """Without a collector acts are kept in the audit file, and lost events are counted."""
    platform.extra |= {
        "AURUM_TRACING_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "AURUM_TRACING_EXPORT_INTERVAL": "0.2",
        "AURUM_AUDIT_FILE": str(platform.folder / "audit.log"),
        "AURUM_FEATURE_PREDICTIVE": "false",
    }
    platform.start("ingestion")
    platform.start("api")
    assert http("POST", f"{platform.api}/api/machines", {"machine_id": "pump-1", "machine_type": "pump"}).status == 201
    assert "pump-1" in (platform.folder / "audit.log").read_text()

    def dropped() -> bool:
        lines = platform.admin("api", "/metrics").body.decode().splitlines()
        return any(line.startswith("audit_events_dropped_total") and line.split()[1] != "0.0" for line in lines)

    wait_for(dropped, 30, "the event is counted as lost to the collector")


def post_and_hang_up(port: int, path: str, body: dict[str, Any], seconds: float) -> None:
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode() + content)
        time.sleep(seconds)


def test_caller_that_hangs_up_leaves_no_act_without_line(platform: Platform) -> None:
    """Whenever a caller hangs up, what was done is in the audit log, and a machine that is registered is shown."""
    platform.extra |= {
        "AURUM_AUDIT_FILE": str(platform.folder / "audit.jsonl"),
        "AURUM_FEATURE_PREDICTIVE": "false",
    }
    platform.start("ingestion")
    platform.start("api")
    names = [f"gone-{number}" for number in range(40)]
    for number, name in enumerate(names):
        body = {"machine_id": name, "machine_type": "pump"}
        post_and_hang_up(platform.port("api"), "/api/machines", body, 0.001 + 0.0004 * number)

    def settled() -> bool:
        lines = (platform.folder / "audit.jsonl").read_text().splitlines()
        done = {act["subject"] for act in map(json.loads, lines) if act["outcome"] == "done"}
        registered = set()
        for name in names:
            again = http("POST", f"{platform.api}/api/machines", {"machine_id": f"{name}", "machine_type": "motor"})
            if again.status == 409:
                registered.add(name)
                assert http("GET", f"{platform.api}/api/machines/{name}").json["machine_type"] == "pump"
        return bool(registered) and {name for name in registered if name not in done} == set()

    wait_for(settled, 20, "each registered machine has its line")


def test_nothing_is_changed_while_the_audit_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An act that could not be recorded is refused before it is done."""
    audit = AuditLog(tmp_path / "audit.jsonl")
    done: list[str] = []

    async def act(name: str) -> None:
        async def work(_: Act) -> None:
            done.append(name)

        await audit.perform(EVERYBODY, "test.act", name, work)

    asyncio.run(act("before"))
    monkeypatch.setattr("aurum.runtime.audit._LEAST_FREE", 2**62)
    with pytest.raises(UnavailableError, match="audit log"):
        asyncio.run(act("full"))
    assert done == ["before"]
    assert [json.loads(line)["subject"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()] == ["before"]
