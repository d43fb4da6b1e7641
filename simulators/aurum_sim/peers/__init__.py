"""Simulated devices that use other protocols than gRPC, for the inputs of a gateway."""

from enum import Enum

from aurum_sim.peers.peer import Peer


class Kind(Enum):
    GRPC = "grpc"
    MQTT = "mqtt"
    SPARKPLUG = "sparkplug"
    OPCUA = "opcua"
    MODBUS = "modbus"


_PORTS = {Kind.MQTT: 1883, Kind.SPARKPLUG: 1883, Kind.OPCUA: 4840, Kind.MODBUS: 5020}


def make_peer(kind: Kind, address: str) -> Peer | None:
    """Makes the peer of a protocol; None for gRPC.

    Args:
        kind: The protocol.
        address: host:port of the broker, or of the server to start; by default 127.0.0.1 and the protocol's port.
    """
    host, _, port = (address or "127.0.0.1").partition(":")
    where = host, int(port) if port else _PORTS.get(kind, 0)
    match kind:
        case Kind.GRPC:
            return None
        case Kind.MQTT:
            from aurum_sim.peers.mqtt import MqttPeer

            return MqttPeer(*where)
        case Kind.SPARKPLUG:
            from aurum_sim.peers.sparkplug import SparkplugPeer

            return SparkplugPeer(*where)
        case Kind.OPCUA:
            from aurum_sim.peers.opcua import OpcuaPeer

            return OpcuaPeer(*where)
        case Kind.MODBUS:
            from aurum_sim.peers.modbus import ModbusPeer

            return ModbusPeer(*where)
