"""Two operators, an API server and a network that do their worst, at random, for thousands of steps in virtual time.

However it goes: one operator at most holds the lease, and none writes without it (checked at each write); what is
harmful is taken back from every pod that can be reached, whatever else is refused; and when the network is well again
everything converges but the objects that are refused, whose reason stands in the status of the policies that wait for
them.
"""

import logging
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from aurum.operator.cluster_snapshot import CONTENT
from aurum.operator.desired_state import content_hash
from aurum.runtime.policy.document import parse_platform_document
from aurum.runtime.policy.files import CANDIDATE, IN_FORCE
from tests.support.operator_api import CALM, SERVICES, Plant, Weather

STEPS = 200  # of one run

KINDS = {"levels": "TelemetryPolicy"}
GOVERNED = {
    "predictions": ("api",),
    "readings": ("api", "prediction"),
    "scores": ("prediction",),
    "admission": ("prediction",),
    "levels": tuple(SERVICES),
}
ROLLED_OUT = ("predictions", "readings")
POLICIES = st.sampled_from(sorted(GOVERNED))
OBJECTS = st.one_of(
    st.tuples(st.just("ConfigMap"), st.sampled_from([f"aurumai-{service}-policy" for service in SERVICES])),
    st.tuples(st.just("Pod"), st.sampled_from([f"{service}-0" for service in SERVICES])),
    POLICIES.map(lambda name: (f"{KINDS.get(name, 'ResiliencePolicy')}/status", name)),
    st.just(("Event", "any")),
)
PAUSES = st.sampled_from([0.0, 0.02, 0.1, 0.5, 2.0, 5.0])
MOST_REFUSED = 4
CODES = (422, 409, 410, 500, 403, 429, 0)
SHARES = st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.3])
WEATHERS = st.one_of(
    st.builds(Weather, SHARES, SHARES, SHARES, SHARES, SHARES, SHARES, SHARES, SHARES),
    st.sampled_from([Weather(lost=1.0), Weather(unanswered=1.0), Weather(slow=1.0), Weather(late=1.0)]),
)


def spec(name: str, number: int) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "predictions": {"targetRefs": [{"service": "prediction"}], "retry": {"maxAttempts": number}},
        "readings": {"targetRefs": [{"service": "ingestion"}], "bulkhead": {"maxConcurrent": number}},
        "scores": {"targetRefs": [{"service": "ingestion", "client": "prediction"}], "hedge": {"delay": f"{number}ms"}},
        "admission": {"targetRefs": [{"service": "prediction"}], "admission": {"maxConcurrent": 64 + number}},
        "levels": {"samplingRatio": number / 16},
    }
    rollout = {"rollout": {"steps": [34, 100], "pause": "3s"}} if name in ROLLED_OUT else {}
    return {**parts[name], **rollout}


def kind(name: str) -> str:
    return KINDS.get(name, "ResiliencePolicy")


