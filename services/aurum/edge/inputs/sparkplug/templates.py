"""Takes templates (UDTs) apart into their members, which have names such as `Pump1/temperature`."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from aurum.edge.inputs.common.refusals import Reason
from aurum.v1.sparkplug_pb2 import SparkplugMetric

MAX_DEPTH: Final = 8  # templates inside each other
MAX_MEMBERS: Final = 10_000  # of one template, with those inside
_GOOD = 192  # value of the property Quality

Resolve = Callable[[SparkplugMetric, str], str | None]


class FlatMetric(NamedTuple):
    """A metric that is no template.

    Attributes:
        metric: The metric.
        name: Its name, with those of the templates around it; None if it is unknown.
        at_ms: Its time in ms since the epoch, or that of the template around it; 0 if neither has one.
        historical: Whether it is a value of the past.
        transient: Whether its node asks not to store it.
        good: Whether its quality is good.
        problem: Why nothing of it is stored, as a reason and text; None if it is stored.
    """

    metric: SparkplugMetric
    name: str | None
    at_ms: int = 0
    historical: bool = False
    transient: bool = False
    good: bool = True
    problem: tuple[Reason, str] | None = None


def flatten(metric: SparkplugMetric, resolve: Resolve) -> Iterator[FlatMetric]:
    """Yields a metric, or the members of a template. Members inherit the time and the flags of the template.

    Args:
        metric: The metric.
        resolve: Returns the name of a metric, given the name of the template around it; None if it is unknown.
    """
    if metric.WhichOneof("value") != "template_value":
        yield _describe(metric, resolve(metric, ""), None)
        return
    for number, member in enumerate(_members(metric, resolve, "", None, 1)):
        if number < MAX_MEMBERS:
            yield member
        else:
            yield member._replace(problem=(Reason.UNSUPPORTED, f"the template has more than {MAX_MEMBERS} members"))


def names_in_birth(metric: SparkplugMetric, around: str = "", depth: int = 1) -> Iterator[tuple[str, SparkplugMetric]]:
    """Yields a metric of a birth, and the members of a template, by name. Those without a name are left out.

    Args:
        metric: The metric.
        around: The name of the template around it.
        depth: The number of templates around it, plus one.
    """
    name = explicit_name(metric, around)
    if name is None:
        return
    yield name, metric
    template = metric.template_value
    if depth <= MAX_DEPTH and not template.is_definition:
        for member in template.metrics:
            yield from names_in_birth(member, name, depth + 1)


def explicit_name(metric: SparkplugMetric, around: str) -> str | None:
    """Returns the name that a metric itself has; None if it has none, or a blank one."""
    if not metric.name.strip():
        return None
    return f"{around}/{metric.name}" if around else metric.name


def _members(
    metric: SparkplugMetric, resolve: Resolve, around: str, parent: FlatMetric | None, depth: int
) -> Iterator[FlatMetric]:
    flat = _describe(metric, resolve(metric, around), parent)
    if metric.WhichOneof("value") != "template_value" or metric.is_null or flat.name is None:
        yield flat
        return
    template = metric.template_value
    if template.is_definition:
        return
    if depth > MAX_DEPTH:
        yield flat._replace(problem=(Reason.UNSUPPORTED, f"has more than {MAX_DEPTH} templates inside each other"))
        return
    for member in template.metrics:
        yield from _members(member, resolve, flat.name, flat, depth + 1)


def _describe(metric: SparkplugMetric, name: str | None, parent: FlatMetric | None) -> FlatMetric:
    if parent is None:
        return FlatMetric(
            metric, name, metric.timestamp, metric.is_historical, metric.is_transient, _has_good_quality(metric)
        )
    return FlatMetric(
        metric,
        name,
        metric.timestamp or parent.at_ms,
        metric.is_historical or parent.historical,
        metric.is_transient or parent.transient,
        parent.good and _has_good_quality(metric),
    )


def _has_good_quality(metric: SparkplugMetric) -> bool:
    properties = metric.properties
    for key, value in zip(properties.keys, properties.values, strict=False):
        if key == "Quality":
            return int(value.int_value or value.long_value) == _GOOD
    return True
