"""Simulated devices that use other protocols than gRPC, to test the inputs of a gateway."""

from enum import Enum

from aurum_sim.peers.peer import Peer


class PeerKind(Enum):
    """A protocol by which simulated devices send."""

    GRPC = "grpc"
    MQTT = "mqtt"
    SPARKPLUG = "sparkplug"
    OPCUA = "opcua"
    MODBUS = "modbus"


_PORTS = {PeerKind.MQTT: 1883, PeerKind.SPARKPLUG: 1883, PeerKind.OPCUA: 4840, PeerKind.MODBUS: 5020}


def make_peer(kind: PeerKind, address: str) -> Peer | None:
    """Creates the peer of a protocol; None for gRPC.

    Args:
        kind: The protocol.
        address: host:port of the broker, or of the server to start; by default 127.0.0.1 and the protocol's port.
    """
    host, _, port = (address or "127.0.0.1").partition(":")
    endpoint = host, int(port) if port else _PORTS.get(kind, 0)
    match kind:
        case PeerKind.GRPC:
            return None
        case PeerKind.MQTT:
            from aurum_sim.peers.mqtt import MqttPeer

            return MqttPeer(*endpoint)
        case PeerKind.SPARKPLUG:
            from aurum_sim.peers.sparkplug import SparkplugPeer

            return SparkplugPeer(*endpoint)
        case PeerKind.OPCUA:
            from aurum_sim.peers.opcua import OpcuaPeer

            return OpcuaPeer(*endpoint)
        case PeerKind.MODBUS:
            from aurum_sim.peers.modbus import ModbusPeer

            return ModbusPeer(*endpoint)
