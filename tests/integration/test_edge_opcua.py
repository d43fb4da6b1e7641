"""A gateway that subscribes to a real OPC UA server."""

import asyncio
import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.edge import input_counts, input_problem, is_connected, newest_time, start_gateway, stored_values
from tests.support.opcua_server import OpcuaServer
from tests.support.platform import Platform
from tests.support.proxy import Mode, Proxy
from tests.support.waiting import wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpcuaServer]:
    running = OpcuaServer(tmp_path)
    yield running
    running.stop()


def opcua(port: int, **more: Any) -> dict[str, Any]:
    return {
        "name": "cell",
        "protocol": "opcua",
        "endpoint": f"opc.tcp://127.0.0.1:{port}/plant",
        "browse": [{"root": "ns=2;s=Plant"}],
        "publishing": 0.1,
        "queue": 100,
        **more,
    }


def test_opcua_variables_are_browsed_and_subscribed(platform: Platform, server: OpcuaServer) -> None:
    server.start(200, 0.2)
    start_gateway(platform, opcua(server.port, rules=[{"sensor": "s1", "becomes": "load", "scale": 10}]))
    wait_for(lambda: len(stored_values(platform, "press-0", "load")) > 5, 30, "readings")
    found = stored_values(platform, "press-0", "load")
    assert found == sorted(found)
    assert all(value % 10 == 0 for value in found)
    assert stored_values(platform, "press-1", "s99")


def test_missing_opcua_node_is_logged_and_others_subscribed(platform: Platform, server: OpcuaServer) -> None:
    server.start(100, 0.2)
    nodes = [
        {"node": "ns=2;s=press-0.s5", "machine": "m-1", "sensor": "five"},
        {"node": "ns=2;s=nowhere", "machine": "m-1", "sensor": "none"},
    ]
    start_gateway(platform, opcua(server.port, browse=[], nodes=nodes))
    wait_for(lambda: stored_values(platform, "m-1", "five"), 30, "readings of the one that is there")
    assert "ns=2;s=nowhere was refused by the server: BadNodeIdUnknown" in platform.processes["edge"].log.read_text()


def missing(platform: Platform, name: str) -> float:
    return platform.metric("edge", f'edge_input_missing{{input="{name}"}}')


def test_reordered_namespaces_store_no_other_nodes_values(platform: Platform, server: OpcuaServer) -> None:
    server.start(10, 0.2)
    nodes = [
        {"node": "ns=2;s=press-0.s1", "machine": "m-1", "sensor": "by_index"},
        {"node": "nsu=urn:aurumai:test;s=press-0.s2", "machine": "m-1", "sensor": "by_uri"},
    ]
    start_gateway(platform, opcua(server.port, nodes=nodes))
    wait_for(lambda: stored_values(platform, "m-1", "by_uri"), 30, "readings")
    for moment in ("while the gateway runs", "while it is away"):
        server.stop()
        if moment == "while it is away":
            platform.processes["edge"].kill()
        server.start(10, 0.2, "--before", "urn:other")
        before = len(stored_values(platform, "m-1", "by_index"))
        if moment == "while it is away":
            platform.restart("edge")
        wait_for(lambda: len(stored_values(platform, "m-1", "by_index")) > before + 5, 60, f"again, {moment}")  # noqa: B023
    for machine, sensor in (("m-1", "by_index"), ("m-1", "by_uri"), ("press-0", "s0")):
        found = stored_values(platform, machine, sensor)
        assert len(found) > 10, sensor
        assert 999.0 not in found, sensor
    assert input_problem(platform, "cell") == ""


def test_opcua_namespace_that_is_gone_stores_nothing(platform: Platform, server: OpcuaServer) -> None:
    server.start(10, 0.2)
    start_gateway(platform, opcua(server.port))
    wait_for(lambda: stored_values(platform, "press-0", "s0"), 30, "readings")
    server.stop()
    server.start(10, 0.2, "--uri", "urn:new", "--before", "urn:other")
    wait_for(lambda: "ns=2 was urn:aurumai:test" in input_problem(platform, "cell"), 60, "it is told")
    assert not is_connected(platform, "cell")
    assert missing(platform, "cell") == 1
    assert 999.0 not in stored_values(platform, "press-0", "s0")


