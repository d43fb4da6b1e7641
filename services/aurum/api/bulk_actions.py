"""One action on many alarms: what it does to each, and one write for all of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from aurum.alarms.lifecycle import Alarm, AlarmState, Transition
from aurum.api.alarm_service import AlarmService


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What an action did to one alarm.

    Attributes:
        alarm_id: The alarm.
        before: Its state before; None if there is no such alarm.
        alarm: The alarm afterwards; None if there is no such alarm.
        changed: Whether the action changed it. False if it already was as the action makes it.
    """

    alarm_id: str
    before: AlarmState | None
    alarm: Alarm | None
    changed: bool = False


@dataclass(frozen=True, slots=True)
class BulkAction:
    """An action of an operator on many alarms.

    Attributes:
        is_done: Whether an alarm already is as the action makes it.
        transition: Makes the transition for an alarm.
    """

    is_done: Callable[[Alarm], bool]
    transition: Callable[[Alarm], Transition]


def acknowledging(by: str, reason: str, now_us: int) -> BulkAction:
    """Returns the action that acknowledges alarms.

    Args:
        by: The operator.
        reason: Why they are acknowledged together; may be empty.
        now_us: The present time in µs since 1970.
    """
    return BulkAction(
        lambda alarm: alarm.acknowledged,
        lambda alarm: Transition("acknowledged", alarm.machine_id, alarm.rule, now_us, by, reason=reason),
    )


def shelving(until_us: int, by: str, reason: str, now_us: int) -> BulkAction:
    """Returns the action that shelves alarms.

    Args:
        until_us: When the shelving ends, in µs since 1970.
        by: The operator.
        reason: Why they are shelved.
        now_us: The present time in µs since 1970.
    """
    return BulkAction(
        lambda alarm: (alarm.shelved_until_us, alarm.reason) == (until_us, reason),
        lambda alarm: Transition("shelved", alarm.machine_id, alarm.rule, now_us, by, until_us, reason=reason),
    )


async def perform_on_all(
    service: AlarmService,
    alarm_ids: Iterable[str],
    action: BulkAction,
    is_visible: Callable[[str], bool] | None,
    now_us: int,
) -> Sequence[BulkResult]:
    """Performs an action on alarms. It is idempotent: those that already are as it makes them stay unchanged.

    Args:
        service: The alarms.
        alarm_ids: The alarms; each is handled once.
        action: The action.
        is_visible: Whether the operator may see a machine, by its id; None if all. Alarms of other machines appear not
            to exist.
        now_us: The present time in µs since 1970.

    Returns:
        What became of each alarm, in the order of `alarm_ids`.

    Raises:
        UnavailableError: The action could not be recorded. Nothing was changed.
    """
    before: dict[str, Alarm | None] = {}
    for alarm_id in alarm_ids:
        alarm = service.find(alarm_id)
        hidden = alarm is not None and is_visible is not None and not is_visible(alarm.machine_id)
        before[alarm_id] = None if hidden else alarm
    changes = {
        alarm_id: action.transition(alarm)
        for alarm_id, alarm in before.items()
        if alarm is not None and not action.is_done(alarm)
    }
    await service.perform_all(list(changes.values()))
    return [
        BulkResult(
            alarm_id,
            alarm.state(now_us) if alarm else None,
            (service.find(alarm_id) or alarm) if alarm else None,
            alarm_id in changes,
        )
        for alarm_id, alarm in before.items()
    ]
