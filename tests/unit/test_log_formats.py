"""What somebody else has sent cannot pass for a line of the log, or for a formula in a table."""

import json
import logging

import pytest

from aurum.api.table_export import to_csv
from aurum.runtime.settings import Settings, load_settings
from aurum.runtime.telemetry.logging import setup_logging

FORGED = "pump-1\n2026-11-29 12:00:00 INFO forged\x1b[31m\r\u2028end"


@pytest.mark.parametrize("log_format", ["text", "json", "ecs"])
def test_message_is_one_line_in_every_format(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        setup_logging("api", load_settings(Settings, log_format=log_format))
        logging.getLogger("test").warning("machine %s is unknown", FORGED)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    (line,) = [line for line in capsys.readouterr().out.split("\n") if line]
    assert "\x1b" not in line
    assert "\r" not in line
    if log_format != "text":
        assert FORGED in json.loads(line)["message"]


def test_names_that_look_like_formulas_are_text_in_csv() -> None:
    table = {"site": ["=1+1", "+x", "-x", "@x", "\tx", "hall 2"], "kwh": [1.0, -2.0, 3.0, 4.0, 5.0, 6.0]}
    lines = to_csv(table).decode().splitlines()
    assert lines[1:] == ["'=1+1,1.0", "'+x,-2.0", "'-x,3.0", "'@x,4.0", "'\tx,5.0", "hall 2,6.0"]