def test_missing_browse_root_shows_beside_data_of_others(platform: Platform, server: OpcuaServer) -> None:
    server.start(10, 0.2, "--uncertain")
    browse = [
        {"root": "ns=2;s=Plant"},
        {"root": "ns=2;s=Plnt"},
        {"root": "ns=2;s=Plant", "path": "{machine}/x/{sensor}"},
    ]
    start_gateway(platform, opcua(server.port, browse=browse), opcua(server.port, name="empty", browse=browse[1:2]))
    wait_for(lambda: stored_values(platform, "press-0", "s1"), 30, "readings of the root that is there")
    assert is_connected(platform, "cell")
    assert missing(platform, "cell") == 2
    assert "ns=2;s=Plnt cannot be browsed: BadNodeId" in input_problem(platform, "cell")
    assert "browsing ns=2;s=Plant finds no variable at {machine}/x/{sensor}" in input_problem(platform, "cell")
    wait_for(
        lambda: "ns=2;s=Plnt cannot be browsed" in input_problem(platform, "empty"), 30, "so it is for an empty input"
    )
    assert not is_connected(platform, "empty")
    uncertain = 'edge_input_refused_total{input="cell",reason="bad_quality"}'
    wait_for(lambda: platform.metric("edge", uncertain) > 1, 30, "uncertain values are counted")
    log = platform.processes["edge"].log.read_text()
    assert "press-0 s0: UncertainLastUsableValue (ns=2;s=press-0.s0)" in log


def test_opcua_calls_respect_the_limits_of_the_server(platform: Platform, server: OpcuaServer) -> None:
    server.start(150, 0.5, "--limit", "40")
    start_gateway(platform, opcua(server.port))
    wait_for(lambda: stored_values(platform, "press-1", "s49"), 30, "readings of the last one")
    assert stored_values(platform, "press-0", "s0")
    assert server.count_in_log("refused") == 0


def test_opcua_input_reconnects_to_returning_server(platform: Platform, server: OpcuaServer) -> None:
    server.start(100, 0.2)
    start_gateway(platform, opcua(server.port))
    wait_for(lambda: stored_values(platform, "press-0", "s0"), 30, "readings")
    server.stop()
    wait_for(lambda: not is_connected(platform, "cell"), 30, "its absence is noticed")
    before = len(stored_values(platform, "press-0", "s0"))
    server.start(100, 0.2)
    wait_for(lambda: len(stored_values(platform, "press-0", "s0")) > before + 5, 60, "readings come again")
    wait_for(lambda: is_connected(platform, "cell"), 15, "so it is told of")


@pytest.mark.proof("devices")
@pytest.mark.parametrize("way_back", ["pass", "delay"])
def test_broken_opcua_connection_loses_no_change(platform: Platform, server: OpcuaServer, way_back: Mode) -> None:
    """A broken OPC UA connection loses and doubles no change, also when the network is slow."""
    server.start(10, 0.1)
    proxy = Proxy(server.port)
    # This server forgets what lies there for long, and on the slow way at most one notification a second is fetched
    start_gateway(platform, opcua(proxy.port, publishing=0.5))
    wait_for(lambda: len(stored_values(platform, "press-0", "s0")) > 10, 30, "readings")
    for _ in range(3):
        proxy.set("reset")
        proxy.set(way_back)
        broken = time.time()
        wait_for(lambda: newest_time(platform, "press-0", "s0") > broken + 2, 60, "readings come again")  # noqa: B023
        proxy.set("pass")
    found = stored_values(platform, "press-0", "s0")
    proxy.close()
    assert found == [float(number) for number in range(int(found[0]), int(found[0]) + len(found))]
    assert input_counts(platform, "cell", "messages").get("gap", 0) == 0