class OperatorModel(RuleBasedStateMachine):
    steps = 0

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.plant = Plant(seed)
        self.api = self.plant.api
        self.pods = 0
        for name in GOVERNED:
            self._edit(name, 1)
        self._wait(8.0)
        self.backup = self.plant.back_up()

    @rule(name=POLICIES, number=st.integers(1, 8), seconds=PAUSES)
    def edit(self, name: str, number: int, seconds: float) -> None:
        self._edit(name, number)
        self._wait(seconds)

    @rule(name=POLICIES, seconds=PAUSES)
    def delete_and_make_again(self, name: str, seconds: float) -> None:
        self.api.remove(kind(name), name)
        self._wait(seconds)
        self._edit(name, 1)

    @rule(name=POLICIES, seconds=PAUSES)
    def delete(self, name: str, seconds: float) -> None:
        self.api.remove(kind(name), name)
        self._wait(seconds)

    @rule(name=st.sampled_from(ROLLED_OUT), seconds=PAUSES)
    def do_harm(self, name: str, seconds: float) -> None:
        self._do_harm(name)
        self._wait(seconds)

    @rule(what=OBJECTS, code=st.sampled_from(CODES), seconds=PAUSES)
    def refuse(self, what: tuple[str, str], code: int, seconds: float) -> None:
        self.api.refused[what] = code
        self._wait(seconds)

    @precondition(lambda self: len(self.api.refused) > MOST_REFUSED)
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        del self.api.refused[data.draw(st.sampled_from(sorted(self.api.refused)))]

    @rule(number=st.integers(0, 1), weather=WEATHERS, seconds=PAUSES)
    def change_weather(self, number: int, weather: Weather, seconds: float) -> None:
        self._set_weather(number, weather)
        self._wait(seconds)

    @rule(seconds=PAUSES)
    def calm_down(self, seconds: float) -> None:
        self._calm_down()
        self._wait(seconds)

    @precondition(lambda self: self.plant.led_for() > 10.0)
    @rule(number=st.integers(0, 1), gently=st.booleans(), seconds=PAUSES)
    def end_operator(self, number: int, gently: bool, seconds: float) -> None:
        each = self.plant.operators[number]
        each.stop() if gently else each.kill()
        self._wait(seconds)

    @rule(service=st.sampled_from(sorted(SERVICES)), deletes=st.booleans(), seconds=PAUSES)
    def edit_config_map_by_hand(self, service: str, deletes: bool, seconds: float) -> None:
        name = f"aurumai-{service}-policy"
        known = self.api.objects.get(("ConfigMap", name))
        if known and deletes:
            self.api.remove("ConfigMap", name)
        elif known:
            self.api.put("ConfigMap", name, {**known, "data": {**known["data"], IN_FORCE: "generation: 7"}})
        self._wait(seconds)

    @rule(service=st.sampled_from(sorted(SERVICES)), seconds=PAUSES)
    def replace_pod(self, service: str, seconds: float) -> None:
        name = next(each.name for each in self.plant.pods.values() if each.service == service)
        del self.plant.pods[name]
        self.api.remove("Pod", name)
        self.api.refused.pop(("Pod", name), None)
        self.pods += 1
        self.plant.add_pod(service, f"{service}-new-{self.pods}")
        self._wait(seconds)

    @rule(seconds=PAUSES)
    def back_up(self, seconds: float) -> None:
        self.backup = self.plant.back_up()
        self._wait(seconds)

    @rule(seconds=PAUSES)
    def restore(self, seconds: float) -> None:
        self.plant.restore(*self.backup)
        self._wait(seconds)

    @rule(seconds=st.sampled_from([1.0, 3.0, 8.0, 16.0]))
    def wait(self, seconds: float) -> None:
        self._wait(seconds)

    def teardown(self) -> None:
        """What holds at the end, whatever came before: with one more ConfigMap refused, perhaps after a restore."""
        OperatorModel.steps += STEPS
        try:
            self._calm_down()
            if self.chance.random() < 0.5:
                self.plant.restore(*self.backup)
            self._refuse_a_config_map()
            for name in GOVERNED:
                self._edit(name, self.chance.randint(1, 8))
            for name in ROLLED_OUT:
                self._harm_is_taken_back(name)
            self._all_else_converges()
        finally:
            self.plant.close()

    def _refuse_a_config_map(self) -> None:
        self.api.refused["ConfigMap", f"aurumai-{self.chance.choice(sorted(SERVICES))}-policy"] = self.chance.choice(
            CODES
        )

    def _edit(self, name: str, number: int) -> tuple[str, int]:
        known = self.api.objects.get((kind(name), name), {})
        metadata = known.get("metadata", {})
        changed = {**metadata, "generation": metadata.get("generation", 0) + 1}
        made = self.api.put(kind(name), name, {**known, "metadata": changed, "spec": spec(name, number)})
        return made["metadata"]["uid"], made["metadata"]["generation"]

    def _do_harm(self, name: str) -> None:
        body = self.api.objects.get((kind(name), name))
        if body:
            self.plant.harmful.add((body["metadata"]["uid"], body["metadata"]["generation"]))
            for each in self.plant.operators:
                if each.running:
                    each.nudged.set()

    def _set_weather(self, number: int, weather: Weather) -> None:
        each = self.plant.operators[number]
        each.weather = weather
        if each.running:
            each.client.weather = weather

    def _calm_down(self) -> None:
        for number in range(len(self.plant.operators)):
            self._set_weather(number, CALM)

    def _wait(self, seconds: float) -> None:
        self.plant.start_operators()
        self.plant.advance(seconds)

    def _config_maps(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Those that are not refused, by service."""
        for service in SERVICES:
            if ("ConfigMap", f"aurumai-{service}-policy") not in self.api.refused:
                yield service, self.api.objects.get(("ConfigMap", f"aurumai-{service}-policy"), {})

    def _harm_is_taken_back(self, name: str) -> None:
        for _ in range(12):
            self._wait(2.0)
            if self.plant.led_for() > 4.0:
                break
        source = self._edit(name, self.chance.randint(1, 8))
        self._wait(1.5)
        if any(
            source in sources(body.get("data", {}).get(IN_FORCE, ""))
            for body in self.api.of_kind("ConfigMap")
            if body["metadata"]["name"].endswith("-policy")
        ):
            return  # it is there already: nothing is left to be taken back
        self._refuse_a_config_map()
        self._do_harm(name)
        self._wait(2.5)
        harmed = [
            pod.name
            for pod in self.plant.pods.values()
            if ("Pod", pod.name) not in self.api.refused
            and source in [(each.uid, each.generation) for each in pod.document.sources]
        ]
        assert not harmed, f"{harmed} still have generation {source[1]} of {name}, which does harm"

    def _all_else_converges(self) -> None:
        for _ in range(40):
            self._wait(10.0)
            if not (problems := list(self._unsettled())):
                return
        raise AssertionError("; ".join(problems))

    def _unsettled(self) -> Iterator[str]:
        """What is not as it is to be, although nothing refuses it."""
        refused = self.api.refused
        closed = {service for service in SERVICES if ("ConfigMap", f"aurumai-{service}-policy") in refused}
        closed |= {pod.service for pod in self.plant.pods.values() if ("Pod", pod.name) in refused}
        present = {
            (body["metadata"]["uid"], body["metadata"]["generation"]): body["metadata"]["name"]
            for body in (*self.api.of_kind("ResiliencePolicy"), *self.api.of_kind("TelemetryPolicy"))
        }
        for service, body in self._config_maps():
            if body.get("metadata", {}).get("annotations", {}).get(CONTENT) != content_hash(body.get("data", {})):
                yield f"the ConfigMap of {service} is not the operator's"
            found = sources(body.get("data", {}).get(IN_FORCE, "")) | sources(body.get("data", {}).get(CANDIDATE, ""))
            uids = {uid for uid, _ in present}
            if gone := {uid for uid, _ in found if uid not in uids}:
                yield f"the ConfigMap of {service} has policies that are gone: {gone}"
        for (uid, generation), name in present.items():
            yield from self._unsettled_policy(name, (uid, generation), closed)

    def _unsettled_policy(self, name: str, source: tuple[str, int], closed: set[str]) -> Iterator[str]:
        held_up = (
            {service for each in ROLLED_OUT if closed & set(GOVERNED[each]) for service in GOVERNED[each]}
            if name in ROLLED_OUT
            else set()
        )
        open_ = not (closed | held_up) & set(GOVERNED[name])
        harmful = source in self.plant.harmful
        body = self.api.objects[kind(name), name]
        status = body.get("status", {})
        conditions = {each["type"]: each for each in status.get("conditions", ())}
        for pod in self.plant.pods.values():
            if pod.service in GOVERNED[name] and pod.service not in closed and (open_ or name not in ROLLED_OUT):
                loaded = [(each.uid, each.generation) for each in pod.document.sources]
                if source not in loaded and not harmful:
                    yield f"{pod.name} lacks {name} {source}"
        if (f"{kind(name)}/status", name) in self.api.refused:
            return
        if status.get("observedGeneration") != source[1]:
            yield f"the status of {name} is of {status.get('observedGeneration')}, not of {source[1]}"
        elif open_ and not harmful and conditions["Converged"]["status"] != "True":
            yield f"{name}: {conditions}"
        elif open_ and harmful and conditions["Converged"]["status"] != "True" and "RolledBack" not in conditions:
            yield f"{name} is harmful: {conditions}"
        elif conditions["Programmed"]["reason"] == "Pending" and "refused" not in conditions["Programmed"]["message"]:
            yield f"{name} does not say why it is pending: {conditions['Programmed']}"


def sources(text: str) -> set[tuple[str, int]]:
    return {(each.uid, each.generation) for each in parse_platform_document(text, "x").sources}


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A million log records would be kept."""
    caplog.set_level(logging.CRITICAL, "aurum.operator")


def run_model(examples: int, *, derandomize: bool) -> None:
    OperatorModel.steps = 0
    run_state_machine_as_test(
        OperatorModel,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=derandomize,
            database=None,
            phases=[Phase.generate] if derandomize else [Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert OperatorModel.steps >= examples * STEPS


@pytest.mark.timeout(900)  # ten times as long as without the measurement of coverage
def test_operators_hold_their_invariants_for_2000_steps() -> None:
    run_model(2000 // STEPS, derandomize=True)


@pytest.mark.proof("operator-model")
@pytest.mark.parametrize("part", range(10))
def test_operators_hold_their_invariants_for_200000_steps(part: int) -> None:
    """Two operators hold their invariants for 200,000 random steps of faults (a tenth of them in each part)."""
    run_model(20_000 // STEPS, derandomize=False)
