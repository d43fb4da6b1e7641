"""The texts of the console: complete in each language, used by a script, and consistent with the services."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from aurum.alarms.lifecycle import OTHERS_RETURNED, RULE_CHANGED, RULE_REMOVED, TYPE_NOT_COVERED

SERVICES = Path(__file__).parents[2] / "services/aurum"
CONSOLE = SERVICES / "api/console"
ENGLISH = json.loads((CONSOLE / "text/en.json").read_text())
PLURAL = "|one"


def _script() -> str:
    return "\n".join(path.read_text() for path in CONSOLE.glob("*.js"))


def test_languages_have_same_keys_and_placeholders() -> None:
    spanish = json.loads((CONSOLE / "text/es.json").read_text())
    assert list(ENGLISH) == list(spanish)
    for key, text in ENGLISH.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", spanish[key])), key


@pytest.mark.parametrize("script", sorted(CONSOLE.glob("*.js")), ids=lambda path: path.name)
def test_every_used_key_has_a_text(script: Path) -> None:
    asked = set(re.findall(r"\bt\(\"([\w.\-]+)\"", script.read_text()))
    assert asked <= ENGLISH.keys(), sorted(asked - ENGLISH.keys())


@pytest.mark.parametrize("language", ["en", "es"])
def test_no_key_of_a_language_is_repeated(language: str) -> None:
    """The last of two texts with the same key would replace the first in silence."""
    keys = re.findall(r"^  \"(.+?)\": ", (CONSOLE / f"text/{language}.json").read_text(), re.MULTILINE)
    assert [key for key, count in Counter(keys).items() if count > 1] == []


def test_every_text_is_used_by_a_script() -> None:
    """A key appears in a script as a string, or fits a template such as `rule.${rule}`."""
    script = _script()
    strings = set(re.findall(r"\"([\w.\-]+)\"", script))
    wildcards = (
        re.sub(r"\\\$\\\{.*?\\\}", ".+", re.escape(each)) for each in re.findall(r"`([\w.]+\.\$\{[^`\n]*)`", script)
    )
    templates = [re.compile(each) for each in wildcards]
    keys = {key.removesuffix(PLURAL) for key in ENGLISH}
    unused = [key for key in keys - strings if not any(template.fullmatch(key) for template in templates)]
    assert sorted(unused) == []


def test_translated_problems_are_raised_by_the_services() -> None:
    """The type of a problem is the reason of an error in lower case; see aurum.api.problems."""
    code = "\n".join(path.read_text() for path in SERVICES.rglob("*.py"))
    reasons = {each.lower().replace("_", "-") for each in re.findall(r"\"([A-Z][A-Z_]+)\"", code)}
    translated = {key.removeprefix("problem.") for key in ENGLISH if key.startswith("problem.")}
    assert translated
    assert translated <= reasons, sorted(translated - reasons)


def test_default_alarm_rules_have_the_same_text_in_console() -> None:
    rules = yaml.safe_load((SERVICES / "alarms/rules.yaml").read_text())["rules"]
    shown = {key.removeprefix("rule."): text for key, text in ENGLISH.items() if key.startswith("rule.")}
    assert shown == {rule["text"]: rule["text"] for rule in rules}


def test_reasons_of_the_platform_have_a_text() -> None:
    shown = {key.removeprefix("reason.") for key in ENGLISH if key.startswith("reason.")}
    assert shown == {RULE_REMOVED, RULE_CHANGED, TYPE_NOT_COVERED, OTHERS_RETURNED}


def test_vendored_files_match_recorded_hashes() -> None:
    import hashlib

    rows = re.findall(r"\| (\S+) \| npm .*\| ([0-9a-f]{64}) \|", (CONSOLE / "vendor/README.md").read_text())
    assert {name for name, _ in rows} == {
        path.name for path in (CONSOLE / "vendor").iterdir() if path.suffix in (".js", ".css")
    }
    for name, digest in rows:
        assert hashlib.sha256((CONSOLE / "vendor" / name).read_bytes()).hexdigest() == digest, name
