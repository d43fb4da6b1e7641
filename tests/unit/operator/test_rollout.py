"""A new generation reaches a few pods first, and is taken back when it does harm."""

from hypothesis import given
from hypothesis import strategies as st

from aurum.operator.cluster_snapshot import GuardFinding, Pod
from aurum.operator.rollout import exposed_pods
from tests.support.operator_world import Simulated

ROLLOUT = {"steps": [25, 50, 100], "pause": "10s"}
FINE = GuardFinding(False, "error ratio: 0")


def spec(attempts: int) -> dict:
    return {"targetRefs": [{"service": "prediction"}], "retry": {"maxAttempts": attempts}, "rollout": ROLLOUT}


def started() -> tuple[Simulated, str]:
    """Eight API pods; generation 2 begins to roll out over generation 1."""
    simulated = Simulated({"api": 8, "prediction": 1, "ingestion": 1}, guarded=True)
    uid = simulated.apply("policy", spec(2))
    simulated.findings[uid] = FINE
    for _ in range(12):
        simulated.step()
        simulated.now += 6
    assert simulated.resources["policy"].status["rollout"]["state"] == "Complete"
    simulated.apply("policy", spec(3))
    del simulated.findings[uid]
    return simulated, uid


def attempts_of_pods(simulated: Simulated) -> list[int]:
    service = simulated.plan().services["api"]
    found = []
    for pod in simulated.pods:
        if pod.service == "api":
            policy = service.document_of(pod).for_call("api", "prediction", "Predict")
            assert policy
            found.append(policy.retry.max_attempts)
    return sorted(found)


def test_rollout_advances_stepwise_while_guard_is_quiet() -> None:
    simulated, uid = started()
    simulated.step()
    assert attempts_of_pods(simulated) == [2] * 6 + [3] * 2
    simulated.findings[uid] = FINE
    simulated.step()
    simulated.now += 9
    simulated.step()
    assert attempts_of_pods(simulated) == [2] * 6 + [3] * 2, "the pause is not over"
    assert simulated.conditions("policy")["Programmed"] == ("True", "RollingOut")
    simulated.now += 2
    simulated.step()
    assert attempts_of_pods(simulated) == [2] * 4 + [3] * 4
    for _ in range(6):
        simulated.now += 6
        simulated.step()
    assert attempts_of_pods(simulated) == [3] * 8
    status = simulated.resources["policy"].status
    assert (status["rollout"]["state"], status["converged"]) == ("Complete", "8/8")
    assert status["lastGood"]["generation"] == 2


def test_burning_guard_rolls_back_until_spec_changes() -> None:
    simulated, uid = started()
    simulated.step()
    simulated.step()
    simulated.findings[uid] = GuardFinding(True, "a share of 0.4 of the calls fails, more than 0.05")
    simulated.step()
    assert attempts_of_pods(simulated) == [2] * 8
    for _ in range(5):
        simulated.now += 60
        simulated.findings[uid] = FINE
        simulated.step()
    assert attempts_of_pods(simulated) == [2] * 8
    assert simulated.conditions("policy")["RolledBack"] == ("True", "GuardBurned")
    assert "a share of 0.4 of the calls fails" in simulated.message("policy", "RolledBack")
    assert "generation 1 again" in simulated.message("policy", "RolledBack")
    simulated.apply("policy", spec(4))
    del simulated.findings[uid]
    simulated.step()
    assert attempts_of_pods(simulated) == [2] * 6 + [4] * 2
    simulated.step()
    assert "RolledBack" not in simulated.conditions("policy")


def test_rollout_waits_for_undecided_guard() -> None:
    simulated, uid = started()
    simulated.findings[uid] = GuardFinding(None, "Prometheus cannot be asked: it is away")
    for _ in range(5):
        simulated.step()
        simulated.now += 60
    assert attempts_of_pods(simulated) == [2] * 6 + [3] * 2
    assert "Prometheus cannot be asked" in simulated.message("policy", "Programmed")


