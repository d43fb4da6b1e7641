"""What a birth message says about the metrics of a node or device: their names, aliases and data types."""

from dataclasses import dataclass, field

from aurum.edge.inputs.sparkplug.templates import names_in_birth
from aurum.v1.sparkplug_pb2 import SparkplugMetric, SparkplugPayload

_MAX_METRICS = 100_000  # of a device


@dataclass(slots=True)
class BirthMetrics:
    """The metrics of a birth message.

    Attributes:
        names: The name of each alias. A member of a template has the name of the template, a slash, and its own.
        types: The data type of each name.
        ambiguous: For each alias that the birth gives to several names, two of them. No value by it can be named.
        omitted: The number of metrics beyond the limit. Their values cannot be named by an alias.
        alive: Whether the node or device is connected.
    """

    names: dict[int, str] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    ambiguous: dict[int, tuple[str, str]] = field(default_factory=dict)
    omitted: int = 0
    alive: bool = False

    @classmethod
    def from_payload(cls, payload: SparkplugPayload) -> "BirthMetrics":
        """Reads a birth message."""
        born = cls(alive=True)
        for metric in payload.metrics:
            for name, member in names_in_birth(metric):
                born._add(name, member)
        return born

    def _add(self, name: str, metric: SparkplugMetric) -> None:
        if len(self.types) >= _MAX_METRICS:
            self.omitted += 1
            return
        self.types[name] = metric.datatype
        if not metric.HasField("alias"):
            return
        other = self.names.setdefault(metric.alias, name)
        if other != name:
            self.ambiguous[metric.alias] = (other, name)

    def name_of(self, alias: int) -> str | None:
        """Returns the name of an alias; None if it is unknown or ambiguous."""
        return None if alias in self.ambiguous else self.names.get(alias)
