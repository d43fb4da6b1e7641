"""Recorded outcomes: what is written, and what is counted when nothing can be written."""

import errno
import os
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aurum.resilience.outcomes import read_outcomes
from aurum.runtime.policy import outcome_recorder
from aurum.runtime.policy.outcome_recorder import OutcomeRecorder
from tests.support.waiting import wait_for


def dropped() -> float:
    return REGISTRY.get_sample_value("outcomes_dropped_total") or 0.0


def test_recorded_outcomes_can_be_read_again(tmp_path: Path) -> None:
    before = dropped()
    recorder = OutcomeRecorder(tmp_path / "folder" / "api.jsonl", 10_000)
    recorder.record("a/b/C", 0.25, "OK", 1)
    recorder.record("a/b/C", 0.5, "UNAVAILABLE", 2)
    recorder.close()
    with (tmp_path / "folder" / "api.jsonl").open("rb") as file:
        found = [(each.target, each.duration, each.code, each.attempt) for each in read_outcomes(file)]
    assert found == [("a/b/C", 0.25, "OK", 1), ("a/b/C", 0.5, "UNAVAILABLE", 2)]
    assert dropped() == before


def test_outcomes_that_cannot_be_written_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*paths: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outcome_recorder.os, "replace", full)
    monkeypatch.setattr(outcome_recorder, "_FLUSH", 0.0)
    before = dropped()
    recorder = OutcomeRecorder(tmp_path / "api.jsonl", 1)
    recorder.record("a/b/C", 0.25, "OK", 1)
    wait_for(lambda: "no longer recorded" in caplog.text, 20.0, "the writer has ended")
    assert "No space left on device" in caplog.text
    counted = dropped()
    recorder.record("a/b/C", 0.25, "OK", 1)
    assert dropped() == counted + 1
    recorder.close()
    assert counted == before, "the first was written"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_outcomes_of_a_failed_write_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    before = dropped()
    recorder = OutcomeRecorder(Path("/dev/full"), 10_000)
    for _ in range(3):
        recorder.record("a/b/C", 0.25, "OK", 1)
    wait_for(lambda: dropped() == before + 3, 20.0, "all are counted")
    wait_for(lambda: "no longer recorded" in caplog.text, 20.0, "the writer has ended")
    recorder.close()
