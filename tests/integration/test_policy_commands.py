"""`aurum policy`: what governs each call here and on a cluster, and what a proposal would change."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.support.cluster.fake_release import RELEASE, FakePod, FakeRelease
from tests.support.cluster.operator import policy
from tests.support.commands import command
from tests.support.kubernetes_api import KubernetesApi
from tests.support.ports import free_port

PREDICTION = [{"service": "prediction"}]
DOCUMENT = """
policies:
  - target: api/prediction/Predict
    retry: {maxAttempts: 7}
    circuitBreaker: {enabled: false}
  - target: api/prediction/*
    timeout: {deadline: 3s, attempt: 1500ms}
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesApi]:
    """An API server with the objects of a release, and no operator."""
    folder = tmp_path_factory.mktemp("cluster")
    running = KubernetesApi(folder)
    running.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(running.kubeconfig))
        release = FakeRelease(running.namespace, folder / "pods", {"api": 2, "prediction": 1})
    release.stop()
    running.apply(policy("patient", targetRefs=PREDICTION, retry={"maxAttempts": 5}))
    running.apply(policy("late", targetRefs=PREDICTION, retry={"maxAttempts": 6}))
    running.apply(policy("nowhere", targetRefs=[{"service": "nobody"}], retry={"maxAttempts": 2}))
    yield running
    running.stop()


def on_cluster(api: KubernetesApi, *arguments: str) -> CompletedProcess[str]:
    environment = {
        "KUBECONFIG": str(api.kubeconfig),
        "AURUM_OPERATOR_RELEASE": RELEASE,
        "AURUM_OPERATOR_DEFAULTS": "fake-policy",
    }
    return command("policy", *arguments, "--from-cluster", environment=environment)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present folder, with a policy document."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies.yaml").write_text(DOCUMENT)
    return tmp_path


def here(*arguments: str) -> CompletedProcess[str]:
    return command("policy", *arguments, environment={"AURUM_POLICY_FILE": "policies.yaml"})


def line_of(printed: str, start: str) -> str:
    (line,) = [line for line in printed.splitlines() if line.startswith(start)]
    return line


def proposal(path: Path, *bodies: dict[str, Any]) -> str:
    path.write_text("\n---\n".join(json.dumps(body) for body in bodies))
    return str(path)


def outcomes(number: int, code: str = "OK") -> str:
    return "".join(
        json.dumps({"time": index, "target": "api/prediction/Predict", "duration": 0.01, "code": code, "attempt": 1})
        + "\n"
        for index in range(number)
    )


def test_policy_get_shows_resources_and_calls_of_cluster(api: KubernetesApi) -> None:
    status = {
        "targets": "prediction",
        "converged": "1/2",
        "pods": {"laggards": [{"pod": "fake-api-1", "reason": "it hangs"}]},
        "conditions": [
            {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": ""}
        ],
    }
    api.apply({**api.get("resiliencepolicies", "patient"), "status": status})
    shown = on_cluster(api, "get")
    assert shown.returncode == 0, shown.stderr
    patient = line_of(shown.stdout, "ResiliencePolicy/patient")
    assert "True (Accepted)" in patient
    assert "not yet" in patient
    assert patient.split()[-2:] == ["1/2", "fake-api-1"]
    call = line_of(shown.stdout, "api/prediction/*")
    assert call.split()[1:5] == ["api/prediction/*", "5", "3s", "1.5s"]
    assert "ResiliencePolicy patient #1, the chart's defaults" in call
    assert "without effect: ResiliencePolicy late: Conflicted" in shown.stdout
    assert "without effect: ResiliencePolicy nowhere: TargetNotFound" in shown.stdout
    assert "\ningestion/" not in shown.stdout, "the release has no ingestion"


def test_policy_explain_names_origin_of_each_value(api: KubernetesApi) -> None:
    explained = on_cluster(api, "explain", "api", "prediction", "Predict")
    assert explained.returncode == 0, explained.stderr
    assert line_of(explained.stdout, "retry.maxAttempts").split()[1:] == ["5", "ResiliencePolicy", "patient", "#1"]
    assert line_of(explained.stdout, "timeout.deadline").split()[1:] == ["3s", "the", "chart's", "defaults"]
    assert line_of(explained.stdout, "circuitBreaker.enabled").split()[1:] == ["true", "default"]


def test_policy_diff_on_cluster_shows_what_a_proposal_changes(api: KubernetesApi, tmp_path: Path) -> None:
    path = tmp_path / "proposal.yaml"
    proposed = policy("patient", targetRefs=PREDICTION, retry={"maxAttempts": 1})
    added = policy("calm", targetRefs=PREDICTION, bulkhead={"maxConcurrent": 9})
    changes = on_cluster(api, "diff", proposal(path, proposed, added))
    assert changes.returncode == 1
    assert "--- api, in force" in changes.stdout
    assert "-    maxAttempts: 5" in changes.stdout
    assert "+    maxAttempts: 1" in changes.stdout
    assert "+    maxConcurrent: 9" in changes.stdout
    assert "without effect: ResiliencePolicy late: Conflicted" in changes.stderr
    same = on_cluster(api, "diff", proposal(path, policy("patient", targetRefs=PREDICTION, retry={"maxAttempts": 5})))
    assert (same.returncode, same.stdout) == (0, "")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kind": "Pod"}, "document 0 is not a ResiliencePolicy or TelemetryPolicy of aurumai.io"),
        ({**policy("p"), "apiVersion": "v1"}, "document 0 is not a ResiliencePolicy"),
        ({**policy("p"), "metadata": {"name": 7}}, "document 0 has no metadata.name"),
        ({**policy("p"), "metadata": None}, "document 0 has no metadata.name"),
        ({**policy("p"), "spec": ["retry"]}, "document 0: spec is not a mapping"),
    ],
    ids=["another kind", "another group", "a number as name", "no metadata", "a list as spec"],
)
def test_policy_diff_refuses_what_is_no_resource(
    api: KubernetesApi, tmp_path: Path, body: dict[str, Any], said: str
) -> None:
    refused = on_cluster(api, "diff", proposal(tmp_path / "proposal.yaml", body))
    assert refused.returncode == 2
    assert said in refused.stderr


def test_policy_diff_names_a_file_that_is_no_yaml(api: KubernetesApi, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("kind: [ResiliencePolicy")
    refused = on_cluster(api, "diff", str(path))
    assert refused.returncode == 2
    assert str(path) in refused.stderr


def test_policy_simulate_replays_calls_on_cluster_policies(api: KubernetesApi, tmp_path: Path) -> None:
    trace = tmp_path / "outcomes.jsonl"
    trace.write_text(outcomes(4, "UNAVAILABLE"))
    arguments = ("--trace", str(trace), "--json")
    present = on_cluster(api, "simulate", *arguments)
    assert present.returncode == 0, present.stderr
    once = policy("patient", targetRefs=PREDICTION, retry={"maxAttempts": 1})
    proposed = on_cluster(api, "simulate", proposal(tmp_path / "proposal.yaml", once), *arguments)
    attempts = [json.loads(each.stdout)["targets"]["api/prediction"]["attempts"] for each in (present, proposed)]
    assert attempts[0] > attempts[1] == 4


def test_policy_commands_name_a_cluster_that_refuses(api: KubernetesApi) -> None:
    api.refused["GET", "pods"] = 403
    try:
        refused = on_cluster(api, "get")
    finally:
        api.refused.clear()
    assert refused.returncode == 1
    assert "pods are refused" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_policy_commands_without_a_cluster_say_so(tmp_path: Path) -> None:
    failed = command("policy", "get", "--from-cluster", environment={"KUBECONFIG": str(tmp_path / "nothing")})
    assert failed.returncode == 1
    assert failed.stderr.startswith("aurum: ")
    assert "Traceback" not in failed.stderr


def test_policy_get_shows_a_document_per_method(folder: Path) -> None:
    shown = here("get", "api")
    assert shown.returncode == 0, shown.stderr
    predict = line_of(shown.stdout, "api/prediction/Predict ")
    assert predict.split()[1:3] == ["api/prediction/Predict", "7"]
    assert " off " in predict
    other = line_of(shown.stdout, "api/prediction/*")
    assert other.split()[3:5] == ["3s", "1.5s"]
    assert "policies.yaml: api/prediction/*" in other
    assert "the settings" in line_of(shown.stdout, "api/ingestion/*")
    assert not [line for line in shown.stdout.splitlines() if line.startswith("prediction/")]


def test_policy_explain_refuses_a_call_that_nobody_makes(folder: Path) -> None:
    explained = here("explain", "api", "prediction", "Predict")
    assert line_of(explained.stdout, "retry.maxAttempts").split()[1] == "7"
    assert "api/prediction/Predict matches api/prediction/Predict" in explained.stdout
    refused = here("explain", "ingestion", "api")
    assert refused.returncode == 2
    assert "ingestion does not call api" in refused.stderr


def test_policy_diff_compares_documents(folder: Path) -> None:
    proposed = folder / "proposed.yaml"
    proposed.write_text(DOCUMENT.replace("maxAttempts: 7", "maxAttempts: 2"))
    changes = here("diff", str(proposed))
    assert changes.returncode == 1
    assert "-    maxAttempts: 7" in changes.stdout
    assert "+    maxAttempts: 2" in changes.stdout
    proposed.write_text(DOCUMENT)
    same = here("diff", str(proposed))
    assert (same.returncode, same.stdout) == (0, "")


def test_policy_check_warns_of_policies_without_effect(folder: Path) -> None:
    path = folder / "checked.yaml"
    path.write_text(
        "uid: mine\npolicies: [{target: api/prediction/*}, {target: api/predicton/*}, {target: api/prediction/Predict}]"
    )
    checked = command("policy", "check", "checked.yaml")
    assert checked.returncode == 0, checked.stderr
    assert "policies[1].target: 'api/predicton/*' matches no call of this platform" in checked.stdout
    assert "policies[2].target: 'api/prediction/Predict' is never used" in checked.stdout
    assert "checked.yaml: 3 policies, uid mine, generation 0, hash " in checked.stdout


def test_policy_simulate_prints_a_column_per_target(folder: Path) -> None:
    trace = folder / "outcomes.jsonl.gz"
    trace.write_bytes(gzip.compress(outcomes(5).encode()))
    shown = command("policy", "simulate", "policies.yaml", "--trace", str(trace))
    assert shown.returncode == 0, shown.stderr
    assert "api/prediction" in shown.stdout.splitlines()[0]
    assert line_of(shown.stdout, "calls").split()[-1] == "5"
    assert line_of(shown.stdout, "success, with this policy").split()[-1] == "100.00%"
    assert "5 calls replayed in" in shown.stdout
    without = command("policy", "simulate", "--trace", str(trace))
    assert without.returncode == 2
    assert "a policy document is needed" in without.stderr


def test_policy_simulate_reads_outcomes_from_stdin(folder: Path) -> None:
    shown = command("policy", "simulate", "policies.yaml", "--trace", "-", "--json", given=outcomes(3).encode())
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["calls"] == 3
    broken = command("policy", "simulate", "policies.yaml", "--trace", "-", given=b"nothing\n")
    assert broken.returncode == 2
    assert "stdin" in broken.stderr


def test_policy_show_tells_refusals_and_silent_services(folder: Path) -> None:
    running, refusing = (FakePod(service, f"{service}-0", folder / service) for service in ("api", "prediction"))
    refusing.refuses = True
    for pod in (running, refusing):
        pod.load({"policies.yaml": DOCUMENT}, "stable")
    addresses = {"api": running.port, "prediction": refusing.port, "ingestion": free_port()}
    targets = ",".join(f"{name}=127.0.0.1:{port}" for name, port in addresses.items())
    environment = {"AURUM_ADMIN_TARGETS": targets}
    try:
        shown = command("policy", "show", environment=environment)
        well = command("policy", "show", "api", environment=environment)
        told = command("policy", "show", "api", "--json", environment=environment)
    finally:
        for pod in (running, refusing):
            pod.stop()
    assert shown.returncode == 1
    assert running.policies.document.content_hash in line_of(shown.stdout, "api ")
    assert "prediction refuses the latest document: " in shown.stdout
    assert f"ingestion: 127.0.0.1:{addresses['ingestion']} does not answer" in shown.stdout
    assert (well.returncode, told.returncode) == (0, 0)
    assert list(json.loads(told.stdout)) == ["api"]
