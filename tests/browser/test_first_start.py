"""What a newcomer sees: that the plant is simulated, how far its models are, and how to connect an own machine."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Watched, opened, violations
from tests.support.http import http
from tests.support.models import pump_model
from tests.support.mosquitto import Mosquitto
from tests.support.platform import Platform
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A simulated plant with a past, at its first start: one model is there, and two are in training."""
    running = Platform(
        tmp_path_factory.mktemp("started"),
        extra={
            "AURUM_PREDICTION_TRAIN_MISSING": "pump,motor,conveyor",
            "AURUM_CONSOLE_SIMULATION_SPEED": "120",
        },
    )
    pump_model(running.folder / "models")
    for service in ("ingestion", "prediction", "api", "edge"):
        running.start(service)
    simulator = ("--machines", "12", "--speed-up", "120", "--backfill", "0", "--past-days", "3")
    running.start("iot-sim", *simulator)
    yield running
    running.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    running = Mosquitto(tmp_path / "broker")
    yield running
    running.close()


def test_banner_tells_the_simulation_and_its_training(page: Page, started: Platform) -> None:
    """Its speed, how many models are ready, and which one was not trained; then only the speed."""
    opened(page, started)
    banner = page.locator(".banner.simulation")
    expect(banner).to_contain_text("These machines are simulated. They age 120 times faster than real time.")
    expect(banner.locator("[data-training]")).to_contain_text(re.compile("Models in training: [1-2] of 3 are ready"))
    assert violations(page) == []
    trainer = wait_for(lambda: _trainers(started, "motor"), 30, "the training of motors")
    os.kill(trainer[0], signal.SIGKILL)
    expect(banner).to_contain_text("No model for motor was trained: its process was killed by SIGKILL")
    conveyor = wait_for(lambda: _trainers(started, "conveyor"), 30, "the training of conveyors")
    os.kill(conveyor[0], signal.SIGKILL)
    expect(banner.locator("[data-training]")).to_have_text("")
    page.locator("[data-choice=language]").select_option("es")
    expect(page.locator(".banner.simulation")).to_contain_text("Envejecen 120 veces más rápido")
    page.locator("[data-choice=language]").select_option("en")


def _trainers(platform: Platform, machine_type: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if machine_type in arguments and str(platform.folder / "models") in arguments:
            found.append(int(process.name))
    return found


def test_machine_with_a_past_shows_it_at_the_first_look(page: Page, started: Platform) -> None:
    """Predictions of days, maintenance, and yesterday's energy are there without waiting."""
    answer = http("GET", f"{started.api}/api/machines/pump-001/predictions?limit=1000")
    wait_for(
        lambda: len(http("GET", f"{started.api}/api/machines/pump-001/predictions?limit=1000").json["items"]) > 60,
        30,
        f"the past is predicted: {answer.status}",
    )
    energy = http("GET", f"{started.api}/api/energy?group_by=site").json
    assert energy
    opened(page, started, "/machines/pump-001")
    expect(page.locator("[data-sensor=vibration_mm_s] canvas")).to_be_visible()


def test_wrong_address_shows_a_page_and_not_json(page: Page, started: Platform, watched: Watched) -> None:
    """In the console's frame, with the status 404; programs still get a problem document."""
    watched.expected = ["404"]
    answer = page.goto(f"{started.api}/nothing/here")
    assert answer is not None
    assert answer.status == 404
    page.wait_for_selector("html[data-ready]")
    expect(page.get_by_role("heading", level=1)).to_have_text("Page not found")
    expect(page.get_by_text("There is no page at /nothing/here.")).to_be_visible()
    page.get_by_role("link", name="Go to the plant").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Plant")
    told = http("GET", f"{started.api}/nothing/here")
    assert told.status == 404
    assert told.json["detail"] == "there is no route /nothing/here; /docs lists the routes"
    assert http("GET", f"{started.api}/api/nothing", headers={"Accept": "text/html"}).json["status"] == 404


def commands(page: Page) -> dict[str, str]:
    shown = page.locator("[data-command]")
    return {
        str(each.get_attribute("data-command")): each.inner_text()
        for each in [shown.nth(index) for index in range(shown.count())]
    }


def run(command: str, folder: Path, **environment: str) -> str:
    """Runs a command of the page in the folder, in which the platform is installed."""
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(ROOT / ".venv")
    done = subprocess.run(
        ["bash", "-c", command],
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout.decode()


def values(platform: Platform, sensor: str = "temperature_c") -> list[float]:
    answer = http("GET", f"{platform.api}/api/machines/my-machine/metrics?sensor={sensor}&points=0")
    return [value for series in answer.json["series"] for value in series["values"]] if answer.status == 200 else []


def test_commands_of_the_connect_page_connect_a_machine(
    page: Page, started: Platform, tmp_path: Path, broker: Mosquitto
) -> None:
    """Each command, as it is shown, does what the page says, with real services and a real broker."""
    opened(page, started)
    page.locator(".banner.simulation a").click()
    expect(page).to_have_url(f"{started.api}/connect")
    expect(page.get_by_role("heading", level=1)).to_have_text("Connect your own machine")
    assert violations(page) == []
    shown = commands(page)
    assert set(shown) == {"send", "register", "table", "upload", "broker", "inputs", "restart", "publish"}
    assert all(started.api in shown[name] for name in ("send", "register", "upload"))

    run(shown["send"], tmp_path)
    run(shown["register"], tmp_path)
    wait_for(lambda: 21.5 in values(started), 20, "the reading of the request")
    run(shown["table"], tmp_path)
    run(shown["upload"], tmp_path)
    wait_for(lambda: 21.7 in values(started), 20, "the reading of the table")
    assert values(started, "power_kw") == [4.2]
    assert http("GET", f"{started.api}/api/machines/my-machine").json["machine_type"] == "pump"

    # The test's broker has a port of its own, and the gateway starts with the setting of `make run`
    here = {name: command.replace("1883", str(broker.port)) for name, command in shown.items()}
    assert "my-broker" in run(here["inputs"], tmp_path)
    setting, value = re.fullmatch(r"(\w+)=(\S+) make run", here["restart"]).groups()  # type: ignore[union-attr]
    started.processes["edge"].kill(signal.SIGTERM)
    started.extra[setting] = str(tmp_path / value)
    started.restart("edge")
    wait_for(
        lambda: started.metric("edge", 'edge_input_connected{input="my-broker"') == 1, 20, "the gateway is subscribed"
    )
    run(here["publish"], tmp_path)
    wait_for(lambda: 21.9 in values(started), 20, "the reading of the broker")


def test_command_is_copied_and_tells_so(page: Page, started: Platform) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened(page, started, "/connect")
    block = page.locator("[data-way=curl] .command").first
    block.get_by_role("button").click()
    expect(block.get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == block.locator("code").inner_text()


def test_api_reference_needs_nothing_from_elsewhere(page: Page, started: Platform) -> None:
    """/docs describes every operation, with files of this server alone."""
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith(started.api) else None)
    page.goto(f"{started.api}/docs")
    operation = page.locator('[data-operation="post /api/machines/{machine_id}/predict"]')
    expect(operation.locator("summary")).to_contain_text("POST /api/machines/{machine_id}/predict")
    described = http("GET", f"{started.api}/openapi.json").json["paths"]
    expect(page.locator("[data-operation]")).to_have_count(sum(map(len, described.values())))
    operation.locator("summary").click()
    operation.get_by_role("link", name="PredictionOut").click()
    expect(page.locator("#PredictionOut pre")).to_be_visible()
    assert foreign == []
    assert violations(page) == []
