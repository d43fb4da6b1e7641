"""What the gateway's overview and `aurum edge status` show of inputs and devices."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import numpy as np
from typer.testing import CliRunner

from aurum.cli import app
from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.configuration import TagRule
from aurum.edge.inputs.common.overview import MAX_SHOWN, describe_input
from aurum.edge.inputs.common.refusals import Reason
from aurum.readings.batch import now_us
from tests.support.batch_builder import MemorySpool, make_builder


def filled_builder() -> BatchBuilder:
    builder = make_builder(MemorySpool(), TagRule(sensor="level", maximum=100))
    builder.add_value("Öfen [1]", "Öfen [1]", "level", 24_000_000, 21.5)
    builder.add_value("Öfen [1]", "Öfen [1]", "level", None, 101.0)
    builder.add_value("pump-1", "pump-1", "t" * 65, None, 1.0)
    builder.add_value("pump-1", "pump-1", "t", now_us() - 30_000_000, 4.0)
    return builder


def overview(builder: BatchBuilder, problem: str | None = None, shown: int = MAX_SHOWN) -> dict[str, Any]:
    state = describe_input("hall-1", builder, problem, (), shown)
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    return state


def test_overview_tells_values_refusals_and_original_names() -> None:
    state = overview(filled_builder())
    assert (state["accepted"], state["sources"]) == (2, 2)
    assert {each["reason"]: each["count"] for each in state["refused"]} == {"out_of_range": 1, "invalid_name": 1}
    assert [each["reason"] for each in state["corrected"]] == ["wrong_time"]
    assert [each["sensor"] for each in state["unusable"]] == ["t" * 65]
    oven = next(each for each in state["worst"] if each["source"] == "Öfen [1]")
    assert oven["last"]["stored_machine"] == "x00D6_fen_x0020__x005B_1_x005D_"
    assert (oven["last"]["machine"], oven["last"]["value"]) == ("Öfen [1]", 21.5)
    assert oven["refused"][0]["example"] == "Öfen [1] level: 101 is greater than 100"
    assert oven["corrected"][0]["example"] == "Öfen [1] level: 1970-01-01T00:00:24+00:00"
    pump = next(each for each in state["worst"] if each["source"] == "pump-1")
    assert -31 < pump["clock_skew_seconds"] < -29


def test_overview_is_bounded_for_any_names() -> None:
    builder = make_builder(MemorySpool())
    for number in range(300):
        name = f"{number}\ud800\x1b[31m" + "Ö" * 5000
        builder.add_value(name, name, "ü" * 9, None, 1.0)
        for reason in Reason:
            builder.refusals.refuse(reason, name, device=name)
            builder.refusals.correct(reason, name, device=name)
    builder.add_values("d", np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0), np.empty(0, bool))
    text = json.dumps(overview(builder, "no answer " * 1000), ensure_ascii=False)
    assert len(text.encode()) < 150_000
    assert "\x1b" not in text
    assert len(json.dumps(overview(builder, shown=2))) < 65_000


@contextmanager
def served(content: dict[str, Any]) -> Iterator[str]:
    class Overview(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Overview)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_edge_status_shows_devices_and_refusals() -> None:
    with served({"inputs": [overview(filled_builder())]}) as address:
        answer = CliRunner().invoke(app, ["edge", "status", "--address", address])
    assert answer.exit_code == 0, answer.output
    for shown in (
        "hall-1  connected",
        "refused 1, out of range: Öfen [1] level: 101",
        "corrected 1, wrong time: Öfen [1] level: 1970-01-01T00:00:24",
        "'Öfen [1]' 'level' is stored as x00D6_fen_x0020__x005B_1_x005D_ level",
        "Öfen [1] level = 21.5",
        "cannot be stored",
    ):
        assert shown in answer.output, answer.output


def test_edge_status_fails_for_an_input_that_is_away() -> None:
    runner = CliRunner()
    with served({"inputs": [overview(filled_builder(), "the broker is away")]}) as address:
        answer = runner.invoke(app, ["edge", "status", "--address", address, "--json"])
    assert answer.exit_code == 1
    assert json.loads(answer.output)[0]["problem"] == "the broker is away"
    with served({}) as address:
        assert "has no inputs" in runner.invoke(app, ["edge", "status", "--address", address]).output
    gone = runner.invoke(app, ["edge", "status", "--address", address])
    assert gone.exit_code == 2
    assert "no gateway answers" in gone.output
