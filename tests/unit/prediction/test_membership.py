"""The live scorers: settings, addresses, and which of them have a share."""

import asyncio
from pathlib import Path

import pytest

from aurum.prediction.fleet.addresses import is_name, join_address, resolve, split_address
from aurum.prediction.fleet.membership import Members, Membership
from aurum.prediction.settings import PredictionSettings
from aurum.runtime.audit import AuditLog
from aurum.runtime.service import Service
from aurum.runtime.settings import SettingsError
from tests.support.ports import free_port
from tests.support.waiting import until


def service_of(folder: Path) -> Service[PredictionSettings]:
    return Service("prediction", PredictionSettings(state_dir=folder), None, AuditLog(None, None))


@pytest.mark.parametrize(
    ("address", "host", "port"), [("a.b:5", "a.b", 5), ("10.0.0.1:50051", "10.0.0.1", 50051), ("[::1]:9", "::1", 9)]
)
def test_addresses_are_split_and_joined(address: str, host: str, port: int) -> None:
    assert split_address(address) == (host, port)
    assert join_address(host, port) == address


@pytest.mark.parametrize("address", ["", "a", "a:", ":1", "a:0", "a:65536", "a:b"])
def test_malformed_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        split_address(address)


async def test_names_are_resolved_and_addresses_kept() -> None:
    assert is_name("localhost")
    assert not is_name("127.0.0.1")
    assert await resolve("127.0.0.1", 7) == ["127.0.0.1:7"]
    assert "127.0.0.1:7" in await resolve("localhost", 7)


async def test_scorers_without_peers_score_everything(tmp_path: Path) -> None:
    membership = Membership(service_of(tmp_path), "", "")
    assert membership.alone
    assert membership.current == Members()
    assert membership.current.scores


@pytest.mark.parametrize(
    ("peers", "own", "variable"),
    [
        ("a", "10.0.0.1", "AURUM_PREDICTION_PEERS"),
        ("a:1", "", "AURUM_PREDICTION_OWN_ADDRESS"),
        ("a:1", "b:x", "AURUM_PREDICTION_OWN_ADDRESS"),
        ("10.0.0.1:1,10.0.0.2:1", "10.0.0.3", "AURUM_PREDICTION_OWN_ADDRESS"),
    ],
)
async def test_contradicting_peers_are_refused(tmp_path: Path, peers: str, own: str, variable: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        Membership(service_of(tmp_path), peers, own)


async def test_dead_peers_have_no_share(tmp_path: Path) -> None:
    own, dead = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    service = service_of(tmp_path)
    async with service.running():
        membership = Membership(service, f"{own},{dead}", own)
        assert not membership.current.scores
        service.spawn(membership.run(), "members")
        await until(lambda: membership.current == Members((own,), own), "this one has all machines")


async def test_scorers_outside_of_dns_wait_for_a_share(tmp_path: Path) -> None:
    service = service_of(tmp_path)
    async with service.running():
        membership = Membership(service, f"localhost:{free_port()}", "10.9.8.7")
        service.spawn(membership.run(), "members")
        await asyncio.sleep(1)
        assert not membership.current.scores
