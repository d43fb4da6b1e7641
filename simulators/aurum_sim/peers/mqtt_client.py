"""The MQTT client of simulated devices."""

import asyncio

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

IN_FLIGHT = 1000  # messages that the broker has not acknowledged


def client(name: str) -> mqtt.Client:
    made = mqtt.Client(CallbackAPIVersion.VERSION2, name)
    made.max_inflight_messages_set(IN_FLIGHT)
    made.reconnect_delay_set(1, 10)
    return made


async def stop(client: mqtt.Client) -> None:
    client.disconnect()
    await asyncio.to_thread(client.loop_stop)
