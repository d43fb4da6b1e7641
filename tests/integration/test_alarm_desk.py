"""What an operator does with many alarms, through the services: history, comments, bulk actions."""

import csv
import datetime
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.http import Answer, http
from tests.support.platform import Platform, watching
from tests.support.waiting import wait_for

RULES = """
rules:
  - {name: hot, text: Too hot, priority: high, sensor: {sensor: heat, above: 80, deadband: 5}}
  - {name: fast, text: Too fast, priority: low, sensor: {sensor: speed, above: 80}}
"""


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("desk")
    with watching(folder, RULES, {"AURUM_AUDIT_FILE": str(folder / "audit.log")}) as running:
        for number, site in enumerate(("north", "north", "south")):
            machine = {"machine_id": f"oven-{number}", "machine_type": "oven", "site": site}
            assert http("POST", f"{running.api}/api/machines", machine).status == 201
        readings = [reading(f"oven-{number}", sensor, 95) for number in range(3) for sensor in ("heat", "speed")]
        assert http("POST", f"{running.api}/api/readings", {"readings": readings}).status == 200
        wait_for(lambda: len(alarms(running)) == 6, 20, "six alarms")
        yield running


def reading(machine: str, sensor: str, value: float) -> dict[str, Any]:
    return {"machine_id": machine, "sensor": sensor, "timestamp": time.time(), "value": value}


def alarms(platform: Platform, query: str = "") -> dict[str, dict[str, Any]]:
    answer = http("GET", f"{platform.api}/api/alarms?limit=1000{query}")
    return {alarm["id"]: alarm for alarm in answer.json["items"]} if answer.status == 200 else {}


def journal(platform: Platform, query: str = "") -> list[dict[str, Any]]:
    """All pages of the journal."""
    items, cursor = [], ""
    while True:
        page = http("GET", f"{platform.api}/api/alarms/journal?{query}{cursor}").json
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = f"&cursor={page['next_cursor']}"


def post(platform: Platform, what: str, body: dict[str, Any]) -> Answer:
    return http("POST", f"{platform.api}/api/alarms/{what}", body)


def audited(platform: Platform, subject: str) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in (platform.folder / "audit.log").read_text().splitlines()]
    return [(line["action"], line["outcome"]) for line in lines if line["subject"] == subject]


def test_journal_is_filtered_and_read_in_pages(plant: Platform) -> None:
    """The journal is filtered by machine, site, rule, priority, kind and time, also over several pages."""
    raised = journal(plant, "transition=raised&limit=2")
    assert len(raised) == 6
    assert len(journal(plant, "machine_id=oven-1&limit=1&transition=raised")) == 2
    assert {each["machine_id"] for each in journal(plant, "site=north")} == {"oven-0", "oven-1"}
    assert {each["rule"] for each in journal(plant, "rule=fast&limit=1")} == {"fast"}
    urgent = journal(plant, "priority=high&transition=raised")
    assert [(each["rule"], each["priority"]) for each in urgent] == [("hot", "high")] * 3
    newest, *older = raised
    assert journal(plant, f"transition=raised&end={newest['at'].replace('+', '%2B')}") == [
        each for each in older if each["at"] < newest["at"]
    ]
    assert http("GET", f"{plant.api}/api/alarms/journal?cursor=none").status == 422
    assert http("GET", f"{plant.api}/api/alarms/journal?limit=1001").status == 422
    found = alarms(plant)["oven-2~hot"]
    assert (found["site"], found["line"]) == ("south", "")


def test_comment_is_in_alarm_journal_and_audit(plant: Platform) -> None:
    """A comment is kept with its author and time; a repeated request adds it once, and another text once more."""
    body = {"text": "The fan is loose", "by": "Ada"}
    first = post(plant, "oven-0~hot/comments", body)
    assert (first.status, first.json["transition"], first.json["comment"]) == (201, "commented", "The fan is loose")
    assert post(plant, "oven-0~hot/comments", body).json["at"] == first.json["at"]
    assert post(plant, "oven-0~hot/comments", {"text": "Fan changed", "by": "Bo"}).status == 201
    comments = journal(plant, "machine_id=oven-0&rule=hot&transition=commented")
    assert [(each["by"], each["comment"]) for each in comments] == [("Bo", "Fan changed"), ("Ada", "The fan is loose")]
    alarm = alarms(plant)["oven-0~hot"]
    assert (alarm["state"], alarm["comment"], alarm["commented_by"]) == ("unacknowledged", "Fan changed", "Bo")
    assert audited(plant, "oven-0~hot") == [("alarm.comment", "done")] * 3
    for text in ("", "x" * 1001):
        assert post(plant, "oven-0~hot/comments", {"text": text}).status == 422
    assert post(plant, "nowhere~hot/comments", body).status == 404


def test_many_alarms_are_acknowledged_with_a_reason(plant: Platform) -> None:
    """One request acknowledges many alarms and answers for each; a repeated one changes nothing."""
    ids = ["oven-0~fast", "oven-1~fast", "oven-1~hot"]
    body = {"ids": [*ids, "nowhere~hot", ids[0]], "by": "Ada", "reason": "speed test"}
    answer = post(plant, "ack", body)
    assert answer.status == 200
    *known, missing = answer.json["items"]
    assert [(each["id"], each["done"], each["changed"], each["state"]) for each in known] == [
        (each, True, True, "acknowledged") for each in ids
    ]
    assert (missing["done"], missing["problem"]) == (False, "alarm-not-found")
    again = post(plant, "ack", body).json["items"]
    assert [(each["done"], each["changed"]) for each in again] == [(True, False)] * 3 + [(False, False)]
    entries = journal(plant, "transition=acknowledged")
    assert sorted(each["id"] for each in entries) == ids
    assert {(each["by"], each["reason"]) for each in entries} == {("Ada", "speed test")}
    assert audited(plant, "oven-1~hot") == [("alarm.acknowledge", "done"), ("alarm.acknowledge", "unchanged")]
    assert audited(plant, "nowhere~hot")[-1] == ("alarm.acknowledge", "failed: ALARM_NOT_FOUND")
    for refused in ({"ids": []}, {"ids": [f"m-{number}~hot" for number in range(301)]}, {}, {"ids": ids, "x": 1}):
        assert post(plant, "ack", refused).status == 422


