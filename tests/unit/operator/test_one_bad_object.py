"""One object that is refused, hangs or makes no sense holds up no other: neither others' policies nor a rollback."""

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from aurum.operator.cluster_snapshot import Resource
from aurum.operator.informer_cache import InformerCache
from aurum.operator.leadership import DURATION
from aurum.runtime.policy.files import DEFAULTS, IN_FORCE
from tests.support.operator_api import Plant, PlayedPod, Weather


@pytest.fixture
def plant() -> Iterator[Plant]:
    """An operator leads, and everything is as it is to be."""
    made = Plant(1)
    made.start_operators()
    made.advance(8)
    yield made
    made.close()


def apply(plant: Plant, name: str, refs: list[dict[str, str]], **parts: Any) -> dict[str, Any]:
    known = plant.api.objects.get(("ResiliencePolicy", name), {})
    metadata = known.get("metadata", {})
    changed = {**metadata, "generation": metadata.get("generation", 0) + 1}
    return plant.api.put(
        "ResiliencePolicy", name, {**known, "metadata": changed, "spec": {"targetRefs": refs, **parts}}
    )


def condition(plant: Plant, name: str, kind: str) -> dict[str, Any]:
    status = plant.api.objects["ResiliencePolicy", name].get("status", {})
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})


def attempts_of(pod: PlayedPod, server: str = "prediction") -> int | None:
    found = pod.document.for_call(pod.service, server, "*")
    return found.retry.max_attempts if found else None


PREDICTION = [{"service": "prediction"}]
INGESTION = [{"service": "ingestion"}]


@pytest.mark.parametrize("code", [422, 403, 409, 500, 0])
def test_refused_config_map_holds_up_no_other(plant: Plant, code: int) -> None:
    plant.api.refused["ConfigMap", "aurumai-prediction-policy"] = code
    apply(plant, "wide", INGESTION, retry={"maxAttempts": 7})
    apply(plant, "other", PREDICTION, retry={"maxAttempts": 6})
    plant.advance(20)
    assert [attempts_of(pod, "ingestion") for pod in plant.pods.values() if pod.service == "api"] == [7] * 3
    assert [attempts_of(pod) for pod in plant.pods.values() if pod.service == "api"] == [6] * 3
    assert condition(plant, "other", "Converged")["status"] == "True"
    pending = condition(plant, "wide", "Programmed")
    assert (pending["status"], pending["reason"]) == ("False", "Pending")
    assert (
        "the ConfigMap of prediction is refused, " + (str(code) if code else "no answer within 4 s")
        in pending["message"]
    )
    del plant.api.refused["ConfigMap", "aurumai-prediction-policy"]
    plant.advance(60)
    assert condition(plant, "wide", "Converged")["status"] == "True"


@pytest.mark.parametrize("refused", [422, 0])
@pytest.mark.parametrize("service", ["api", "prediction"])
def test_rollback_is_not_held_up_by_refused_config_map(plant: Plant, refused: int, service: str) -> None:
    rollout = {"steps": [34, 100], "pause": "60s"}
    apply(plant, "tried", INGESTION, retry={"maxAttempts": 2}, rollout=rollout)
    plant.advance(150)
    assert condition(plant, "tried", "Converged")["status"] == "True"
    body = apply(plant, "tried", INGESTION, retry={"maxAttempts": 9}, rollout=rollout)
    plant.advance(5)
    assert [attempts_of(pod, "ingestion") for pod in plant.pods.values()].count(9) == 3  # one of api, prediction, edge
    plant.api.refused["ConfigMap", f"aurumai-{service}-policy"] = refused
    apply(plant, "other", PREDICTION, retry={"maxAttempts": 6})  # a request that is refused, or hangs
    plant.advance(3)
    plant.harmful.add((body["metadata"]["uid"], body["metadata"]["generation"]))
    for each in plant.operators:
        if each.leads_since is not None:
            each.nudged.set()
    plant.advance(2)
    assert [attempts_of(pod, "ingestion") for pod in plant.pods.values()].count(9) == 0
    plant.advance(5)
    assert condition(plant, "tried", "RolledBack")["status"] == "True"


