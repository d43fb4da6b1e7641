"""The YAML that the platform reads: whatever a text holds, it is plain data, or an error that says where."""

import ast
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from aurum.resilience.plain_yaml import Bounds, YamlError, lines_of, load, load_all, read_text
from aurum.resilience.policy import PolicyError, parse_policy_document

SERVICES = Path(__file__).parents[3] / "services"
SMALL = Bounds(size=2000, nodes=100, depth=6)

PIECES = st.sampled_from(
    [
        *("a", "b: ", "- ", "[", "]", "{", "}", ", ", ": ", "? ", "\n", "  ", "&x ", "*x ", "<<: ", "!!int ", "!!str "),
        *(
            "!!binary ",
            "!t ",
            "'",
            '"',
            "2026-02-30",
            "2026-13-01 25:61:00",
            ".inf",
            "1e400",
            "9" * 5000,
            "0x",
            "~",
            "|",
        ),
        *(
            "\n---\n",
            "\n...\n",
            "%YAML 9.9\n",
            "%YAML 1." + "9" * 5000 + "\n",
            "\t",
            "\x00",
            "\ud800",
            '"\\uD800"',
            "#",
        ),
        *("'\\UFFFFFFFF'", '"\\UFFFFFFFF"', "\ufeff", "policies: ", "generation: ", "target: a/b/C"),
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=60))
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["1e5", "234e567777", "0x1F", "0o17", "010", "1_000", "1:30", "yes", "No", "on", "~", "null", ".nan"]
    ),
    st.from_regex(r"[-+]?[0-9.eE_:x+-]{1,12}", fullmatch=True),
)
DATA = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_nan=False, allow_infinity=False),
        WORDS.filter(lambda text: text.isprintable()),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(WORDS.filter(lambda text: text.isprintable()), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(TEXTS)
@example("uid: 2026-02-30")
@example("[" * 5000 + "]" * 5000)
@example("{a: " * 5000)
@example("generation: !!int abc")
@example("- " * 3000)
def test_any_text_is_data_or_one_kind_of_error(text: str) -> None:
    found, problem = None, ""
    try:
        found = load_all(text)
    except YamlError as error:
        problem = str(error)
    assert "\n" not in problem
    assert len(problem) < 1000
    assert_plain(found)
    yaml.safe_dump(found).encode()


@given(TEXTS)
def test_any_policy_text_is_a_document_or_a_policy_error(text: str) -> None:
    try:
        told = f"x: {parse_policy_document(text, 'x').content_hash}"
    except PolicyError as error:
        told = str(error)
    assert told.startswith("x: ")


def assert_plain(value: Any, depth: int = 0) -> None:
    assert depth <= Bounds().depth + 1
    if isinstance(value, list):
        for each in value:
            assert_plain(each, depth + 1)
    elif isinstance(value, dict):
        for key, each in value.items():
            assert isinstance(key, str)
            assert_plain(each, depth + 1)
    else:
        assert value is None or isinstance(value, bool | int | str) or math.isfinite(value)


@given(DATA)
def test_what_pyyaml_writes_is_read_again_unchanged(data: Any) -> None:
    assert load(yaml.safe_dump(data, allow_unicode=True)) == data


def _same_or_word(plain: Any, of_pyyaml: Any) -> bool:
    return isinstance(plain, str) or plain == of_pyyaml


@given(WORDS)
def test_plain_scalars_are_what_pyyaml_makes_or_words(text: str) -> None:
    try:
        found, reference = load(text), yaml.safe_load(text)
    except (YamlError, yaml.YAMLError, ValueError, KeyError):
        return
    assert isinstance(found, dict | list) or _same_or_word(found, reference)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a: 2026-11-29", {"a": "2026-11-29"}),
        ("[yes, no, on, off, y]", ["yes", "no", "on", "off", "y"]),
        ("[true, False, null, ~, '']", [True, False, None, None, ""]),
        ("[0, -7, +3, 0x1F, 1.5, .5, 1.0e+3]", [0, -7, 3, 31, 1.5, 0.5, 1000.0]),
        (
            "[010, 1_000, 1:30, 1e3, -.5, .inf, .nan, 0o7]",
            ["010", "1_000", "1:30", "1e3", "-.5", ".inf", ".nan", "0o7"],
        ),
        ("1.0e+999", "1.0e+999"),
        ("9" * 41, "9" * 41),
        ("9" * 40, int("9" * 40)),
        ("on: {1: a, null: b, true: c}", {"on": {"1": "a", "null": "b", "true": "c"}}),
        ("[!!str 5, ! 6, '7', !!seq [a], !!map {b: 1}]", ["5", "6", "7", ["a"], {"b": 1}]),
        ("a: &t {x: 1}\nb: *t", {"a": {"x": 1}, "b": {"x": 1}}),
        ("a: &t {x: 1, y: 2}\nb: {<<: *t, x: 3}", {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}),
        (
            "a: [&t {x: 1}, &u {x: 2, y: 2}]\nb: {<<: [*t, *u]}",
            {"a": [{"x": 1}, {"x": 2, "y": 2}], "b": {"x": 1, "y": 2}},
        ),
        ("{'<<': 1}", {"<<": 1}),
        ("", None),
        ("# nothing", None),
    ],
)
def test_core_types_are_read_and_all_else_is_a_word(text: str, data: Any) -> None:
    assert load(text) == data


