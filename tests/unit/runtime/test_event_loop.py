"""The event loop that a service runs on."""

import asyncio

import pytest

from aurum.runtime import event_loop
from aurum.runtime.settings import EventLoop, SettingsError

uvloop = pytest.importorskip("uvloop")


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.mark.parametrize(
    ("name", "choice", "runs_on_uvloop"),
    [
        ("api", "auto", True),
        ("api", "uvloop", True),
        ("api", "asyncio", False),
        ("edge", "auto", False),
        ("edge", "uvloop", True),
    ],
)
def test_service_runs_on_chosen_event_loop(name: str, choice: EventLoop, runs_on_uvloop: bool) -> None:
    assert isinstance(event_loop.run(name, _loop(), choice), uvloop.Loop) is runs_on_uvloop


def test_auto_falls_back_to_asyncio_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "uvloop", None)
    assert not isinstance(event_loop.run("api", _loop(), "auto"), uvloop.Loop)


def test_missing_uvloop_is_a_settings_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "uvloop", None)
    with pytest.raises(SettingsError, match="AURUM_EVENT_LOOP"):
        event_loop.run("api", _loop(), "uvloop")
