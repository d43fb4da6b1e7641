"""The pipelines of a process: one for each policy and server, created at first use and updated with the document."""

import threading
import time
from collections.abc import Callable, Iterator

from aurum.resilience.errors import ErrorClassifier
from aurum.resilience.pipeline import Pipeline, PipelineSnapshot, Record, attempt_seconds
from aurum.resilience.policy import Policy, PolicyDocument
from aurum.resilience.shadow import Shadows
from aurum.resilience.succession import succession

_Call = tuple[str, str, str, str]  # client, server, method, instance
_Key = tuple[str, str, str, str]  # client, server, method pattern, instance: one policy's part of a server
_ALL = "*"


class PipelineRegistry:
    """Finds the pipeline of each call. It is thread-safe.

    No two pipelines have the same name at the same time.

    Args:
        document: The policies.
        default: Governs the calls that the document does not mention.
        clock: Monotonic clock in seconds.
        on_new: Called with each pipeline that is created or gets a new name.
        on_gone: Called with each name that no pipeline has any more.
    """

    def __init__(
        self,
        document: PolicyDocument,
        default: Policy,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_new: Callable[[Pipeline], None] = lambda pipeline: None,
        on_gone: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.document = document
        self.shadows = Shadows(document, clock)
        self.record: Record | None = None
        self._default = default
        self._clock = clock
        self._on_new = on_new
        self._on_gone = on_gone
        self._lock = threading.RLock()
        self._pipelines: dict[_Key, Pipeline] = {}
        self._by_call: dict[_Call, Pipeline] = {}
        self._classifiers: dict[_Call, tuple[ErrorClassifier, Callable[[Policy], float]]] = {}

    def __iter__(self) -> Iterator[Pipeline]:
        return iter(list(self._pipelines.values()))

    def pipeline_for(
        self,
        client: str,
        server: str,
        method: str,
        errors: ErrorClassifier,
        seconds: Callable[[Policy], float] = attempt_seconds,
        *,
        instance: str = "",
    ) -> Pipeline:
        """Returns the pipeline of a call.

        All methods of a server that one policy governs share a pipeline, and with it breaker, budget and limit.

        Args:
            client: Name of the calling service.
            server: Name of the called service.
            method: Name of the called method.
            errors: As for Pipeline. It must be the same for all calls to one server.
            seconds: As for Pipeline. It must be the same for all calls to one server.
            instance: Distinguishes several servers of the same name. Each has its own pipeline.
        """
        call = (client, server, method, instance)
        pipeline = self._by_call.get(call)
        if pipeline is None:
            with self._lock:
                self._classifiers[call] = (errors, seconds)
                pipeline = self._by_call[call] = self._find_or_create(call)
        return pipeline

    def policy_of(self, client: str, server: str, method: str) -> Policy:
        """The policy of a call."""
        return self.document.for_call(client, server, method) or self._default

    def apply(self, document: PolicyDocument) -> None:
        """Puts another document in force for the calls that begin from now on.

        What is known about the targets is kept, even if other patterns now divide the calls. The new pipeline that
        shares the most calls with an old one continues it, with its calls in progress. If an old pipeline is divided,
        each part gets its breaker's state, the state of its adaptive limit and an equal share of its tokens. If several
        pipelines are merged, their tokens are added, and the breaker that is nearest to refusing calls is used.
        """
        with self._lock:
            keys = {call: self._key(call) for call in self._by_call}
            old, named = self._pipelines, {pipeline.name: pipeline for pipeline in self._pipelines.values()}
            self.document = document
            self.shadows.apply(document)
            moves = {call: (key, self._key(call)) for call, key in keys.items()}
            plan = succession(moves.values())
            snapshots = {key: old[key].snapshot() for key in plan.rearranged}
            self._pipelines = {}
            for call, (_, key) in moves.items():
                if key not in self._pipelines:
                    continued = plan.continues.get(key)
                    if continued is None:
                        pipeline = self._create(call, key)
                    else:
                        pipeline = old[continued]
                        pipeline.configure(self.policy_of(*call[:3]), _name(key))
                        pipeline.shadows = self.shadows or None
                    self._pipelines[key] = pipeline
            for key, pipeline in self._pipelines.items():
                sources = plan.sources[key]
                if snapshots.keys() & sources:
                    _transfer_state(
                        pipeline,
                        [snapshots[source] for source in sources],
                        tokens=sum(snapshots[source].tokens / plan.parts[source] for source in sources),
                        continues=sources.index(plan.continues[key]) if key in plan.continues else None,
                    )
            self._by_call = {call: self._pipelines[key] for call, (_, key) in moves.items()}
            self._report_changes(named)

    def _key(self, call: _Call) -> _Key:
        client, server, method, instance = call
        policy = self.document.for_call(client, server, method)
        if policy is None or policy is self.document.default:
            return client, server, _ALL, instance  # all remaining calls to the server, whatever target the policy names
        return client, server, policy.target.rpartition("/")[2], instance

    def _find_or_create(self, call: _Call) -> Pipeline:
        key = self._key(call)
        pipeline = self._pipelines.get(key)
        if pipeline is None:
            pipeline = self._pipelines[key] = self._create(call, key)
            self._on_new(pipeline)
        return pipeline

    def _create(self, call: _Call, key: _Key) -> Pipeline:
        errors, seconds = self._classifiers[call]
        policy = self.policy_of(*call[:3])
        pipeline = Pipeline(_name(key), policy, errors=errors, seconds=seconds, clock=self._clock)
        pipeline.record = self.record
        pipeline.shadows = self.shadows or None
        return pipeline

    def _report_changes(self, before: dict[str, Pipeline]) -> None:
        """Reports the names that have disappeared and appeared. before: The previous pipelines by name."""
        after = {pipeline.name: pipeline for pipeline in self._pipelines.values()}
        for name in before:
            if name not in after:
                self._on_gone(name)
        for name, pipeline in after.items():
            if before.get(name) is not pipeline:
                self._on_new(pipeline)


def _name(key: _Key) -> str:
    client, server, methods, instance = key
    name = f"{client}/{server}" if methods == _ALL else f"{client}/{server}/{methods}"
    return f"{name}:{instance}" if instance else name


def _transfer_state(
    pipeline: Pipeline, snapshots: list[PipelineSnapshot], *, tokens: float, continues: int | None
) -> None:
    """Transfers the state of previous pipelines to a pipeline.

    Args:
        pipeline: The pipeline that receives it.
        snapshots: State of the previous pipelines, the one with most calls first.
        tokens: Tokens for its retry budget.
        continues: Index in `snapshots` of the pipeline that it continues, or None if it is new.
    """
    worst = max(range(len(snapshots)), key=lambda index: snapshots[index].severity)
    pipeline.take_over(
        tokens=tokens,
        breaker=None if worst == continues else snapshots[worst].breaker,
        algorithm=snapshots[0].algorithm if continues is None else None,
    )
