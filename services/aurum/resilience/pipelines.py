"""The pipelines of a process: one for each policy and server, made at first use, changed when the document changes."""

import time
from collections.abc import Callable, Iterator

from aurum.resilience.errors import ErrorView
from aurum.resilience.pipeline import Pipeline, Record, attempt_seconds
from aurum.resilience.policy import Policy, PolicyDocument
from aurum.resilience.shadow import Shadows

_Call = tuple[str, str, str, str]  # client, server, method or target of the policy, instance


class Pipelines:
    """document: the policies. default: governs calls of which the document says nothing. on_new: called with the name
    of each pipeline that is made."""

    def __init__(
        self,
        document: PolicyDocument,
        default: Policy,
        *,
        clock: Callable[[], float] = time.monotonic,
        on_new: Callable[[Pipeline], None] = lambda pipeline: None,
    ) -> None:
        self.document = document
        self.shadows = Shadows(document, clock)
        self.record: Record | None = None
        self._default = default
        self._clock = clock
        self._on_new = on_new
        self._pipelines: dict[_Call, Pipeline] = {}
        self._by_call: dict[_Call, Pipeline] = {}
        self._views: dict[_Call, tuple[ErrorView, Callable[[Policy], float]]] = {}

    def __iter__(self) -> Iterator[Pipeline]:
        return iter(list(self._pipelines.values()))

    def of(
        self,
        client: str,
        server: str,
        method: str,
        errors: ErrorView,
        seconds: Callable[[Policy], float] = attempt_seconds,
        *,
        instance: str = "",
    ) -> Pipeline:
        """The pipeline of a call. All methods of a server that one policy governs share it, and with it breaker,
        budget and limit. errors and seconds: as for Pipeline; the same for all calls to one server. instance: which of
        several servers of that name, each with a pipeline of its own."""
        call = (client, server, method, instance)
        pipeline = self._by_call.get(call)
        if pipeline is None:
            self._views[call] = (errors, seconds)
            pipeline = self._by_call[call] = self._found(call)
        return pipeline

    def policy_of(self, client: str, server: str, method: str) -> Policy:
        """The policy of a call."""
        return self.document.for_call(client, server, method) or self._default

    def apply(self, document: PolicyDocument) -> None:
        """Puts another document in force for the calls that begin from now on. What is known of the targets stays,
        also where other patterns now divide them."""
        self.document = document
        self.shadows.apply(document)
        before, self._by_call = self._by_call, {}
        used: dict[_Call, Pipeline] = {}
        old, self._pipelines = self._pipelines, {}
        for call, pipeline in before.items():
            key = self._key(call)
            if key not in used:
                kept = old.get(key)
                if kept is not None:
                    kept.configure(self.policy_of(*call[:3]))
                    self._pipelines[key] = used[key] = kept
                else:
                    made = used[key] = self._found(call)
                    made.inherit(pipeline)
            self._by_call[call] = used[key]
            used[key].shadows = self.shadows or None

    def _key(self, call: _Call) -> _Call:
        client, server, _, instance = call
        return client, server, self.policy_of(*call[:3]).target, instance

    def _found(self, call: _Call) -> Pipeline:
        key = self._key(call)
        pipeline = self._pipelines.get(key)
        if pipeline is None:
            client, server, method, instance = call
            policy = self.policy_of(client, server, method)
            errors, seconds = self._views[call]
            name = f"{client}/{server}" if policy.target.endswith("/*") else f"{client}/{server}/{method}"
            name = f"{name}:{instance}" if instance else name
            pipeline = Pipeline(name, policy, errors=errors, seconds=seconds, clock=self._clock)
            pipeline.record = self.record
            pipeline.shadows = self.shadows or None
            self._pipelines[key] = pipeline
            self._on_new(pipeline)
        return pipeline