def test_many_alarms_are_shelved_until_a_time(plant: Platform) -> None:
    """Alarms are shelved together until a time; the same request again changes nothing."""
    until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2)).isoformat()
    body = {"ids": ["oven-2~fast", "oven-2~hot"], "until": until, "by": "Ada", "reason": "tests of the drive"}
    answer = post(plant, "shelve", body).json["items"]
    assert [(each["changed"], each["state"]) for each in answer] == [(True, "shelved")] * 2
    assert [each["changed"] for each in post(plant, "shelve", body).json["items"]] == [False, False]
    shelved = alarms(plant, "&state=shelved")
    assert {(each["reason"], each["shelved_by"]) for each in shelved.values()} == {("tests of the drive", "Ada")}
    for wrong in ({"minutes": 5, "until": until}, {}, {"until": "2000-01-01T00:00:00Z"}, {"until": "2090-01-01"}):
        refused = post(plant, "shelve", {"ids": ["oven-2~hot"], **wrong})
        assert refused.status == 422, wrong


def test_handover_report_tells_what_the_shift_leaves(plant: Platform) -> None:
    """The report has open, raised and shelved alarms, comments and the worst machines, as JSON and as CSV."""
    started = time.time() - 3600
    post(plant, "oven-2~hot/comments", {"text": "=cmd()", "by": "Ada"})
    post(plant, "shelve", {"ids": ["oven-2~fast"], "minutes": 60, "by": "Ada", "reason": "tests"})
    report = http("GET", f"{plant.api}/api/reports/handover?start={started}").json
    assert (report["raised"], report["cleared"], report["complete_from"]) == (6, 0, report["start"])
    expected = {key for key, alarm in alarms(plant).items() if alarm["state"] not in ("shelved", "suppressed")}
    assert {each["id"]: each["state"] for each in report["open"]} == {
        key: alarm["state"] for key, alarm in alarms(plant).items() if key in expected
    }
    assert {"oven-2~fast"} <= {each["id"] for each in report["shelved"]}
    assert [each["comment"] for each in report["comments"]][-1] == "=cmd()"
    assert [(each["machine_id"], each["raised"]) for each in report["worst"]] == [
        (f"oven-{number}", 2) for number in range(3)
    ]
    of_site = http("GET", f"{plant.api}/api/reports/handover?start={started}&site=south").json
    assert {each["machine_id"] for each in of_site["worst"]} == {"oven-2"}
    answer = http("GET", f"{plant.api}/api/reports/handover?start={started}&format=csv")
    assert "attachment" in answer.headers["content-disposition"]
    table = list(csv.DictReader(answer.body.decode().splitlines()))
    assert {each["section"] for each in table} == {"total", "open", "raised", "shelved", "comment", "machine"}
    assert [each["remark"] for each in table if each["section"] == "comment"][-1] == "'=cmd()"
    before = http("GET", f"{plant.api}/api/reports/handover?start={started - 60}&end={started}").json
    assert (before["raised"], before["open"], before["worst"]) == (0, [], [])


def test_alarm_figures_of_a_period(plant: Platform) -> None:
    """The figures count the raises of the period, and name rules and machines with their share."""
    found = http("GET", f"{plant.api}/api/reports/alarms?start={time.time() - 3600}&positions=2").json
    assert (found["raised"], found["intervals"], found["peak_rate"], found["positions"]) == (6, 6, 3, 2)
    assert [(each["name"], each["share"]) for each in found["top_rules"]] == [("fast", 0.5), ("hot", 0.5)]
    assert found["by_priority"] == {"low": 0.5, "medium": 0, "high": 0.5, "urgent": 0}
    for wrong in ("", "?start=2026-01-02&end=2026-01-01", "?start=2000-01-01", "?start=2026-01-01&positions=0"):
        assert http("GET", f"{plant.api}/api/reports/alarms{wrong}").status == 422, wrong


def test_long_period_says_from_when_it_is_complete(plant: Platform) -> None:
    """A report on the longest period is answered; it says from when on all entries were read."""
    report = http("GET", f"{plant.api}/api/reports/handover?start={time.time() - 91 * 86_400}")
    assert report.status == 200
    assert report.json["complete_from"] == report.json["start"]


def test_bulk_action_without_ingestion_changes_nothing(plant: Platform) -> None:
    """While ingestion is away, an action on many alarms is 503, is audited as failed, and leaves them unchanged."""
    plant.processes["ingestion"].kill()
    try:
        refused = post(plant, "ack", {"ids": ["oven-0~hot"], "by": "Ada"})
        assert refused.status == 503
        assert "oven-0~hot was not recorded" in refused.json["detail"]
        assert audited(plant, "1 alarms")[-1] == ("alarm.acknowledge_many", "failed: UNAVAILABLE")
    finally:
        plant.restart("ingestion")
    assert alarms(plant)["oven-0~hot"]["state"] == "unacknowledged"
