"""A gateway that listens to a real broker."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.authority import Authority
from tests.support.commands import command
from tests.support.edge import input_counts, input_problem, is_connected, newest_time, start_gateway, stored_values
from tests.support.mosquitto import Mosquitto
from tests.support.platform import Platform
from tests.support.proxy import Proxy
from tests.support.waiting import wait_for


class Publisher:
    """A device that publishes at QoS 1, and knows what the broker has taken."""

    def __init__(self, port: int, name: str = "device") -> None:
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, name)
        self.client.max_inflight_messages_set(1000)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def publish(self, topic: str, content: Any, qos: int = 1, *, retain: bool = False) -> mqtt.MQTTMessageInfo:
        payload = content if isinstance(content, bytes | str) else json.dumps(content)
        return self.client.publish(topic, payload, qos=qos, retain=retain)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def mqtt_input(port: int, *topics: dict[str, Any], name: str = "hall-1", **broker: Any) -> dict[str, Any]:
    where = {"host": "127.0.0.1", "port": port, **broker}
    return {"name": name, "protocol": "mqtt", "broker": where, "topics": list(topics)}


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_mqtt_messages_become_readings(platform: Platform, broker: Mosquitto, version: str) -> None:
    start_gateway(
        platform,
        {
            "name": "hall-1",
            "protocol": "mqtt",
            "broker": {"host": "127.0.0.1", "port": broker.port, "version": version},
            "topics": [
                {"pattern": "plant/{machine}/state", "timestamp": "ts"},
                {"pattern": "plant/{machine}/csv", "format": "csv", "timestamp": "t"},
            ],
            "rules": [{"sensor": "temp_f", "becomes": "temperature_c", "unit": "degF", "to": "degC"}],
        },
    )
    wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
    device = Publisher(broker.port)
    now = time.time()
    device.publish("plant/pump-1/state", {"ts": now - 2, "temp_f": 212, "vibration": 2.5})
    device.publish("plant/pump-1/state", {"ts": now - 1, "temp_f": 32, "vibration": 2.6}, qos=0)
    device.publish("plant/pump-1/csv", f"t,power\n{now - 2},10\n{now - 1},11\n")
    device.publish("plant/pump-1/state", "no json at all")
    device.publish("elsewhere", "x")
    wait_for(lambda: stored_values(platform, "pump-1", "power") == [10, 11], 15, "the readings are stored")
    assert stored_values(platform, "pump-1", "temperature_c") == pytest.approx([100, 0])
    wait_for(lambda: input_counts(platform, "hall-1", "messages").get("invalid") == 1, 15, "what is no JSON is refused")
    overview = platform.admin("edge", "/overview").json
    (listened,) = overview["inputs"]
    assert (listened["name"], listened["problem"], listened["sources"]) == ("hall-1", None, 1)
    assert abs(listened["clock_skew_seconds"]) < 10
    (source,) = listened["worst"]
    assert (source["source"], source["quality"]) == ("pump-1", 1.0)
    governed = {each["name"]: each for each in platform.admin("edge", "/policy").json["targets"]}
    assert governed["edge/inputs:hall-1"]["breaker"] == "closed"
    assert any(
        "hall-1: unreadable, not stored: plant/pump-1/state is not JSON" in line
        for line in platform.processes["edge"].lines()
    )
    device.close()


def test_second_mqtt_topic_of_a_sensor_is_refused(platform: Platform, broker: Mosquitto) -> None:
    """Two topics with the same machine and sensor do not mix in one series, unless the file declares it."""
    start_gateway(
        platform,
        mqtt_input(
            broker.port,
            {"pattern": "hall/{line}/{machine}/level", "sensor": "level", "format": "number"},
            {"pattern": "copy/{machine}/level", "sensor": "level", "format": "number", "shared_series": True},
        ),
    )
    wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
    device = Publisher(broker.port)
    device.publish("hall/a/pump-1/level", "1").wait_for_publish(10)
    device.publish("hall/b/pump-1/level", "2").wait_for_publish(10)
    device.publish("copy/pump-1/level", "3").wait_for_publish(10)
    device.publish("hall/a/pump-1/level", "4").wait_for_publish(10)
    wait_for(lambda: stored_values(platform, "pump-1", "level") == [1, 3, 4], 15, "the other values are stored")
    assert input_counts(platform, "hall-1", "readings")["invalid"] == 1
    wait_for(lambda: platform.metric("edge", 'edge_input_contested{input="hall-1"}') == 1, 15, "the topic is counted")
    assert any(
        "pump-1 level of hall/b/pump-1/level would be stored as pump-1 level, as pump-1 level of hall/a/pump-1/level is"
        in line
        for line in platform.processes["edge"].lines()
    )
    device.close()


@pytest.mark.parametrize(
    ("when_full", "shown"), [("hold_back", "full: inputs and devices wait"), ("drop_oldest", "batches: full")]
)
def test_status_shows_a_full_spool_and_why(
    platform: Platform, fast_broker: Mosquitto, when_full: str, shown: str
) -> None:
    """`aurum edge status` and the overview tell what waits, why, and what was dropped."""
    inputs = platform.folder / "inputs.yaml"
    platform.folder.mkdir(parents=True, exist_ok=True)
    topic = {"pattern": "plant/{machine}/state"}
    inputs.write_text(yaml.safe_dump({"inputs": [mqtt_input(fast_broker.port, topic)]}))
    platform.extra |= {
        "AURUM_EDGE_INPUTS": str(inputs),
        "AURUM_EDGE_SPOOL_MAX_BYTES": "1000000",
        "AURUM_EDGE_SPOOL_WHEN_FULL": when_full,
    }
    platform.start("edge")
    wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
    device, chance = Publisher(fast_broker.port), random.Random(1)
    for _ in range(1500):
        device.publish("plant/pump-1/state", {f"s{number}": chance.random() for number in range(100)})

    def status() -> str:
        address = f"127.0.0.1:{platform.port('edge admin')}"
        return command("edge", "status", "--address", address).stdout

    wait_for(lambda: shown in status(), 40, "the status tells of the full spool")
    wait_for(lambda: "not forwarded: edge/ingestion" in status(), 15, "the status tells why")
    spool = platform.admin("edge", "/overview").json["spool"]
    assert spool["limit_bytes"] == 1_000_000
    assert bool(spool["waiting_writes"]) == (when_full == "hold_back")
    assert set(spool["dropped"]) == (set() if when_full == "hold_back" else {"full"})
    device.close()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_retained_mqtt_messages_are_stored_once(platform: Platform, broker: Mosquitto, version: str) -> None:
    """Restarts store retained messages neither again nor as if they were of now, and lose no live ones."""
    device = Publisher(broker.port)
    measured = time.time() - 3600
    device.publish("plant/pump-1/state", {"ts": measured, "pressure": 2.5}, retain=True).wait_for_publish(10)
    device.publish("level/tank-1", "70.5", retain=True).wait_for_publish(10)
    topics = (
        {"pattern": "plant/{machine}/state", "timestamp": "ts"},
        {"pattern": "level/{machine}", "format": "number", "sensor": "level"},
    )
    start_gateway(platform, mqtt_input(broker.port, *topics, version=version))

    def count_old() -> float:
        return platform.metric("edge", 'edge_input_refused_total{input="hall-1",reason="old"}')

    wait_for(lambda: stored_values(platform, "pump-1", "pressure") == [2.5], 15, "the timed one is stored")
    assert newest_time(platform, "pump-1", "pressure") == pytest.approx(measured, abs=0.001)
    assert count_old() == 1
    assert stored_values(platform, "tank-1", "level") == []
    for _ in range(2):
        device.publish("level/tank-1", "73.2", retain=True)
    wait_for(lambda: stored_values(platform, "tank-1", "level") == [73.2, 73.2], 15, "the live ones are stored")
    for _ in range(2):
        platform.processes["edge"].kill(signal.SIGKILL)
        platform.restart("edge")
        wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
        wait_for(lambda: count_old() >= 2, 15, "both are old, also those whose acknowledgement the kill prevented")
    device.publish("level/tank-1", "73.2", retain=True)
    wait_for(lambda: stored_values(platform, "tank-1", "level") == [73.2] * 3, 15, "the next live one is stored")
    assert stored_values(platform, "pump-1", "pressure") == [2.5]
    device.close()


def test_nested_mqtt_values_are_stored_and_others_told(platform: Platform, broker: Mosquitto) -> None:
    rules = [{"sensor": "ENERGY.Power", "becomes": "power_w"}, {"sensor": "*.id", "drop": True}]
    start_gateway(
        platform, mqtt_input(broker.port, {"pattern": "tele/{machine}", "timestamp": "Time"}) | {"rules": rules}
    )
    wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
    device = Publisher(broker.port)
    energy = {"Power": "55,5", "Voltage": "227.5", "Phases": [1.5, 2.5], "State": "ON", "id": "a7"}
    device.publish("tele/plug-1", {"Time": time.time(), "ENERGY": energy})
    device.publish("tele/plug-1", {"Time": time.time(), "ENERGY": {"Power": 55}})
    device.publish("tele/plug-1", {"Time": time.time()})
    device.publish("tele/plug-1", '{"Wifi": {"Password": "hunter2"')
    wait_for(lambda: stored_values(platform, "plug-1", "power_w") == [55], 15, "what is a number is stored")
    assert stored_values(platform, "plug-1", "ENERGY.Voltage") == [227.5]
    assert stored_values(platform, "plug-1", "ENERGY.Phases.1") == [2.5]
    expected = {"not_a_number": 1, "text": 1, "nothing_in_it": 1, "unreadable": 1}
    for reason, count in expected.items():
        metric = f'edge_input_refused_total{{input="hall-1",reason="{reason}"}}'
        wait_for(lambda: platform.metric("edge", metric) == count, 15, reason)  # noqa: B023
    log = platform.processes["edge"].log.read_text()
    assert "plug-1 ENERGY.Power: '55,5' is not a number" in log
    assert "nothing in it, not stored: tele/plug-1: {" in log
    assert "hunter2" not in log
    device.close()


def test_mqtt_readings_survive_kills_and_network_faults(platform: Platform, tmp_path: Path) -> None:
    """Kills and network faults lose and double no reading that the broker has acknowledged."""
    broker = Mosquitto(tmp_path / "broker")
    proxy = Proxy(broker.port)
    start_gateway(
        platform,
        {
            "name": "hall-1",
            "protocol": "mqtt",
            "broker": {"host": "127.0.0.1", "port": proxy.port, "keepalive": 5},
            "topics": [{"pattern": "plant/{machine}/state", "timestamp": "ts"}],
        },
    )
    wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
    device = Publisher(broker.port)
    began = time.time() - 100
    sent: list[tuple[int, mqtt.MQTTMessageInfo]] = []

    def send(count: int) -> None:
        for _ in range(count):
            number = len(sent)
            info = device.publish("plant/pump-1/state", {"ts": began + number / 1000, "number": number})
            sent.append((number, info))
            time.sleep(0.002)

    send(300)
    platform.processes["edge"].kill(signal.SIGKILL)
    send(300)
    platform.restart("edge")
    send(300)
    proxy.set("reset")
    send(200)
    proxy.set("pass")
    send(300)
    proxy.set("drop")  # what was acknowledged does not get through, and comes again
    send(200)
    proxy.set("reset")
    proxy.set("pass")
    wait_for(lambda: is_connected(platform, "hall-1"), 30, "the gateway is connected again")
    send(100)
    for _, info in sent:
        info.wait_for_publish(30)
    broker.stop(signal.SIGTERM)
    broker.start()
    wait_for(device.client.is_connected, 30, "the device is connected again")
    send(100)
    acknowledged = [number for number, info in sent if _taken(info)]
    assert len(acknowledged) == len(sent)
    wait_for(lambda: len(stored_values(platform, "pump-1", "number")) >= len(sent), 60, "all readings are stored")
    assert stored_values(platform, "pump-1", "number") == acknowledged
    device.close()
    proxy.close()
    broker.close()


@pytest.mark.proof("devices")
def test_untimed_messages_are_stored_once_despite_kills(platform: Platform, broker: Mosquitto) -> None:
    """MQTT messages without a timestamp are stored once, however often the gateway is killed."""
    topic = {"pattern": "plant/{machine}/{sensor}", "format": "number", "sensor": "{sensor}"}
    start_gateway(platform, mqtt_input(broker.port, topic))
    wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
    device = Publisher(broker.port)
    sent: list[mqtt.MQTTMessageInfo] = []
    for _ in range(4):
        for _ in range(400):
            sent.append(device.publish("plant/pump-1/number", str(len(sent))))
            time.sleep(0.001)
        platform.processes["edge"].kill(signal.SIGKILL)
        platform.restart("edge")
    for info in sent:
        assert _taken(info)
    wait_for(lambda: len(stored_values(platform, "pump-1", "number")) >= len(sent), 60, "all readings are stored")
    time.sleep(1)
    assert sorted(stored_values(platform, "pump-1", "number")) == list(range(len(sent)))
    device.close()


@pytest.mark.proof("devices")
def test_redelivery_of_killed_broker_stores_nothing_twice(platform: Platform, broker: Mosquitto) -> None:
    """A broker that forgot acknowledgements in a SIGKILL redelivers, and nothing is stored twice."""
    start_gateway(platform, mqtt_input(broker.port, {"pattern": "plant/{machine}/state", "timestamp": "ts"}))
    wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
    device = Publisher(broker.port)
    began = time.time() - 100
    count = 0
    for _ in range(3):
        for _ in range(300):
            device.publish("plant/pump-1/state", {"ts": began + count / 1000, "number": count}).wait_for_publish(30)
            count += 1
        stored = set(stored_values(platform, "pump-1", "number"))
        broker.stop(signal.SIGKILL)
        broker.start()
        wait_for(device.client.is_connected, 30, "the device is connected again")
        wait_for(lambda: is_connected(platform, "hall-1"), 30, "the gateway is connected again")
    for _ in range(300):
        assert _taken(device.publish("plant/pump-1/state", {"ts": began + count / 1000, "number": count}))
        count += 1
    wait_for(lambda: stored_values(platform, "pump-1", "number")[-1:] == [count - 1], 60, "the last reading is stored")
    found = stored_values(platform, "pump-1", "number")
    assert len(found) == len(set(found))
    assert stored <= set(found)
    assert found[-300:] == list(range(count - 300, count))
    device.close()


@pytest.mark.proof("devices")
def test_full_spool_pauses_mqtt_input_and_drops_nothing(platform: Platform, fast_broker: Mosquitto) -> None:
    """A full spool pauses the MQTT input, and no message is dropped."""
    platform.extra["AURUM_EDGE_SPOOL_MAX_BYTES"] = "1000000"
    start_gateway(platform, mqtt_input(fast_broker.port, {"pattern": "plant/{machine}/state", "timestamp": "ts"}))
    wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
    platform.processes["ingestion"].kill()
    device = Publisher(fast_broker.port)
    rng = random.Random(7)  # what does not compress
    began = time.time() - 1000
    sensors, messages = 8, 30_000
    values = [[rng.random() for _ in range(sensors)] for _ in range(messages)]
    for number, each in enumerate(values):
        content = {f"s{place}": value for place, value in enumerate(each)}
        device.publish(f"plant/pump-{number % 100}/state", {"ts": began + number / 1000, **content})
    held_back = 'edge_input_held_back_seconds_total{input="hall-1"}'
    wait_for(lambda: input_counts(platform, "hall-1")["accepted"] > 1000, 60, "readings are spooled")
    received = -1.0
    for _ in range(60):
        before, received = received, input_counts(platform, "hall-1", "messages")["read"]
        if received == before:
            break
        time.sleep(1)
    assert received < messages, "it reads on although the spool is full"
    assert platform.admin("edge", "/livez").status == 200
    platform.restart("ingestion")
    wait_for(lambda: input_counts(platform, "hall-1")["accepted"] == sensors * messages, 120, "all is read then")
    assert platform.metric("edge", held_back) > 1
    expected = [each[0] for number, each in enumerate(values) if number % 100 == 99]
    wait_for(lambda: stored_values(platform, "pump-99", "s0") == expected, 60, "and stored")
    device.close()


@pytest.mark.proof("devices")
def test_ten_thousand_mqtt_tags_are_stored(platform: Platform, fast_broker: Mosquitto) -> None:
    """Values of 10,000 MQTT tags are stored."""
    start_gateway(
        platform,
        mqtt_input(fast_broker.port, {"pattern": "plant/{machine}/{sensor}", "sensor": "{sensor}", "timestamp": "t"}),
    )
    wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
    device = Publisher(fast_broker.port)
    began = time.time() - 100
    for turn in range(2):
        for number in range(10_000):
            topic = f"plant/press-{number // 100}/s{number % 100}"
            device.publish(topic, {"t": began + turn, "value": number + turn / 2})
    wait_for(lambda: input_counts(platform, "hall-1")["accepted"] == 20_000, 60, "all are safe")
    for number in (0, 4711, 9999):
        expected = [number, number + 0.5]
        found = (f"press-{number // 100}", f"s{number % 100}")
        wait_for(lambda: stored_values(platform, *found) == expected, 30, f"{found} is stored")  # noqa: B023
    device.close()


def test_mqtt_input_uses_tls_and_password(platform: Platform, tmp_path: Path) -> None:
    Mosquitto.skip_if_missing()
    authority = Authority()
    certificates = authority.fill(tmp_path / "certificates", "broker")
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "aurum", "plant secret"], check=True)
    broker = Mosquitto(
        tmp_path / "broker",
        f"cafile {certificates / 'ca.crt'}\ncertfile {certificates / 'tls.crt'}\nkeyfile {certificates / 'tls.key'}\n"
        f"password_file {passwords}\n",
        anonymous=False,
    )
    (tmp_path / "password").write_text("plant secret\n")
    (tmp_path / "wrong").write_text("guessed\n")
    known = {"authorities": str(certificates / "ca.crt")}
    user = {"username": "aurum", "password_file": str(tmp_path / "password"), "tls": known}
    topic = {"pattern": "plant/{machine}/state", "timestamp": "ts"}
    stranger = {**user, "password_file": str(tmp_path / "wrong")}
    start_gateway(
        platform,
        mqtt_input(broker.port, topic, **user),
        mqtt_input(broker.port, topic, name="stranger", **stranger),
        mqtt_input(broker.port, topic, name="trusts-nobody", **{**user, "tls": {}}),
    )
    wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
    device = mqtt.Client(CallbackAPIVersion.VERSION2, "device")
    device.username_pw_set("aurum", "plant secret")
    device.tls_set(str(certificates / "ca.crt"))
    device.connect("127.0.0.1", broker.port)
    device.loop_start()
    began = time.time() - 100
    for number in range(3000):
        device.publish("plant/pump-1/state", json.dumps({"ts": began + number / 1000, "number": number}), qos=1)
    wait_for(lambda: stored_values(platform, "pump-1", "number") == list(range(3000)), 30, "the readings are stored")
    device.disconnect()
    device.loop_stop()

    def problems() -> dict[str, str | None]:
        return {each["name"]: each["problem"] for each in platform.admin("edge", "/overview").json["inputs"]}

    wait_for(lambda: "Not authorized" in (problems()["stranger"] or ""), 20, "a wrong password is told of")
    wait_for(lambda: "certificate verify failed" in (problems()["trusts-nobody"] or ""), 20, "so is a strange broker")
    log = platform.processes["edge"].log.read_text()
    assert "plant secret" not in log
    assert "guessed" not in log
    broker.close()


def _taken(info: mqtt.MQTTMessageInfo) -> bool:
    info.wait_for_publish(30)
    return info.is_published()


def start_with_stopped_clock(gateway: Platform, shown: float, *inputs: dict[str, Any]) -> Path:
    """Starts a gateway whose system clock stands still. Returns the file that sets the clock."""
    path, set_clock = gateway.folder / "inputs.yaml", gateway.folder / "clock-is-set"
    gateway.folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"inputs": list(inputs)}))
    gateway.extra |= {
        "AURUM_EDGE_INPUTS": str(path),
        "STOPPED_CLOCK_US": str(int(shown * 1e6)),
        "SET_CLOCK_FILE": str(set_clock),
    }
    gateway.start("edge", module="tests.support.stopped_clock")
    return set_clock


def test_gateways_of_one_moment_do_not_share_a_source(platform: Platform, broker: Mosquitto) -> None:
    """Two gateways with the same inputs start at the same time by their clocks; ingestion stores what both accept."""
    for service in ("ingestion", "api"):
        platform.start(service)
    now = time.time()
    gateways = {
        name: Platform(platform.folder / name, {"ingestion": platform.port("ingestion")}) for name in ("a", "b")
    }
    try:
        for name, gateway in gateways.items():
            topic = {"pattern": f"{name}/{{machine}}/state", "timestamp": "ts"}
            start_with_stopped_clock(gateway, now, mqtt_input(broker.port, topic, client_id=name))
            wait_for(lambda each=gateway: is_connected(each, "hall-1"), 15, f"gateway {name} is connected")  # type: ignore[misc]
        device = Publisher(broker.port)
        for number in range(10):
            for name in gateways:
                content = {"ts": now - 10 + number, "level": number}
                device.publish(f"{name}/tank-{name}/state", content).wait_for_publish(10)
        device.close()
        for name in gateways:
            expected = list(range(10))
            wait_for(
                lambda each=name, all_=expected: stored_values(platform, f"tank-{each}", "level") == all_,  # type: ignore[misc]
                15,
                f"what gateway {name} accepted is stored",
            )
    finally:
        for gateway in gateways.values():
            gateway.stop()


def test_gateway_waits_until_its_clock_is_set(platform: Platform, broker: Mosquitto) -> None:
    """A gateway that starts in 1970 stores nothing, says so, and starts its inputs when it has the time."""
    platform.extra["AURUM_FEATURE_PREDICTIVE"] = "false"
    for service in ("ingestion", "api"):
        platform.start(service)
    topics = [{"pattern": "plant/{machine}/state", "timestamp": "ts"}, {"pattern": "now/{machine}/state"}]
    set_clock = start_with_stopped_clock(platform, 20, mqtt_input(broker.port, *topics))
    wait_for(lambda: "clock" in input_problem(platform, "hall-1"), 15, "the overview shows the clock")
    assert "1970-01-01T00:00:20" in input_problem(platform, "hall-1")
    assert not is_connected(platform, "hall-1")
    set_clock.touch()
    wait_for(lambda: is_connected(platform, "hall-1"), 15, "the gateway is connected")
    device, before = Publisher(broker.port), time.time()
    device.publish("plant/pump-1/state", {"ts": before - 2, "level": 1}).wait_for_publish(10)
    device.publish("now/pump-2/state", {"level": 2}).wait_for_publish(10)
    wait_for(lambda: stored_values(platform, "pump-2", "level") == [2], 15, "the readings are stored")
    assert newest_time(platform, "pump-1", "level") == pytest.approx(before - 2, abs=0.01)
    assert newest_time(platform, "pump-2", "level") >= before - 0.01
    device.close()
