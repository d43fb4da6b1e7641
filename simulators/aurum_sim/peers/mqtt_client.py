"""The MQTT client of simulated devices."""

import asyncio

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

IN_FLIGHT = 1000  # messages that the broker has not acknowledged


def create_client(name: str) -> mqtt.Client:
    """Creates a client that limits its unacknowledged messages and reconnects."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, name)
    client.max_inflight_messages_set(IN_FLIGHT)
    client.reconnect_delay_set(1, 10)
    return client


async def stop_client(client: mqtt.Client) -> None:
    """Disconnects a client and waits for its thread."""
    client.disconnect()
    await asyncio.to_thread(client.loop_stop)
