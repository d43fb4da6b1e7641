"""What learning remembers about a machine type, in DIR/<machine type>/learning.json."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aurum.storage.durable_file import write_file

_FILE = "learning.json"
_MOST_DECISIONS = 50


class LearningStateError(ValueError):
    """The state cannot be read. The message names the file."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision about a model.

    Attributes:
        at: When, as RFC 3339.
        version: The model.
        action: trained, promoted, proposed or withdrawn.
        reason: Why.
    """

    at: str
    version: str
    action: str
    reason: str


@dataclass(frozen=True, slots=True)
class LearningState:
    """The state of one machine type.

    Attributes:
        trained_until_us: The time of the latest reading of the last training, in µs since 1970.
        proposed: The version whose promotion waits for a person; empty if there is none.
        decisions: The latest decisions, the newest last.
    """

    trained_until_us: int = 0
    proposed: str = ""
    decisions: list[Decision] = field(default_factory=list)


def read_state(root: Path, machine_type: str) -> LearningState:
    """Reads the state of a type. Raises LearningStateError if the file cannot be read."""
    path = root / machine_type / _FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return LearningState(
            int(content["trained_until_us"]),
            str(content["proposed"]),
            [Decision(**each) for each in content["decisions"]],
        )
    except FileNotFoundError:
        return LearningState()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise LearningStateError(f"{path} is not readable: {error}; remove it to begin again") from error


def write_state(root: Path, machine_type: str, state: LearningState) -> None:
    """Replaces the state of a type atomically. Raises OSError."""
    (root / machine_type).mkdir(parents=True, exist_ok=True)
    kept = {**asdict(state), "decisions": [asdict(each) for each in state.decisions[-_MOST_DECISIONS:]]}
    write_file(root / machine_type / _FILE, (json.dumps(kept, indent=1) + "\n").encode())
