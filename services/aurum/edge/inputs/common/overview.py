"""What the gateway shows of an input and its devices, in /overview and by `aurum edge status`. Its size is bounded."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aurum.edge.inputs.common.batch_builder import BatchBuilder
from aurum.edge.inputs.common.device_stats import DeviceState
from aurum.edge.inputs.common.printable import printable
from aurum.edge.inputs.common.refusals import Reason, Tally
from aurum.readings.batch import now_us

MAX_SHOWN = 200  # devices of all inputs of a gateway; also renamed and unusable names
_MAX_DEVICES = 10  # of one input
_MAX_NAMES = 20  # renamed and unusable names of one input, each
_MAX_TEXT = 200  # characters of a name or an example
_MAX_REASONS = 4  # of one device
_MAX_CORRECTIONS = 6  # reasons of one input; fewer are reasons for corrections
_MAX_PROBLEM = 1000  # characters


def describe_input(
    name: str, builder: BatchBuilder, problem: str | None, losses: Sequence[str], max_shown: int
) -> dict[str, Any]:
    """Returns the state of an input.

    Args:
        name: The input.
        builder: The values of the input.
        problem: Why it is not connected; None if it is.
        losses: What its configuration loses by itself.
        max_shown: The greatest number of devices, and of names. The devices with the lowest quality come first.
    """
    now = now_us()
    devices, refusals, tags = builder.devices, builder.refusals, builder.tags
    worst = devices.worst(min(max_shown, _MAX_DEVICES))
    names = min(max_shown, _MAX_NAMES)
    return {
        "name": name,
        "problem": problem and printable(problem, _MAX_PROBLEM),
        "sources": len(devices),
        "worst_quality": round(devices.worst_quality, 4),
        "clock_skew_seconds": round(devices.largest_skew_seconds, 6),
        "accepted": devices.accepted,
        "readings_per_second": round(devices.rate(now), 3),
        "refused": _describe_tallies(refusals.refused),
        "corrected": _describe_tallies(refusals.corrected, _MAX_CORRECTIONS),
        "contested": tags.contested(),
        "losses": [printable(loss, _MAX_TEXT) for loss in losses],
        "renamed": [
            {
                "machine": printable(tag.machine, _MAX_TEXT),
                "sensor": printable(tag.name, _MAX_TEXT),
                "stored_machine": tag.machine_id,
                "stored_sensor": tag.sensor,
            }
            for tag in tags.renamed[:names]
        ],
        "unusable": [
            {
                "machine": printable(machine, _MAX_TEXT),
                "sensor": printable(sensor, _MAX_TEXT),
                "problem": printable(text, _MAX_PROBLEM),
            }
            for (machine, sensor), text in list(tags.unusable.items())[:names]
        ],
        "worst": [_describe_device(device, state, now) for device, state in worst],
    }


def _describe_device(device: str, state: DeviceState, now: int) -> dict[str, Any]:
    return {
        "source": printable(device, _MAX_TEXT),
        "quality": round(state.quality, 4),
        "clock_skew_seconds": round(state.skew_us / 1e6, 6),
        "seen": _iso(state.seen_us),
        "accepted": state.accepted,
        "readings_per_second": round(state.rate(now), 3),
        "last": _describe_last(state),
        "refused": _describe_tallies(state.refused, _MAX_REASONS),
        "corrected": _describe_tallies(state.corrected, _MAX_REASONS),
    }


def _describe_last(state: DeviceState) -> dict[str, Any] | None:
    """Returns the latest stored value, with the names that the device uses and those under which it is stored."""
    if state.last is None:
        return None
    tag, at_us, value = state.last
    return {
        "machine": printable(tag.machine, _MAX_TEXT),
        "sensor": printable(tag.name, _MAX_TEXT),
        "stored_machine": tag.machine_id,
        "stored_sensor": tag.sensor,
        "value": value,
        "time": _iso(at_us),
    }


def _describe_tallies(tallies: Mapping[Reason, Tally], most: int = len(Reason)) -> list[dict[str, Any]]:
    """Returns the tallies, the most frequent reason first."""
    ordered = sorted(tallies.items(), key=lambda entry: -entry[1].count)
    return [
        {
            "reason": str(reason),
            "count": tally.count,
            "example": tally.example,
            "last": _iso(int(tally.last_at * 1e6)),
        }
        for reason, tally in ordered[:most]
    ]


def _iso(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds")