def test_candidate_that_stays_in_a_config_map_reaches_no_pod(plant: Plant) -> None:
    rollout = {"steps": [34, 100], "pause": "60s"}
    body = apply(plant, "harmful", PREDICTION, retry={"maxAttempts": 9}, rollout=rollout)
    plant.advance(5)
    apply(plant, "next", [{"service": "ingestion", "client": "api"}], bulkhead={"maxConcurrent": 5}, rollout=rollout)
    plant.api.refused["ConfigMap", "aurumai-api-policy"] = 422
    plant.advance(3)
    assert [attempts_of(pod) for pod in plant.pods.values()].count(9) == 2
    plant.harmful.add((body["metadata"]["uid"], body["metadata"]["generation"]))
    for _ in range(20):  # the rollout that waited begins, with other pods
        for each in plant.operators:
            if each.leads_since is not None:
                each.nudged.set()
        plant.advance(2)
    assert [attempts_of(pod) for pod in plant.pods.values()].count(9) == 0
    del plant.api.refused["ConfigMap", "aurumai-api-policy"]
    plant.advance(200)
    assert condition(plant, "next", "Converged")["status"] == "True"
    assert [attempts_of(pod) for pod in plant.pods.values()].count(9) == 0


def test_refused_pod_and_events_hold_up_no_other(plant: Plant) -> None:
    plant.api.refused["Pod", "api-0"] = 422
    plant.api.refused["Event", "any"] = 403
    apply(plant, "other", PREDICTION, retry={"maxAttempts": 6})
    plant.advance(10)
    assert [attempts_of(plant.pods[f"api-{number}"]) for number in range(3)] == [3, 6, 6]
    (laggard,) = plant.api.objects["ResiliencePolicy", "other"]["status"]["pods"]["laggards"]
    assert laggard["pod"] == "api-0"
    assert 'it cannot be annotated: 422: Pod "api-0" is refused' in laggard["reason"]


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        (("Pod", "api-0"), 24),  # refused at 21.7 s, and to be repeated at 28.1 s
        (("ConfigMap", "aurumai-api-policy"), 30),  # refused at 25.4 s, and to be repeated at 51 s
    ],
    ids=["Pod", "ConfigMap"],
)
def test_new_content_waits_for_no_earlier_backoff(plant: Plant, what: tuple[str, str], seconds: float) -> None:
    """An object that was refused for long gets a change as soon as the others, since rollbacks must not wait."""
    plant.api.refused[what] = 422
    apply(plant, "other", PREDICTION, retry={"maxAttempts": 6})
    plant.advance(seconds)
    del plant.api.refused[what]
    apply(plant, "other", PREDICTION, retry={"maxAttempts": 7})
    plant.advance(2)
    assert attempts_of(plant.pods["api-0"]) == 7


def test_failing_objects_are_counted_until_accepted(plant: Plant) -> None:
    """Without a gap, since the alert looks at the least value of a minute."""

    def failing() -> float | None:
        return REGISTRY.get_sample_value("operator_objects_failing", {"kind": "configmap"})

    plant.api.refused["ConfigMap", "aurumai-api-policy"] = 422
    apply(plant, "other", PREDICTION, retry={"maxAttempts": 6})
    plant.advance(1)
    for _ in range(120):
        plant.advance(0.5)
        assert failing() == 1
    del plant.api.refused["ConfigMap", "aurumai-api-policy"]
    plant.advance(31)
    assert failing() == 0


def test_refused_status_holds_up_no_other(plant: Plant) -> None:
    plant.api.refused["ResiliencePolicy/status", "first"] = 422
    apply(plant, "first", INGESTION, retry={"maxAttempts": 7})
    apply(plant, "other", PREDICTION, retry={"maxAttempts": 6})
    plant.advance(15)
    assert attempts_of(plant.pods["api-0"], "ingestion") == 7
    assert condition(plant, "other", "Converged")["status"] == "True"


def test_state_before_an_etcd_restore_is_forgotten(plant: Plant) -> None:
    apply(plant, "p", PREDICTION, retry={"maxAttempts": 4})
    plant.advance(10)
    backup = plant.back_up()
    for number in (5, 6, 7, 8):
        apply(plant, "p", PREDICTION, retry={"maxAttempts": number})
        plant.advance(10)
    assert attempts_of(plant.pods["api-0"]) == 8
    plant.restore(*backup)
    plant.advance(12)  # the watch begins anew, and shows that a list is due before the next one would be
    assert attempts_of(plant.pods["api-0"]) == 4
    assert condition(plant, "p", "Converged")["status"] == "True"


