"""Fault injection: delays, errors, slow responses and crashes, for tests and demonstrations.

It is available only if AURUM_FAULTS_ENABLED is set. A fault affects a share of the calls to a method for a limited
time, in the process that serves them.
"""

import asyncio
import fnmatch
import itertools
import logging
import os
import random
import time
from typing import Any, Literal

import grpc
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aurum.resilience.durations import Duration, Seconds
from aurum.resilience.policy import describe
from aurum.resilience.status import Code
from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, InvalidArgumentError

logger = logging.getLogger(__name__)

_MOST_FAULTS = 100
_ABORTED = 70  # exit code of a process ended by a fault


class InjectedError(AurumError):
    """The error that a fault injects."""

    default_reason = "FAULT_INJECTED"

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(f"a fault was injected: {code.name}")
        self.code = code


class Fault(BaseModel):
    """A fault to inject.

    Kinds: delay (waits before the call), error (fails the call with `code`), drip (waits before each message of a
    response), abort (ends the process at once, like a crash).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["delay", "error", "drip", "abort"]
    method: str = Field("*", description="Affected method, such as Predict. It may be a shell pattern.")
    percentage: float = Field(100.0, gt=0, le=100, description="Percentage of the calls that are affected.")
    delay: Duration = Field(Seconds(1.0), gt=0, le=600, description="delay, drip: length of the delay.")
    code: Code = Field("UNAVAILABLE", description="error: status code of the error.")
    duration: Duration = Field(Seconds(60.0), gt=0, le=86400, description="Time after which the fault ends.")

    @model_validator(mode="after")
    def _abort_is_meant(self) -> "Fault":
        if self.kind == "abort" and self.method == "*":
            raise ValueError("an abort must name its method: else any call at all would end the process")
        return self


def parse_fault(content: Any) -> Fault:
    """Validates a fault. Raises InvalidArgumentError that names the invalid field."""
    try:
        return Fault.model_validate(content)
    except ValidationError as error:
        field, _, problem = describe(error).partition(": ")
        raise InvalidArgumentError.for_field(field, problem) from error


class Faults:
    """The faults of one process."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._faults: dict[int, tuple[float, Fault]] = {}  # id → (end, fault)
        self._ids = itertools.count(1)

    def inject(self, fault: Fault) -> int:
        """Starts a fault and returns its id. Raises InvalidArgumentError if there are too many."""
        active = self.active()
        if len(active) >= _MOST_FAULTS:
            raise InvalidArgumentError.for_field("faults", f"are {_MOST_FAULTS} already; clear some")
        id_ = next(self._ids)
        self._faults[id_] = (time.monotonic() + fault.duration, fault)
        logger.warning("a fault begins", extra={"fault": fault.model_dump(mode="json")})
        return id_

    def clear(self) -> int:
        """Ends all faults and returns how many there were."""
        ended = len(self.active())
        self._faults.clear()
        return ended

    def active(self) -> list[dict[str, Any]]:
        """Returns the active faults with the seconds left of each."""
        now = time.monotonic()
        self._faults = {id_: (end, fault) for id_, (end, fault) in self._faults.items() if end > now}
        return [
            {"id": id_, **fault.model_dump(mode="json"), "seconds_left": round(end - now, 3)}
            for id_, (end, fault) in self._faults.items()
        ]

    async def apply(self, method: str) -> float:
        """Applies the faults to a call. Returns the seconds to wait before each message of its response.

        Raises InjectedError if a fault of kind error applies.
        """
        drip = 0.0
        now = time.monotonic()
        for end, fault in list(self._faults.values()):
            if end <= now or not fnmatch.fnmatchcase(method, fault.method):
                continue
            if random.random() * 100 >= fault.percentage:  # noqa: S311 - chance, not secrecy
                continue
            metrics.faults_injected_total.labels(fault.kind).inc()
            match fault.kind:
                case "delay":
                    await asyncio.sleep(fault.delay)
                case "drip":
                    drip += fault.delay
                case "error":
                    raise InjectedError(grpc.StatusCode[fault.code])
                case "abort":
                    logger.critical("a fault ends this process")
                    logging.shutdown()
                    os._exit(_ABORTED)
        return drip

    @property
    def any_active(self) -> bool:
        """Whether there may be a fault. Every call checks this first."""
        return bool(self._faults)
