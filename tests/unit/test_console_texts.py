"""The console's words: the same keys and placeholders in each language, and none that its code asks for is missing."""

import json
import re
from pathlib import Path

import pytest

CONSOLE = Path(__file__).parents[2] / "services/aurum/api/console"
ENGLISH = json.loads((CONSOLE / "text/en.json").read_text())


def test_languages_have_same_keys_and_placeholders() -> None:
    spanish = json.loads((CONSOLE / "text/es.json").read_text())
    assert ENGLISH.keys() == spanish.keys()
    for key, text in ENGLISH.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", spanish[key])), key


@pytest.mark.parametrize("script", sorted(CONSOLE.glob("*.js")), ids=lambda path: path.name)
def test_every_used_key_has_a_text(script: Path) -> None:
    asked = set(re.findall(r"\bt\(\"([\w.\-]+)\"", script.read_text()))
    assert asked <= ENGLISH.keys(), sorted(asked - ENGLISH.keys())


def test_vendored_files_match_recorded_hashes() -> None:
    import hashlib

    rows = re.findall(r"\| (\S+) \| npm .*\| ([0-9a-f]{64}) \|", (CONSOLE / "vendor/README.md").read_text())
    assert {name for name, _ in rows} == {
        path.name for path in (CONSOLE / "vendor").iterdir() if path.suffix in (".js", ".css")
    }
    for name, digest in rows:
        assert hashlib.sha256((CONSOLE / "vendor" / name).read_bytes()).hexdigest() == digest, name
