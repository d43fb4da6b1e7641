"""Each example runs as its README says."""

import os
import subprocess
import sys
from pathlib import Path

from aurum.alarms.rules import load_rules
from aurum.runtime.policy.document import load_platform_document
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(*arguments: str, **environment: str) -> str:
    command = [sys.executable, *arguments]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_example_device_sends_readings(platform: Platform) -> None:
    platform.start("ingestion")
    platform.start("prediction")
    platform.start("api")
    printed = run("examples/device.py", f"127.0.0.1:{platform.port('ingestion')}", "press-1", "2")
    assert "is stored (sequence 2)" in printed
    wait_for(lambda: http("GET", f"{platform.api}/api/machines/press-1").status == 200, 20, "the device's machine")
    series = http("GET", f"{platform.api}/api/machines/press-1/metrics?sensor=temperature&points=0").json["series"]
    assert len(series[0]["values"]) == 2


def test_example_training_explains_a_prediction() -> None:
    printed = run("examples/train.py", EXAMPLE_MACHINES="8", EXAMPLE_ROUNDS="10")
    assert "risk_ece" in printed
    assert ": risk " in printed


def test_example_alarm_rules_have_every_condition() -> None:
    rules = load_rules(EXAMPLES / "alarm_rules.yaml").rules
    conditions = ("risk", "rul", "anomaly", "sensor", "rate", "stale")
    assert {name for rule in rules for name in conditions if getattr(rule, name)} == set(conditions)


def test_example_policies_have_every_kind_and_no_warning() -> None:
    document = load_platform_document(EXAMPLES / "policies.yaml")
    assert document.warnings() == []
    parts = {name for policy in document.policies for name in policy.model_fields_set}
    assert parts >= {"retry", "hedge", "circuit_breaker", "timeout", "bulkhead", "adaptive_concurrency", "fallback"}
    assert document.servers
    assert document.shadows
    assert document.telemetry


def test_every_example_is_listed() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"({path.name})" in readme for path in EXAMPLES.iterdir() if path.suffix in {".py", ".yaml"})
