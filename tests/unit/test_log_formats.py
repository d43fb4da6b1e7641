"""What somebody else has sent cannot pass for a line of the log, or for a formula in a table."""

import json
import logging
from datetime import UTC, datetime

import numpy as np
import pytest
from pythonjsonlogger.json import JsonFormatter

from aurum.api.table_export import HourlyTable, encode_csv
from aurum.runtime.settings import Settings, load_settings
from aurum.runtime.telemetry.logging import (
    ContextualJSONFormatter,
    reset_request_context,
    set_log_level,
    set_request_context,
    setup_logging,
)

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


@pytest.mark.parametrize("ecs", [False, True])
def test_lines_without_error_have_the_same_fields(ecs: bool) -> None:
    formatter = ContextualJSONFormatter(service="api", environment="test", ecs=ecs)
    record = logging.LogRecord("test", logging.INFO, __file__, 1, "%s é", ("machine",), None)
    record.__dict__.update(
        {
            "duration_ms": 1.5,
            "endpoint": "/x",
            "at": datetime(2026, 1, 1, tzinfo=UTC),
            "_own": 1,
            "service": "other",
            "request_id": "other",
            "yes": True,
            "é": "é",
        }
    )
    token = set_request_context(request_id="r-1")
    try:
        assert formatter.format(record) == JsonFormatter.format(formatter, record)
    finally:
        reset_request_context(token)


def test_verbose_libraries_log_warnings_only() -> None:
    level = logging.getLogger().level
    try:
        set_log_level("INFO")
        enabled = {
            name: logging.getLogger(name).isEnabledFor(logging.INFO) for name in ("asyncua.client", "aurum.edge")
        }
    finally:
        set_log_level(logging.getLevelName(level))
    assert enabled == {"asyncua.client": False, "aurum.edge": True}


def test_names_that_look_like_formulas_are_text_in_csv() -> None:
    names = ["=1+1", "+x", "-x", "@x", "\tx", "hall 2"]
    groups = ((name, {"kwh": np.array([float(number)])}) for number, name in enumerate(names, start=1))
    table = HourlyTable([datetime(1970, 1, 1, tzinfo=UTC)], "site", ("kwh",), groups)
    lines = b"".join(encode_csv(table)).decode().splitlines()
    at = "1970-01-01T00:00:00Z"
    assert lines[0] == "start,site,kwh"
    assert lines[1:] == [
        f"{at},'=1+1,1.0",
        f"{at},'+x,2.0",
        f"{at},'-x,3.0",
        f"{at},'@x,4.0",
        f"{at},'\tx,5.0",
        f"{at},hall 2,6.0",
    ]