def test_refusing_pod_rolls_back_the_rollout() -> None:
    simulated, uid = started()
    made = simulated.step(follow=False)
    service = made.services["api"]
    refusing = next(pod for pod in simulated.pods if pod.uid in service.exposed)
    old = simulated.reports[refusing.uid]
    assert service.candidate
    simulated.reports[refusing.uid] = type(old)(
        0.0, None, old.hash, old.generation, old.sources, "it is wrong", service.candidate.generation
    )
    simulated.findings[uid] = FINE
    simulated.step(follow=False)
    assert simulated.conditions("policy")["RolledBack"] == ("True", "GuardBurned")
    assert "a pod refused it: it is wrong" in simulated.message("policy", "RolledBack")


def test_only_refusal_of_current_change_rolls_back() -> None:
    simulated, uid = started()
    service = simulated.step(follow=False).services["api"]
    assert service.candidate
    refusing = [pod for pod in simulated.pods if pod.uid in service.exposed][-1]
    old = simulated.reports[refusing.uid]

    def refuses(generation: int) -> None:
        simulated.reports[refusing.uid] = type(old)(
            0.0, None, old.hash, old.generation, old.sources, "it is wrong", generation
        )
        simulated.findings[uid] = FINE
        simulated.step(follow=False)

    refuses(service.candidate.generation - 1)
    assert "RolledBack" not in simulated.conditions("policy")
    refuses(service.candidate.generation)
    assert simulated.conditions("policy")["RolledBack"] == ("True", "GuardBurned")


def test_service_gets_one_rollout_at_a_time() -> None:
    simulated, _ = started()
    other = {"targetRefs": [{"service": "prediction"}], "bulkhead": {"maxConcurrent": 5}, "rollout": ROLLOUT}
    simulated.apply("second", other)
    simulated.step()
    simulated.step()
    assert simulated.conditions("second")["Programmed"] == ("False", "WaitingForRollout")
    sources = {source.name for source in simulated.plan().services["api"].in_force.sources}
    assert sources == {"policy"}


def test_policy_without_rollout_applies_during_another() -> None:
    simulated, _ = started()
    simulated.step()
    simulated.apply("now", {"targetRefs": [{"service": "prediction"}], "bulkhead": {"maxConcurrent": 5}})
    simulated.settle()
    service = simulated.plan().services["api"]
    for pod in simulated.pods:
        if pod.service == "api":
            policy = service.document_of(pod).for_call("api", "prediction", "Predict")
            assert policy
            assert policy.bulkhead.max_concurrent == 5
    assert attempts_of_pods(simulated) == [2] * 6 + [3] * 2


def test_rollout_without_guard_applies_at_once() -> None:
    simulated = Simulated({"api": 8, "prediction": 1}, guarded=False)
    simulated.apply("policy", spec(3))
    simulated.settle()
    assert attempts_of_pods(simulated) == [3] * 8
    assert simulated.resources["policy"].status["converged"] == "8/8"


def test_restarted_operator_resumes_rollout_from_status() -> None:
    simulated, uid = started()
    simulated.step()
    simulated.findings[uid] = FINE
    simulated.step()
    simulated.now += 11
    simulated.step()
    at_step = attempts_of_pods(simulated)
    simulated.rollouts = {}
    simulated.step()
    assert attempts_of_pods(simulated) == at_step == [2] * 4 + [3] * 4


@given(count=st.integers(1, 200), percents=st.lists(st.integers(1, 100), min_size=2, max_size=2).map(sorted))
def test_larger_share_contains_pods_of_smaller_one(count: int, percents: list[int]) -> None:
    pods = [Pod(f"api-{number}", str(number), "api", "") for number in range(count)]
    few, many = (exposed_pods("uid", pods, percent) for percent in percents)
    assert few <= many
    assert 1 <= len(few) <= count * percents[0] / 100 + 1
    assert exposed_pods("uid", reversed(pods), percents[0]) == few
    assert exposed_pods("uid", pods, 100) == {pod.uid for pod in pods}
