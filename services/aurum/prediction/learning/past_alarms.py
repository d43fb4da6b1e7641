"""The alarms that the rules on predictions would have raised in a simulated past.

They are written after the alarms of the present, so they are history only: an alarm whose condition still holds at the
end of the past is left to the fleet scorer, which raises it now.
"""

from collections.abc import Iterator, Sequence

from aurum.alarms.conditions import Observation
from aurum.alarms.lifecycle import Transition
from aurum.alarms.replay import RuleReplay
from aurum.alarms.rules import AlarmRule, AlarmRules
from aurum.prediction.serving.scoring import Prediction
from aurum.readings.simulated_past import OPERATOR, acknowledged_us

_Change = tuple[bool, float | None, int]


def past_alarms(rules: AlarmRules, predictions: Sequence[Prediction], end_us: int) -> list[Transition]:
    """Returns the transitions of the alarms of one machine that began and ended in its past, in their order.

    Args:
        rules: The rules in force. Those on readings and on silence are left out.
        predictions: The predictions of the machine, the oldest first.
        end_us: The end of the past, in µs since 1970.
    """
    if not predictions:
        return []
    found = [
        transition
        for rule in rules.rules
        if (rule.risk or rule.rul or rule.anomaly) and rule.applies_to(predictions[0].machine_type)
        for transition in _transitions(rule, predictions, end_us)
    ]
    return sorted(found, key=lambda each: each.at_us)


def _transitions(rule: AlarmRule, predictions: Sequence[Prediction], end_us: int) -> Iterator[Transition]:
    changes: list[_Change] = []
    replay = RuleReplay(rule, lambda raised, value, at_us: changes.append((raised, value, at_us)))
    for prediction in predictions:
        replay.add_prediction(_observed(prediction))
    thresholds = {each.as_of_us: each.anomaly_threshold for each in predictions}
    machine_id = predictions[0].machine_id
    for (_, value, raised_us), (_, last_value, cleared_us) in zip(changes[::2], changes[1::2], strict=False):
        yield Transition(
            "raised",
            machine_id,
            rule.name,
            raised_us,
            value=value,
            text=rule.text,
            priority=rule.priority,
            quantity=rule.quantity,
            limit=rule.limit_at(thresholds.get(raised_us, 0.0)),
            past=True,
        )
        at_us = acknowledged_us(raised_us, end_us)
        if at_us is not None:
            yield Transition("acknowledged", machine_id, rule.name, at_us, by=OPERATOR, past=True)
        yield Transition("cleared", machine_id, rule.name, cleared_us, value=last_value, past=True)


def _observed(prediction: Prediction) -> Observation:
    """Returns what the rules see of a prediction."""
    known = not prediction.degraded_reason and not prediction.rule
    return Observation(
        prediction.as_of_us,
        prediction.as_of_us,
        {},
        risk=prediction.risk_score if known else None,
        rul=prediction.rul[0] if prediction.rul else None,
        anomaly=prediction.anomaly_score,
        predicted_us=prediction.as_of_us,
        anomaly_threshold=prediction.anomaly_threshold,
    )
