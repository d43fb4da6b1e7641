"""Secrets that are planted in every place that takes one, and looked for in everything that comes out."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from aurum.security.api_keys import KeyFile, make_key, write_keys
from tests.support.http import http
from tests.support.otlp_receiver import Receiver
from tests.support.platform import Platform
from tests.support.ports import free_port
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
PASSWORD, SESSION, PROVIDER = "planted-store-password-1", "planted-session-secret-" + "2" * 20, "planted-provider-key-3"


def test_secrets_leak_into_no_log_span_metric_or_answer(platform: Platform) -> None:
    """Secrets given to the services appear in no log, span, metric, policy or answer."""
    key, record = make_key("planted", ("admin",))
    write_keys(platform.folder / "keys.yaml", KeyFile(keys=(record,)))
    receiver, port = Receiver(), free_port()
    collector = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, collector)
    collector.add_insecure_port(f"127.0.0.1:{port}")
    collector.start()
    platform.extra |= {
        "AURUM_AUTH_KEYS_FILE": str(platform.folder / "keys.yaml"),
        "AURUM_AUDIT_FILE": str(platform.folder / "audit.log"),
        "AURUM_AUTH_SESSION_SECRET": SESSION,
        "AURUM_STORE_PASSWORD": PASSWORD,
        "AURUM_SUSTAINABILITY_PROVIDER_KEY": PROVIDER,
        "AURUM_LOG_LEVEL": "DEBUG",
        "AURUM_TRACING_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "AURUM_TRACING_EXPORT_INTERVAL": "0.2",
        "AURUM_FEATURE_PREDICTIVE": "false",
    }
    platform.start("ingestion")
    platform.start("api")
    token = "planted.token." + "4" * 40
    answers = [
        http("GET", f"{platform.api}/api/machines", headers={"X-API-Key": key}),
        http("GET", f"{platform.api}/api/machines", headers={"Authorization": f"Bearer {key}"}),
        http("GET", f"{platform.api}/api/machines", headers={"Authorization": f"Bearer {token}"}),
        http("POST", f"{platform.api}/api/session", {"credential": key}),
        http("POST", f"{platform.api}/api/session", {"credential": token}),
        http("POST", f"{platform.api}/api/session", {"credential": key, "more": key}),
        http("GET", f"{platform.api}/api/console", headers={"X-API-Key": key}),
        http("GET", f"{platform.api}/api/platform", headers={"X-API-Key": key}),
    ]
    cookie = answers[3].headers["set-cookie"].partition(";")[0]
    answers.append(http("GET", f"{platform.api}/api/machines", headers={"Cookie": cookie}))
    assert [each.status for each in answers] == [200, 200, 401, 200, 401, 422, 200, 200, 200]
    wait_for(lambda: len(receiver.spans) > 10, 15, "spans")
    outlets = {f"answer {number}": each.body.decode() for number, each in enumerate(answers)}
    outlets |= {log.name: log.read_text() for log in platform.folder.glob("*.log")}
    outlets |= {f"metrics of {each}": platform.admin(each, "/metrics").body.decode() for each in ("api", "ingestion")}
    outlets |= {f"policies of {each}": platform.admin(each, "/policy").body.decode() for each in ("api", "ingestion")}
    outlets["spans"] = json.dumps(
        [[span.name, {k: str(v) for k, v in span.attributes.items()}] for span in receiver.spans]
    )
    collector.stop(0)
    secrets = [key.split("_", 2)[2], token, SESSION, PASSWORD, PROVIDER, cookie.partition("=")[2]]
    found = [(name, secret[:12]) for name, text in outlets.items() for secret in secrets if secret in text]
    assert found == []


def test_repository_contains_no_secret() -> None:
    """No tracked file contains a private key, an API key or an AWS key."""
    import re

    looks = re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/]{20}|aurum_[a-z2-7]{10}_[A-Za-z0-9_\-]{43}|AKIA[0-9A-Z]{16}"
    )
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    wrong = [
        name
        for name in files.split("\0")
        if name and (ROOT / name).is_file() and looks.search((ROOT / name).read_text(errors="replace"))
    ]
    assert wrong == []


def test_docker_context_excludes_local_state() -> None:
    """.dockerignore keeps git history, environment and state out of the build context of images."""
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {"*", "**"} & set(ignored) or {".git", ".venv", ".aurum"} <= {each.strip("/") for each in ignored}
