"""The edge gateways that send to this process: which are connected, and from which one a machine's readings come.

The gateways of machines are stored too, so that they are known after a restart; see
aurum.ingestion.stored_gateways. Which gateways are connected is known only to the process.
"""

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from aurum.ingestion import metrics
from aurum.readings.batch import SeriesKeys, now_us

_MOST = 1000  # gateways; of more, those that have been away for longest are forgotten
_MOST_KEYS = 64  # of a gateway, whose machines need not be looked at again
_SETTLED_SECONDS = 60.0  # before a machine that several gateways send may change its gateway again


@dataclass(frozen=True, slots=True)
class GatewayState:
    """A gateway.

    Attributes:
        name: Its name.
        connected: Whether it has an Ingest stream.
        since_us: Since when it has one, or has none, in µs since 1970.
        version: The version of all gateways at its last change.
    """

    name: str
    connected: bool
    since_us: int
    version: int


@dataclass(slots=True)
class _Gateway:
    state: GatewayState
    streams: int = 0
    noted: OrderedDict[int, SeriesKeys] = field(default_factory=OrderedDict)  # by their identity


class Gateways:
    """The gateways, and the machines whose readings they sent. For one event loop.

    Attributes:
        version: A number that increases with each change of a gateway.
    """

    def __init__(
        self,
        on_machine: Callable[[str], None],
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts without gateways.

        Args:
            on_machine: Called with each machine whose gateway has changed.
            on_change: Called when a gateway has changed.
            clock: Monotonic time in seconds.
        """
        self._on_machine = on_machine
        self._on_change = on_change
        self._clock = clock
        self._gateways: OrderedDict[str, _Gateway] = OrderedDict()  # the latest change last
        self._machines: dict[str, tuple[str, float]] = {}  # machine → gateway, when it was noted
        self._unwritten: dict[str, str] = {}  # machine → gateway; at most one entry for each machine of the plant
        self.version = 0

    @property
    def unwritten(self) -> dict[str, str]:
        """The machines with their gateways that are not stored yet."""
        return dict(self._unwritten)

    def written(self, gateways: Mapping[str, str]) -> None:
        """Notes that gateways of machines have been stored. Those that have changed meanwhile stay unwritten."""
        for machine_id, name in gateways.items():
            if self._unwritten.get(machine_id) == name:
                del self._unwritten[machine_id]
        metrics.ingestion_gateways_unwritten.set(len(self._unwritten))

    def restore(self, gateways: Mapping[str, str]) -> None:
        """Takes over the gateways of machines as they are stored. What is not stored yet is newer."""
        at = self._clock() - _SETTLED_SECONDS
        for machine_id, name in gateways.items():
            before = self.of(machine_id)
            if name == before or machine_id in self._unwritten:
                continue
            self._machines[machine_id] = name, at
            if before in self._gateways:
                self._gateways[before].noted.clear()
            self._on_machine(machine_id)

    def of(self, machine_id: str) -> str:
        """Returns the gateway that last sent readings of a machine; empty if none did."""
        return self._machines.get(machine_id, ("", 0.0))[0]

    def changed_since(self, version: int) -> Iterator[GatewayState]:
        """Yields the gateways that changed after `version`, the latest change first."""
        for gateway in reversed(self._gateways.values()):
            if gateway.state.version <= version:
                return
            yield gateway.state

    @contextlib.contextmanager
    def connected(self, name: str) -> Iterator[None]:
        """Notes a stream of a gateway during the block. name: The gateway; empty for other senders."""
        if not name:
            yield
            return
        gateway = self._gateways.get(name)
        if gateway is None:
            gateway = self._gateways[name] = _Gateway(GatewayState(name, connected=False, since_us=0, version=0))
        gateway.streams += 1
        self._note(name, gateway)
        self._forget_surplus()
        try:
            yield
        finally:
            gateway.streams -= 1
            self._note(name, gateway)

    def note_batch(self, keys: SeriesKeys, name: str) -> None:
        """Notes from which gateway the machines of a durable batch come. Batches of other senders change nothing."""
        gateway = self._gateways.get(name)
        if gateway is None or id(keys) in gateway.noted:
            return
        gateway.noted[id(keys)] = keys  # keeps the object, so that its identity stays its own
        while len(gateway.noted) > _MOST_KEYS:
            gateway.noted.popitem(last=False)
        now = self._clock()
        for machine_id in keys.machine_ids:
            before, at = self._machines.get(machine_id, ("", now - _SETTLED_SECONDS))
            if before == name:
                continue
            if now - at < _SETTLED_SECONDS:
                gateway.noted.pop(id(keys), None)  # it is looked at again
                continue
            self._machines[machine_id] = name, now
            self._unwritten[machine_id] = name
            if before in self._gateways:
                self._gateways[before].noted.clear()
            self._on_machine(machine_id)
        metrics.ingestion_gateways_unwritten.set(len(self._unwritten))

    def _note(self, name: str, gateway: _Gateway) -> None:
        connected = gateway.streams > 0
        if connected == gateway.state.connected and gateway.state.version:
            return
        self.version += 1
        gateway.state = replace(gateway.state, connected=connected, since_us=now_us(), version=self.version)
        self._gateways[name] = gateway
        self._gateways.move_to_end(name)
        metrics.ingestion_gateways.set(sum(each.state.connected for each in self._gateways.values()))
        self._on_change()

    def _forget_surplus(self) -> None:
        while len(self._gateways) > _MOST:
            away = next((name for name, each in self._gateways.items() if not each.streams), None)
            if away is None:
                return  # the limits of streams bound the connected ones
            del self._gateways[away]
            metrics.ingestion_gateways_forgotten_total.inc()