@pytest.mark.parametrize(
    ("text", "problem", "field", "line"),
    [
        ("a: 1\nb: 2\na: 3", "a is given twice, first in line 1", "", 3),
        ("p:\n- x: 1\n- r: 1\n  r: 2", "r is given twice, first in line 3", "p[1]", 4),
        ("a: [&x 1]\nb: {<<: *x}", "<< takes mappings", "b.<<", 2),
        ("a: &x [*x]", "*x stands for nothing that ends before it", "a[0]", 1),
        ("a: &x 1\n---\nb: *x", "*x stands for nothing that ends before it", "b", 3),
        ("a: &x k\n*x : 2", "a key cannot be an alias; write it out", "", 2),
        ("? [a]\n: b", "a key must be a word, not a list or mapping", "", 1),
        ("a:\n  !!int b", "has the tag tag:yaml.org,2002:int, which is not allowed; remove it", "a", 2),
        ("a: !!set {b}", "has the tag tag:yaml.org,2002:set, which is not allowed; remove it", "a", 1),
        ("[[[[[[\n[1]]]]]]]", "is nested more than 6 deep", "[0][0][0][0][0][0]", 2),
        ("a: &x [[[[1]]]]\nb: [[*x]]", "is nested more than 6 deep", "b[0][0]", 2),
        ("[" + "1, " * 100 + "1]", "has more than 100 values, those behind aliases counted each time", "[99]", 1),
        ("x: &x [1, 2, 3, 4, 5, 6, 7, 8]\ny: [" + "*x, " * 11 + "1]", "has more than 100 values", "y[9]", 2),
        ("a: " + "x" * 2000, "is larger than 2000 bytes", "", 0),
        ("a: " + "ü" * 1000, "is larger than 2000 bytes", "", 0),
        ("a: [", "is not YAML: ", "", 2),
    ],
)
def test_refused_text_names_problem_field_and_line(text: str, problem: str, field: str, line: int) -> None:
    with pytest.raises(YamlError) as caught:
        load_all(text, SMALL)
    assert caught.value.problem.startswith(problem)
    assert (caught.value.field, caught.value.line) == (field, line)
    assert str(caught.value).endswith(f" (line {line})" if line else problem)


def test_second_document_is_refused_where_one_is_expected() -> None:
    with pytest.raises(YamlError, match=r"has more than one document \(line 2\)"):
        load("a: 1\n---\nb: 2")
    assert load_all("a: 1\n---\nb: 2") == [{"a": 1}, {"b": 2}]


def test_line_of_a_field_is_its_own_or_the_nearest() -> None:
    text = "a: 1\nlist:\n- x: 1\n-\n  kind: mqtt\n  y:\n    z: 2\n"
    paths: list[list[str | int]] = [["list", 1, "y", "z"], ["list", 1, "mqtt", "y"], ["list", 1, "gone"], ["list", 0]]
    assert lines_of(text, paths) == [7, 6, 5, 3]
    assert lines_of("a: [", [["a"]]) == [0]


def test_file_is_read_within_its_bounds(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"x" * 2001)
    with pytest.raises(YamlError, match="larger than 2000 bytes"):
        read_text(path, SMALL)
    with pytest.raises(YamlError, match="cannot be read: Is a directory"):
        read_text(tmp_path, SMALL)
    with pytest.raises(YamlError, match="larger than 2000 bytes"):
        read_text(Path("/dev/zero"), SMALL)


def test_nothing_reads_yaml_but_the_one_loader() -> None:
    readers = {"load", "load_all", "safe_load", "safe_load_all", "full_load", "unsafe_load", "parse", "compose"}
    found = []
    for path in SERVICES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "yaml":
                found += [path.name] if node.attr in readers else []
    assert found == ["plain_yaml.py"]
