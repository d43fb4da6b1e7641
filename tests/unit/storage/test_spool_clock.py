"""How old batches are when clocks jump, systems restart and files of state are damaged."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.edge.spool import Spool, SpoolOptions
from aurum.edge.spool_clock import SpoolClock, Uptime
from aurum.storage.state_file import read_state, write_state
from tests.support.spool import drain, make_batch, put_batches

DAY = 86_400_000_000
_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=4))


class System:
    """A system with an uptime, which may be started anew, and a clock on the wall, which may be set."""

    def __init__(self) -> None:
        self.up, self.boot, self.wall = 5_000_000, 1, 1_790_000_000_000_000

    @property
    def uptime(self) -> Uptime:
        return Uptime(f"boot-{self.boot}", lambda: self.up)

    def reboot(self) -> None:
        self.up, self.boot = 1_000_000, self.boot + 1


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    found = System()
    monkeypatch.setattr("aurum.edge.spool_clock.time.time_ns", lambda: found.wall * 1000)
    monkeypatch.setattr("aurum.edge.spool_clock.system_uptime", lambda: found.uptime)
    return found


def test_clock_goes_on_over_restarts_of_the_process(tmp_path: Path, system: System) -> None:
    path = tmp_path / "clock.json"
    clock = SpoolClock(path, 0)
    first = clock.now_us()
    assert first == system.wall
    system.up += 7 * DAY
    clock.save()
    system.up += 2 * DAY  # the process was away
    assert SpoolClock(path, 0).now_us() == first + 9 * DAY


def test_time_for_which_the_system_was_off_is_not_counted(tmp_path: Path, system: System) -> None:
    path = tmp_path / "clock.json"
    clock = SpoolClock(path, 0)
    clock.save()
    first = clock.now_us()
    system.reboot()
    system.wall += 400 * DAY  # whatever the clock on the wall says
    again = SpoolClock(path, 0)
    assert again.now_us() == first
    system.up += DAY
    assert again.now_us() == first + DAY


def test_clock_is_never_before_the_newest_batch(tmp_path: Path, system: System) -> None:
    assert SpoolClock(tmp_path / "clock.json", system.wall + DAY).now_us() == system.wall + DAY


@pytest.mark.parametrize("jump", [8 * DAY, -20 * DAY])
async def test_jump_of_the_clock_gives_up_nothing_fresh(tmp_path: Path, system: System, jump: int) -> None:
    """Batches of a moment ago stay, whether the clock jumps while the gateway runs or over a restart."""
    spool = Spool(SpoolOptions(tmp_path / "spool"))
    await spool.start()
    await put_batches(spool, make_batch(1), make_batch(2))
    system.wall += jump
    await spool.drop_expired()
    assert spool.batches == 2
    await spool.close()
    system.reboot()
    system.wall -= 2 * jump
    spool = Spool(SpoolOptions(tmp_path / "spool"))
    await spool.start()
    await put_batches(spool, make_batch(3))
    await spool.drop_expired()
    assert spool.batches == 3
    system.up += 8 * DAY
    await spool.drop_expired()
    assert spool.batches == 0
    await spool.close()


@given(_JSON, _JSON, st.data())
def test_damaged_state_is_that_of_before_or_the_last(
    tmp_path_factory: pytest.TempPathFactory, first: object, second: object, data: st.DataObject
) -> None:
    """Whatever byte of a file of state is changed, what is read was written once."""
    path = tmp_path_factory.mktemp("state") / "state.json"
    write_state(path, {"n": first})
    write_state(path, {"n": second})
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert read_state(path) in ({"n": first}, {"n": second})


async def test_flipped_bit_in_acknowledgements_loses_nothing(tmp_path: Path) -> None:
    """A damaged acked.json makes batches be sent again, never be taken for acknowledged."""
    spool = Spool(SpoolOptions(tmp_path))
    await spool.start()
    await put_batches(spool, *(make_batch(sequence) for sequence in range(1, 41)))
    await spool.live.acknowledge(range(1, 13))
    await spool.close()
    path = tmp_path / "acked.json"
    text = path.read_text()
    path.write_text(text.replace("12", "32", 1) if "[0,12]" in text else text.replace("0,12", "0,32", 1))
    assert path.read_text() != text
    spool = Spool(SpoolOptions(tmp_path))
    await spool.start()
    assert set(range(13, 41)) <= set(await drain(spool.backlog))
    await spool.close()


def test_state_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "acked.json"
    path.write_text(json.dumps([[0, 4], [7, 8]]))
    assert read_state(path) == [[0, 4], [7, 8]]
    assert read_state(tmp_path / "none.json") is None
