"""The CustomResourceDefinitions are generated from the models, and the committed ones are current."""

import sys
from pathlib import Path

import pytest
import yaml

from aurum.operator import schema

ROOT = Path(__file__).parents[3]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["schema", *map(str, arguments)])
    schema.main()


def test_committed_definitions_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, ROOT / "charts/aurumai-crds/templates", ROOT / "docs/operator-reference.md", "--check")


def test_stale_definition_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(monkeypatch, tmp_path, tmp_path / "reference.md")
    run(monkeypatch, tmp_path, tmp_path / "reference.md", "--check")
    written = sorted(tmp_path.glob("*.yaml"))
    kinds = {yaml.safe_load(path.read_text())["spec"]["names"]["kind"] for path in written}
    assert kinds == {"ResiliencePolicy", "TelemetryPolicy"}
    written[0].write_text(written[0].read_text().replace("description", "text", 1))
    with pytest.raises(SystemExit, match=rf"{written[0].name} is not current; run `make crds`"):
        run(monkeypatch, tmp_path, tmp_path / "reference.md", "--check")
