"""Progress of long commands where there is no terminal."""

import pytest

from aurum.commands import progress


def test_progress_is_printed_at_most_every_five_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.progress_bar("Training pump") as update:
        update(0.1, "features")
        now = 105.0
        update(0.25, "trials: wear index")
        now = 109.0
        update(0.5, "cross-validation")
        now = 110.5
        update(0.6, "cross-validation, fold 2 of 5")
    assert capsys.readouterr().err.splitlines() == [
        "Training pump",
        "Training pump: 25%, trials: wear index",
        "Training pump: 60%, cross-validation, fold 2 of 5",
    ]
