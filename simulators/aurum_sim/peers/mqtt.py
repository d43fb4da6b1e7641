"""Simulated devices that publish to an MQTT broker."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from aurum_sim import metrics
from aurum_sim.peers.mqtt_client import IN_FLIGHT, create_client, stop_client
from aurum_sim.peers.peer import Sample


class MqttPeer:
    """Publishes each sample as JSON, at QoS 1."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._client = create_client("aurum-iot-sim")
        self._client.on_publish = self._on_publish
        self._room = asyncio.Semaphore(IN_FLIGHT)  # messages that wait for the broker, also while it is unreachable
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self, sensors: Mapping[str, Sequence[str]]) -> None:
        """Starts to connect to the broker."""
        self._loop = asyncio.get_running_loop()
        self._client.connect_async(self._host, self._port)
        self._client.loop_start()

    async def send(self, samples: Sequence[Sample]) -> None:
        """Publishes samples. Waits while too many messages are unacknowledged."""
        for sample in samples:
            await self._room.acquire()
            content = {"ts": sample.at_us / 1e6, **sample.values}
            self._client.publish(f"plant/{sample.machine_id}/state", json.dumps(content), qos=1)
            metrics.simulator_readings_total.labels("made").inc(len(sample.values))

    def _on_publish(self, *_: Any) -> None:
        """Handles an acknowledgement by the broker. Runs on the client's thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._room.release)

    async def close(self) -> None:
        """Disconnects from the broker."""
        await stop_client(self._client)

    def inputs(self) -> dict[str, Any]:
        """Returns the matching input of a gateway's inputs file."""
        return {
            "name": "simulated",
            "protocol": "mqtt",
            "broker": {"host": self._host, "port": self._port},
            "topics": [{"pattern": "plant/{machine}/state", "timestamp": "ts"}],
        }
