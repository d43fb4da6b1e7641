"""Recorded outcomes: writing, reading in blocks, and validation errors with line and field."""

import io

import pytest

from aurum.resilience.outcomes import REJECTED, Outcome, OutcomeError, read_outcomes

GOOD = '{"time":1.5,"target":"a/b/C","duration":0.25,"code":"OK","attempt":2}\n'


class Trickle(io.BytesIO):
    """Gives a few bytes at a time, whatever is asked for."""

    few = 7

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is None or size > self.few
        return super().read(self.few)


def read(text: str, source: str = "trace") -> list[Outcome]:
    return list(read_outcomes(io.BytesIO(text.encode()), source))


def refused(text: str) -> str:
    with pytest.raises(OutcomeError) as caught:
        read(text)
    return str(caught.value)


def test_outcome_is_written_as_json_line() -> None:
    outcome = Outcome(1.5, 'a/"b"/C', 0.25, "UNAVAILABLE", 3)
    expected = '{"time":1.500000,"target":"a/\\"b\\"/C","duration":0.250000,"code":"UNAVAILABLE","attempt":3}\n'
    assert outcome.line() == expected
    assert Outcome(0.0, "a/b/C", 0.0, "OK").attempt == 1
    assert frozenset({"CIRCUIT_OPEN", "LIMIT_EXCEEDED"}) == REJECTED


def test_outcomes_are_read_with_types_and_defaults() -> None:
    assert read(GOOD) == [Outcome(1.5, "a/b/C", 0.25, "OK", 2)]
    assert read('{"time":1,"target":"a/b/C","duration":0,"code":"X"}') == [Outcome(1, "a/b/C", 0, "X", 1)]
    assert read("") == read("\n \n") == []
    assert isinstance(read(GOOD)[0], Outcome)


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_outcomes_are_read_across_blocks(end: str) -> None:
    lines = [Outcome(float(number), "a/b/C", 0.5, "OK", 1) for number in range(5)]
    text = "".join(each.line() for each in lines).strip() + end
    assert list(read_outcomes(Trickle(text.encode()))) == lines


@pytest.mark.parametrize("few", [7, 200])
@pytest.mark.parametrize("number", [1, 2, 4, 9])
def test_line_numbers_are_counted_across_blocks(number: int, few: int) -> None:
    lines = [GOOD] * 9
    lines[number - 1] = "nonsense\n"
    stream = Trickle("".join(lines).encode())
    stream.few = few
    with pytest.raises(OutcomeError, match=rf"^outcomes, line {number}: is not JSON: "):
        list(read_outcomes(stream))


def test_empty_lines_are_included_in_line_numbers() -> None:
    assert refused(f"{GOOD}\n{GOOD}[1]\n{GOOD}") == "trace, line 4: is not an object"


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("time", "null", "must be a number, not None"),
        ("time", '"1"', "must be a number, not '1'"),
        ("time", "true", "must be a number, not True"),
        ("time", "Infinity", "must be a number, not inf"),
        ("target", "1", "must be a text, not 1"),
        ("target", '"a/b"', "'a/b' is not client/server/Method"),
        ("target", '"a/b/C/d"', "'a/b/C/d' is not client/server/Method"),
        ("duration", "null", "must be a number, not None"),
        ("duration", '"1"', "must be a number, not '1'"),
        ("duration", "-0.001", "must not be negative"),
        ("code", "7", "must be a text, not 7"),
        ("attempt", "1.5", "must be a number, not 1.5"),
        ("attempt", "true", "must be a number, not True"),
        ("attempt", "null", "must be a number, not None"),
    ],
)
def test_invalid_outcome_field_is_reported(field: str, value: str, problem: str) -> None:
    fields = {"time": "1", "target": '"a/b/C"', "duration": "0.5", "code": '"OK"', "attempt": "1", field: value}
    line = "{" + ",".join(f'"{name}":{each}' for name, each in fields.items()) + "}\n"
    assert refused(GOOD + line + GOOD) == f"trace, line 2: {field}: {problem}"


@pytest.mark.parametrize("field", ["time", "target", "duration", "code"])
def test_missing_outcome_field_is_reported(field: str) -> None:
    fields = {"time": "1", "target": '"a/b/C"', "duration": "0.5", "code": '"OK"'}
    del fields[field]
    line = "{" + ",".join(f'"{name}":{each}' for name, each in fields.items()) + "}"
    kind = "a text" if field in ("target", "code") else "a number"
    assert refused(line) == f"trace, line 1: {field}: must be {kind}, not None"


ROW = GOOD.strip()


@pytest.mark.parametrize("line", [f"{ROW},{ROW}", f"{ROW}],[{ROW}", f"{ROW} {ROW}", f"{ROW},", f",{ROW}", f"[{ROW}]"])
def test_line_with_more_than_one_object_is_refused(line: str) -> None:
    assert refused(f"{GOOD}{line}\n{GOOD}").startswith("trace, line 2: is not ")
    assert refused(line).startswith("trace, line 1: is not ")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{"time":1.5,"target":"a/b/C"', '"duration":0.25,"code":"OK"}'),
        ('{"time":1.5,"target":"a/b/C","duration":0.25,"code":"O', 'K"}'),
        ('{"time":1.5,"target":"a/b/C","duration":0.25,"code":"OK","more":[{}', "{}]}"),
        ('{"time":1.5,"target":"a/b/C","duration":0.25,"code":"OK","more":[[0]', "[1]]}"),
    ],
)
def test_object_of_two_lines_is_refused(first: str, second: str) -> None:
    assert refused(f"{GOOD}{first}\n{second}\n{ROW},{ROW}\n").startswith("trace, line 2: is not JSON: ")
    assert refused(f"{first}\n{second}").startswith("trace, line 1: is not JSON: ")


def test_outcomes_are_validated_between_empty_lines() -> None:
    assert read(f"\n{GOOD}\n\n{GOOD}") == read(GOOD) * 2
    assert refused(f"\n{GOOD}\n" + GOOD.replace("0.25", "-1")) == "trace, line 4: duration: must not be negative"
