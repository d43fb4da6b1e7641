"""The texts of the console: complete in each language, used by a script, and consistent with the services."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core.core_schema import ErrorType

from aurum.alarms.lifecycle import OTHERS_RETURNED, RULE_CHANGED, RULE_REMOVED, TYPE_NOT_COVERED
from aurum.alarms.rule_changes import ChangeKind
from aurum.alarms.rules import AlarmRule
from aurum.prediction.training.skill import BASE_RATE, MEAN_LEFT, MEDIAN_LIFE
from tests.support.reasons import field_codes, problem_kinds, unknown_codes

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


def _texts_of(prefix: str) -> set[str]:
    """Returns the keys with a prefix, without it. Both languages have the same keys, see above."""
    return {key.removeprefix(prefix) for key in ENGLISH if key.startswith(prefix)}


def test_every_kind_of_problem_of_the_api_has_a_text() -> None:
    """The type of a problem is the reason of an error in lower case; see aurum.api.problems."""
    kinds = problem_kinds()
    assert {"alarm-rules-changed", "circuit-open", "request-entity-too-large"} <= kinds
    assert _texts_of("problem.") == kinds


def test_every_reason_of_an_unknown_risk_has_a_text() -> None:
    assert _texts_of("unknown.") == {code.lower().replace("_", "-") for code in unknown_codes()}
    assert _texts_of("baseline.") == {BASE_RATE, MEAN_LEFT, MEDIAN_LIFE}


def _fields_of(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _fields_of(kind)


def test_every_change_of_an_alarm_rule_has_a_text() -> None:
    assert _texts_of("changed.") == set(_fields_of(AlarmRule))
    assert set(get_args(ChangeKind)) <= _texts_of("change.")


def test_every_code_of_an_invalid_field_has_a_text() -> None:
    """The codes of the platform all have one, those of pydantic as far as the console's forms can get them."""
    codes = field_codes()
    assert {"one_limit", "name_taken"} <= codes
    assert codes <= _texts_of("invalid.") <= codes | set(get_args(ErrorType))


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
