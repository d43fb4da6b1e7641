"""Which gateways are connected to ingestion, as its replicas tell."""

from collections import OrderedDict

_MOST_GATEWAYS, _MOST_REPLICAS = 2000, 64  # that are remembered; the latest ones


class GatewayConnections:
    """The gateways by what each replica of ingestion has said last."""

    def __init__(self) -> None:
        self._gateways: OrderedDict[str, OrderedDict[str, bool]] = OrderedDict()  # the latest news last

    def note(self, name: str, replica: str, *, connected: bool) -> None:
        """Notes whether a gateway is connected to a replica of ingestion, given by its address."""
        replicas = self._gateways.setdefault(name, OrderedDict())
        replicas[replica] = connected
        for latest, least in ((replicas, _MOST_REPLICAS), (self._gateways, _MOST_GATEWAYS)):
            latest.move_to_end(replica if latest is replicas else name)
            while len(latest) > least:
                latest.popitem(last=False)

    def connected(self) -> frozenset[str]:
        """Returns the gateways that are connected to a replica."""
        return frozenset(name for name, replicas in self._gateways.items() if any(replicas.values()))