@pytest.mark.proof("devices")
def test_killed_gateway_stores_opcua_changes_once(platform: Platform, server: OpcuaServer) -> None:
    """After SIGKILLs of the gateway changes are stored once, and only those of each outage are missing."""
    server.start(10, 0.05)
    start_gateway(platform, opcua(server.port))
    for _ in range(3):
        before = len(stored_values(platform, "press-0", "s0"))
        wait_for(lambda: len(stored_values(platform, "press-0", "s0")) > before + 20, 60, "readings come")  # noqa: B023
        accepted = input_counts(platform, "cell")["accepted"]
        platform.processes["edge"].kill(signal.SIGKILL)
        stored = sum(len(stored_values(platform, "press-0", f"s{number}")) for number in range(10))
        platform.restart("edge")
        wait_for(
            lambda: sum(len(stored_values(platform, "press-0", f"s{number}")) for number in range(10)) > stored + 100,  # noqa: B023
            60,
            "they come again",
        )
    found = stored_values(platform, "press-0", "s0")
    assert found == sorted(set(found)), "a change is stored twice"
    gaps = [later - sooner for sooner, later in itertools.pairwise(found) if later - sooner != 1]
    assert len(gaps) <= 3, "changes are missing while it was there"
    assert len(found) * 10 >= accepted


def test_opcua_input_encrypts_and_verifies_server(platform: Platform, server: OpcuaServer, tmp_path: Path) -> None:
    asyncio.run(certificate(tmp_path, "server", "urn:aurumai:test-server", ExtendedKeyUsageOID.SERVER_AUTH))
    asyncio.run(certificate(tmp_path, "edge", "urn:aurumai:edge", ExtendedKeyUsageOID.CLIENT_AUTH))
    asyncio.run(certificate(tmp_path, "other", "urn:aurumai:other", ExtendedKeyUsageOID.SERVER_AUTH))
    server.start(100, 0.2, "--certificates", str(tmp_path))
    own = {"certificate": str(tmp_path / "edge.der"), "key": str(tmp_path / "edge.pem")}
    start_gateway(
        platform,
        opcua(server.port, security={**own, "server_certificate": str(tmp_path / "server.der")}),
        opcua(server.port, name="pinned-wrong", security={**own, "server_certificate": str(tmp_path / "other.der")}),
        opcua(server.port, name="in-the-clear"),
    )
    wait_for(lambda: len(stored_values(platform, "press-0", "s0")) > 5, 30, "readings come")

    def problems() -> dict[str, str | None]:
        return {each["name"]: each["problem"] for each in platform.admin("edge", "/overview").json["inputs"]}

    wait_for(
        lambda: "No matching endpoints" in (problems()["in-the-clear"] or ""), 40, "it cannot be read in the clear"
    )
    wait_for(
        lambda: "no answer" in (problems()["pinned-wrong"] or ""), 40, "nobody talks with a key that is not theirs"
    )
    assert problems()["cell"] is None
    assert input_counts(platform, "pinned-wrong").get("accepted", 0) == 0
    assert input_counts(platform, "in-the-clear").get("accepted", 0) == 0


async def certificate(folder: Path, name: str, uri: str, use: Any) -> None:
    await setup_self_signed_certificate(
        folder / f"{name}.pem", folder / f"{name}.der", uri, "127.0.0.1", [use], {"commonName": name}
    )


@pytest.mark.proof("devices")
def test_ten_thousand_opcua_variables_are_stored(platform: Platform, server: OpcuaServer) -> None:
    """Changes of 10,000 OPC UA variables are stored."""
    server.start(10_000, 5.0)
    start_gateway(platform, opcua(server.port, publishing=1.0))
    wait_for(lambda: input_counts(platform, "cell").get("accepted", 0) >= 20_000, 120, "two changes of all are safe")
    wait_for(lambda: len(stored_values(platform, "press-99", "s99")) >= 2, 30, "those of the last one are stored")