def test_answer_of_a_list_is_not_older_than_the_question() -> None:
    def body(version: int, attempts: int) -> dict[str, Any]:
        metadata = {"name": "p", "uid": "1", "resourceVersion": str(version)}
        return {"kind": "ResiliencePolicy", "metadata": metadata, "spec": {"retry": {"maxAttempts": attempts}}}

    def known(store: InformerCache) -> list[int]:
        return [each.spec["retry"]["maxAttempts"] for each in store.resources]

    store = InformerCache("defaults")
    store.update_resource(body(1000, 1))
    asked = store.current_moment()
    store.replace_all([body(7, 2)], [], [], asked)
    assert known(store) == [2], "the list left later, whatever its version is"
    asked = store.current_moment()
    store.update_resource(body(9, 3))
    store.replace_all([body(8, 2)], [], [], asked)
    assert known(store) == [3], "an event came while the list was on its way"
    asked = store.current_moment()
    store.update_resource(body(10, 3), deleted=True)
    store.replace_all([body(9, 3)], [], [], asked)
    assert known(store) == [], "it was deleted while the list was on its way"
    asked = store.current_moment()
    store.update_resource({**body(12, 4), "metadata": {"name": "q", "uid": "2", "resourceVersion": "12"}})
    store.replace_all([], [], [], asked)
    assert known(store) == [4], "it was made while the list was on its way"
    store.replace_all([], [], [], store.current_moment())
    assert known(store) == []


@pytest.mark.parametrize("broken", [{}, {"metadata": None}, {"metadata": {"name": "x"}}, {"metadata": {"uid": "x"}}])
def test_object_that_makes_no_sense_is_left_out(broken: dict[str, Any]) -> None:
    store = InformerCache("defaults")
    good = {"kind": "ResiliencePolicy", "metadata": {"name": "p", "uid": "1"}, "spec": {}}
    store.replace_all([broken, good], [broken], [broken])
    assert [each.name for each in store.resources] == ["p"]
    assert store.problems
    store.replace_all([good], [], [])
    assert not store.problems


def test_senseless_parts_of_a_foreign_status_are_left_out() -> None:
    body = {
        "kind": "ResiliencePolicy",
        "metadata": {"name": "p", "uid": "1"},
        "status": {"conditions": [{"type": "Accepted"}, 7], "lastGood": {"generation": "x"}, "rollout": "?"},
    }
    assert Resource.from_json(body).status == {"conditions": [], "rollout": "?"}


def test_unusable_defaults_stop_neither_pods_nor_policies(plant: Plant) -> None:
    plant.api.put("ConfigMap", "aurumai-defaults", {"metadata": {}, "data": {DEFAULTS: "policies: [{target: x}]"}})
    apply(plant, "other", PREDICTION, retry={"maxAttempts": 6})
    plant.advance(10)
    assert attempts_of(plant.pods["api-0"]) == 6
    assert "its last good policies stay" in condition(plant, "other", "Programmed")["message"]
    before = plant.api.objects["ConfigMap", "aurumai-api-policy"]["data"]
    for each in plant.operators:
        each.kill()
    plant.start_operators()
    apply(plant, "other", PREDICTION, retry={"maxAttempts": 7})
    plant.advance(40)
    assert plant.api.objects["ConfigMap", "aurumai-api-policy"]["data"] == before, "nothing good is known to merge with"
    assert condition(plant, "other", "Programmed")["reason"] == "Pending"
    assert "aurumai-defaults: policies[0].target" in condition(plant, "other", "Programmed")["message"]


def test_config_map_that_is_always_changed_is_written_seldom(plant: Plant) -> None:
    written = 0
    change = plant.api.change

    def changed(kind: str, name: str, body: dict[str, Any], *, status: bool) -> dict[str, Any]:
        nonlocal written
        if kind == "ConfigMap":
            written += 1
            body = {**body, "data": {IN_FORCE: "generation: 1"}}
        return change(kind, name, body, status=status)

    plant.api.change = changed  # type: ignore[method-assign]
    apply(plant, "other", PREDICTION, retry={"maxAttempts": 6})
    plant.advance(20)
    assert written < 100


@pytest.mark.parametrize("weather", [Weather(slow=1.0), Weather(unanswered=1.0), Weather(late=1.0), Weather(lost=1.0)])
def test_lease_has_one_holder_in_any_weather(weather: Weather, plant: Plant) -> None:
    for seconds in (4, 9, 3 * DURATION, 60):
        for each in plant.operators:
            each.weather = weather if each.leads_since is not None else Weather()
            each.client.weather = each.weather
        for number in range(seconds.__ceil__()):
            plant.start_operators()
            apply(plant, "p", PREDICTION, retry={"maxAttempts": 2 + number % 7})
            plant.advance(1)
    assert plant.api.objects["Lease", "operator"]["spec"]["holderIdentity"]
