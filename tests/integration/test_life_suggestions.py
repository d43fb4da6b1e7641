"""A machine without counter and records is overhauled: the API suggests a new life, and a person answers."""

from collections.abc import Iterator

import pytest

from aurum.commands.histories import from_store
from tests.support.commands import command
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.unrecorded_overhaul import MACHINE, send_two_lives


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("lives"), extra={"AURUM_FEATURE_PREDICTIVE": "false"})
    for service in ("ingestion", "api"):
        running.start(service)
    send_two_lives(running)
    yield running
    running.stop()


def suggestions(plant: Platform) -> list[dict[str, object]]:
    answer = http("GET", f"{plant.api}/api/machines/{MACHINE}/life-suggestions")
    assert answer.status == 200, answer.body
    assert answer.json["sensors_left_out"] == 0
    items: list[dict[str, object]] = answer.json["items"]
    return items


def lives(plant: Platform) -> int:
    return len(from_store([plant.folder / "store.db"], "motor", False)["motor"])


def learned(plant: Platform) -> str:
    done = command("learn", environment=plant.environment("learn"))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_suggestion_is_rejected_or_confirmed_by_a_record(plant: Platform) -> None:
    """A suggestion is no fact: it makes no life until a record confirms it, and an inspection rejects it."""
    (found,) = suggestions(plant)
    assert len(found["levels"]) >= 2  # type: ignore[arg-type]
    assert lives(plant) == 1
    assert f"motor: {MACHINE} may have begun a new life after its stop" in learned(plant)
    records = f"{plant.api}/api/machines/{MACHINE}/maintenance"
    body = {"text": "looked at", "kind": "inspection", "from": found["stopped_at"], "to": found["resumed_at"]}
    rejected = http("POST", records, body)
    assert rejected.status == 201, rejected.body
    assert suggestions(plant) == []
    assert "may have begun a new life" not in learned(plant)
    assert lives(plant) == 1

    assert http("DELETE", f"{records}/{rejected.json['id']}").status == 204
    assert suggestions(plant) == [found]
    confirmed = http("POST", records, {**body, "kind": "replacement", "text": "rotor replaced"})
    assert confirmed.json["kind"] == "replacement"
    assert suggestions(plant) == []
    assert lives(plant) == 2


def test_suggestions_of_an_unknown_machine_are_404(plant: Platform) -> None:
    assert http("GET", f"{plant.api}/api/machines/nobody/life-suggestions").status == 404


def test_counter_of_a_machine_with_many_sensors_is_used(plant: Platform) -> None:
    """Sensors that tell of lives are examined before others, so that a life that they tell of is not suggested."""
    for name, counted in (("motor-wide", True), ("motor-bare", False)):
        send_two_lives(plant, name, counted=counted, still=40)
        found = http("GET", f"{plant.api}/api/machines/{name}/life-suggestions").json
        assert (found["sensors"], len(found["items"])) == (32, not counted)
        assert found["sensors_left_out"] == 16 + counted
