"""An API server, pods and operators, all of them played, in virtual time; the network between them can be bad.

What runs in an operator is what runs in production: its lease, store, requests, reconciler and reports. What is played
is the other side of lightkube's client and of the watch, the kubelet with the pods, and the guard's Prometheus.
"""

import asyncio
import copy
import random
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import httpx2
from lightkube.core.exceptions import ApiError
from lightkube.resources.apps_v1 import Deployment, StatefulSet
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import ConfigMap, Event, Pod, Service

from aurum.operator.api_connection import REQUEST_TIMEOUT
from aurum.operator.cluster_snapshot import TRACK, GuardFinding
from aurum.operator.informer_cache import InformerCache
from aurum.operator.kubernetes import COMPONENT, INSTANCE, PART_OF, POLICIES, Cluster
from aurum.operator.leadership import DURATION, Leadership, LeaseLostError
from aurum.operator.pod_poller import PodPoller
from aurum.operator.reconciler import Reconciler
from aurum.operator.rollout import Rollout
from aurum.resilience.policy import PolicyError
from aurum.resilience.virtual_time import VirtualLoop
from aurum.runtime.errors import UnavailableError
from aurum.runtime.policy.document import PlatformPolicyDocument, parse_platform_document
from aurum.runtime.policy.files import CANDIDATE, DEFAULTS, IN_FORCE
from tests.support.operator_world import DEFAULTS as DEFAULT_POLICIES

NAMESPACE, RELEASE = "plant", "aurumai"
SERVICES = {"api": 3, "prediction": 1, "ingestion": 1}
LABELS = {PART_OF: "aurumai", INSTANCE: RELEASE}
_NAMES = {each: each.__name__ for each in (ConfigMap, Deployment, Event, Lease, Pod, Service, StatefulSet)}
_NAMES |= {kind: name for name, kind in POLICIES.items()} | {kind.Status: name for name, kind in POLICIES.items()}
_KUBELET = 60.0  # seconds between two looks of the kubelet at a volume that nothing has touched
_EPOCH = 1_800_000_000.0

Object = dict[str, Any]


def refusal(code: int, message: str = "refused") -> ApiError:
    error = ApiError.__new__(ApiError)
    Exception.__init__(error, message)
    error.status = types.SimpleNamespace(code=code, message=message)
    return error


@dataclass
class Weather:
    """What becomes of requests and events, as shares of all; the rest goes well."""

    lost: float = 0.0  # the request never arrives
    unanswered: float = 0.0  # it is done, the answer never arrives
    late: float = 0.0  # it is done much later, often when nobody waits for it any more
    slow: float = 0.0  # the answer comes late
    failing: float = 0.0  # the server answers 500 and does nothing
    events_late: float = 0.0  # an event comes late, after ones that are younger
    events_twice: float = 0.0
    events_lost: float = 0.0


CALM = Weather()


class ApiServer:
    """objects: by kind and name. refused: what it answers writes of an object with; 0: it never answers."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.objects: dict[tuple[str, str], Object] = {}
        self.refused: dict[tuple[str, str], int] = {}
        self.watchers: list[Callable[[str, Object], None]] = []
        self.renewed: dict[str, float] = {}  # when the Lease was stored last, by its holder
        self.version = 100
        self._uids = 0

    def put(self, kind: str, name: str, body: Mapping[str, Any]) -> Object:
        """Makes an object, or changes one."""
        self.version += 1
        if kind == "Lease":
            self.renewed[(body["spec"] or {}).get("holderIdentity", "")] = self.loop.now
        known = self.objects.get((kind, name))
        stored: Object = copy.deepcopy({**body, "kind": kind})
        metadata = stored["metadata"] = {
            **(known or {}).get("metadata", {}),
            **stored.get("metadata", {}),
            "name": name,
        }
        metadata["resourceVersion"] = str(self.version)
        if "uid" not in metadata:
            self._uids += 1
            metadata |= {
                "uid": f"{kind}-{self._uids}",
                "creationTimestamp": f"2026-01-01T00:{self._uids // 60:02d}:00Z",
            }
        self.objects[kind, name] = stored
        self._tell("MODIFIED", stored)
        return stored

    def remove(self, kind: str, name: str) -> None:
        body = self.objects.pop((kind, name), None)
        if body is not None:
            self.version += 1
            body["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", body)

    def of_kind(self, kind: str) -> list[Object]:
        return [body for (each, _), body in self.objects.items() if each == kind]

    def _tell(self, kind: str, body: Object) -> None:
        for each in list(self.watchers):
            each(kind, copy.deepcopy(body))

    # What the client's methods come to

    def check(self, kind: str, name: str) -> None:
        code = self.refused.get((kind, name))
        if code:
            raise refusal(code, f'{kind} "{name}" is refused')

    def read(self, kind: str, name: str) -> Object:
        if (kind, name) not in self.objects:
            raise refusal(404, "not found")
        return copy.deepcopy(self.objects[kind, name])

    def make(self, kind: str, name: str, body: Mapping[str, Any]) -> Object:
        if (kind, name) in self.objects:
            raise refusal(409, "already exists")
        return copy.deepcopy(self.put(kind, name, body))

    def change(self, kind: str, name: str, body: Mapping[str, Any], *, status: bool) -> Object:
        self.check(f"{kind}/status" if status else kind, name)
        known = self.objects.get((kind, name))
        metadata = body.get("metadata", {})
        if known is None and kind != "ConfigMap":
            raise refusal(404, "not found")
        for field_name in ("uid", "resourceVersion"):
            if known and metadata.get(field_name, known["metadata"][field_name]) != known["metadata"][field_name]:
                raise refusal(409, f"another {field_name}")
        if status and known is not None:
            return copy.deepcopy(self.put(kind, name, {**known, "status": body["status"]}))
        merged = {**(known or {}), **body}
        for part in ("spec",) if kind == "Lease" else ():
            merged[part] = {**((known or {}).get(part) or {}), **body[part]}
        old = (known or {}).get("metadata", {})
        annotations = {**old.get("annotations", {}), **metadata.get("annotations", {})}
        merged["metadata"] = {**old, **metadata, "annotations": annotations}
        return copy.deepcopy(self.put(kind, name, merged))


class Client:
    """What an operator has of lightkube's client. on_write: called when a write leaves, with its kind."""

    def __init__(self, api: ApiServer, chance: random.Random, on_write: Callable[[str], None]) -> None:
        self.api = api
        self.chance = chance
        self.weather = CALM
        self._on_write = on_write

    async def get(self, kind: type, name: str, *, namespace: str) -> Any:
        body = await self._ask(lambda: self.api.read(_NAMES[kind], name))
        return types.SimpleNamespace(to_dict=lambda: body)

    async def create(self, made: Any, *, namespace: str) -> Any:
        body = made if isinstance(made, dict) else made.to_dict()
        kind = "Lease" if isinstance(made, Lease) else "Event"
        name = body["metadata"].get("name") or f"event-{self.chance.random()}"
        self._on_write(kind)
        if kind == "Event":
            return await self._ask(lambda: self.api.check("Event", "any"), hangs=self._hangs("Event", "any"))
        return await self._ask(lambda: self.api.make(kind, name, body), hangs=self._hangs(kind, name))

    async def patch(self, kind: type, name: str, body: Object, **_: Any) -> Any:
        known, status = _NAMES[kind], kind in [each.Status for each in POLICIES.values()]
        self._on_write(known)
        hangs = self._hangs(f"{known}/status" if status else known, name)
        return await self._ask(lambda: self.api.change(known, name, body, status=status), hangs=hangs)

    async def list(self, kind: type, *, labels: Mapping[str, str] | None = None, **_: Any) -> AsyncIterator[Object]:
        name = _NAMES[kind]
        for body in await self._ask(lambda: copy.deepcopy(self.api.of_kind(name))):
            yield body

    def _hangs(self, kind: str, name: str) -> bool:
        return self.api.refused.get((kind, name)) == 0

    async def _ask(self, act: Callable[[], Any], *, hangs: bool = False) -> Any:
        """One request, in this weather."""
        weather, luck, latency = self.weather, self.chance.random(), self.chance.uniform(0.001, 0.02)
        loop = self.api.loop
        answered: asyncio.Future[Any] = loop.create_future()

        def arrive(answer_after: float | None) -> None:
            try:
                result, error = act(), None
            except ApiError as problem:
                result, error = None, problem
            if answer_after is not None:
                loop.call_later(answer_after, _answer, answered, result, error)

        shares = (weather.lost, weather.unanswered, weather.late, weather.slow, weather.failing)
        edges = [sum(shares[: number + 1]) for number in range(len(shares))]
        fate = next((number for number, edge in enumerate(edges) if luck < edge), len(shares))
        if hangs or fate == 0:
            pass
        elif fate == 1:
            loop.call_later(latency, arrive, None)
        elif fate == 2:
            loop.call_later(self.chance.uniform(0.5, 12.0), arrive, latency)
        elif fate == 3:
            loop.call_later(latency, arrive, self.chance.uniform(0.1, REQUEST_TIMEOUT))
        elif fate == 4:
            loop.call_later(latency, _answer, answered, None, refusal(500, "etcdserver: leader changed"))
        else:
            loop.call_later(latency, arrive, latency)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await answered
        except TimeoutError:
            raise httpx2.ReadTimeout("no answer") from None


def _answer(answered: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answered.done():
        return
    if error is not None:
        answered.set_exception(error)
    else:
        answered.set_result(result)


@lru_cache(maxsize=1000)
def _document(text: str) -> PlatformPolicyDocument | None:
    try:
        return parse_platform_document(text, "x")
    except PolicyError:
        return None


class PlayedPod:
    """A pod with its kubelet: it loads what its volume has, when the pod is touched and now and then."""

    def __init__(self, api: ApiServer, service: str, name: str) -> None:
        self.api = api
        self.service = service
        self.name = name
        self.document = PlatformPolicyDocument()
        labels = {**LABELS, COMPONENT: service}
        body = {"metadata": {"labels": labels}, "spec": {}, "status": {"phase": "Running", "podIP": name}}
        self.uid = api.put("Pod", name, body)["metadata"]["uid"]
        self._look_again()

    @property
    def annotations(self) -> Mapping[str, str]:
        body = self.api.objects.get(("Pod", self.name), {})
        return dict(body.get("metadata", {}).get("annotations", {}))

    def look(self) -> None:
        volume = self.api.objects.get(("ConfigMap", f"aurumai-{self.service}-policy"), {}).get("data", {})
        candidate = self.annotations.get(TRACK) == "candidate" and CANDIDATE in volume
        self.document = _document(volume.get(CANDIDATE if candidate else IN_FORCE, "")) or self.document

    def _look_again(self) -> None:
        self.look()
        self.api.loop.call_later(_KUBELET, self._look_again)

    def answer(self) -> Object:
        """What it answers to GET /policy."""
        document = self.document
        return {
            "policy": {"hash": document.content_hash, "generation": document.generation},
            "sources": [source.model_dump() for source in document.sources],
        }


@dataclass
class Prometheus:
    """The guard of one operator. harmful: uid and generation of what does harm."""

    harmful: set[tuple[str, int]]
    nudge: Callable[[], None]
    findings: dict[str, GuardFinding] = field(default_factory=dict)

    def follow(self, watched: Mapping[str, tuple[Any, tuple[Any, ...]]], rollouts: Mapping[str, Rollout]) -> None:
        found = {}
        for uid, (parsed, pods) in watched.items():
            burns = (uid, parsed.generation) in self.harmful
            if burns and pods:
                found[uid] = GuardFinding(True, "harm")
            elif rollouts[uid].since is not None:
                found[uid] = GuardFinding(False, "fine")
        if found != self.findings:
            self.findings = found
            self.nudge()


class Operator:
    """One process of the operator, that may be killed and started again."""

    def __init__(self, plant: "Plant", name: str, seed: int) -> None:
        self.plant = plant
        self.name = name
        self.weather = CALM
        self.chance = random.Random(seed)
        self.running = False
        self.starts = 0
        self.leads_since: float | None = None

    def start(self) -> None:
        loop, api = self.plant.loop, self.plant.api
        self.running, self.starts, self.leads_since = True, self.starts + 1, None
        self.client = Client(api, self.chance, self._check_writer)
        self.client.weather = self.weather
        client: Any = self.client
        self.leadership = Leadership(client, NAMESPACE, "operator", f"{self.name}-{self.starts}", loop.time)
        self.store = InformerCache("aurumai-defaults")
        self.nudged = asyncio.Event()
        self.prometheus = Prometheus(self.plant.harmful, self.nudged.set)
        pods, guards = types.SimpleNamespace(get_json=self._get_policy), self.prometheus
        self.reports = PodPoller(pods, self.nudged.set, loop.time)  # type: ignore[arg-type]
        self.reconciler = Reconciler(
            Cluster(client, NAMESPACE, RELEASE),
            self.store,
            self.reports,
            guards,  # type: ignore[arg-type]
            self.nudged,
            resync=30.0,
            may_write=lambda: self.leadership.holds,
            clock=loop.time,
            now=lambda: _EPOCH + loop.time(),
            tidy=lambda: None,
        )
        self._life = loop.create_task(self._live())

    async def _live(self) -> None:
        """As in aurum.operator.service: the lease first, then all else; a task that ends, ends the process."""
        tasks: list[asyncio.Task[None]] = []
        watch = self._take_event
        try:
            await self.leadership.acquire()
            self.leads_since = self.plant.loop.time()
            self.plant.api.watchers.append(watch)
            works: list[Awaitable[None]] = [
                self.leadership.renew_until_lost(),
                self.reconciler.run(),
                self.reports.run(),
            ]
            tasks = [asyncio.ensure_future(work) for work in works]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except LeaseLostError:
            pass  # the process ends, and is started again
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if watch in self.plant.api.watchers:
                self.plant.api.watchers.remove(watch)
            self.running, self.leads_since = False, None

    def kill(self) -> None:
        """What is on its way to the server arrives all the same."""
        if self.running:
            self._life.cancel()
            self.plant.loop.advance(self.plant.loop.now)

    def stop(self) -> None:
        """As in aurum.operator.service: nothing is written any more, then the lease is given back."""
        if self.running:
            self.kill()
            self.plant.loop.create_task(self._release())

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                await self.leadership.release()
        except (ApiError, httpx2.HTTPError, OSError):
            pass  # the next one waits for the lease to expire

    def _check_writer(self, kind: str) -> None:
        others = [each for each in self.plant.operators if each is not self and each.running and each.leadership.holds]
        if kind not in ("Lease", "Event"):
            assert self.leadership.holds, f"{self.name} writes a {kind} without the lease"
            assert not others, f"{self.name} writes a {kind} while {others[0].name} holds the lease too"
            stored = self.plant.api.renewed.get(self.leadership._identity, float("-inf"))
            left = stored + DURATION - self.plant.loop.now
            assert left > REQUEST_TIMEOUT, f"{self.name} writes a {kind} {left:.1f} s before its lease may be taken"

    async def _get_policy(self, _: str, *, at: str) -> Object:
        await asyncio.sleep(0.005)
        pod = self.plant.pods.get(at.rpartition(":")[0])
        if pod is None:
            raise UnavailableError("there is no such pod")
        return pod.answer()

    def watch_anew(self) -> None:
        """A watch that ended begins with a list."""
        if self.running and self._take_event in self.plant.api.watchers:
            for body in copy.deepcopy(list(self.plant.api.objects.values())):
                self._take_event("", body)

    def _take_event(self, kind: str, body: Object) -> None:
        store, nudged = self.store, self.nudged
        take = {"ConfigMap": store.update_config_map, "Pod": store.update_pod}.get(body["kind"], store.update_resource)
        if body["kind"] not in ("ConfigMap", "Pod", *POLICIES):
            return

        def deliver() -> None:
            if take(body, deleted=kind == "DELETED", listed=not kind):
                nudged.set()

        weather, luck = self.weather, self.chance.random()
        if luck < weather.events_lost:
            return
        late = self.chance.uniform(0.1, 10.0) if self.chance.random() < weather.events_late else 0.01
        self.plant.loop.call_later(late, deliver)
        if self.chance.random() < weather.events_twice:
            self.plant.loop.call_later(self.chance.uniform(0.1, 20.0), deliver)


class Plant:
    """A release with its pods, and two operators. seed: of all that is left to chance."""

    def __init__(self, seed: int) -> None:
        self.loop = VirtualLoop()
        self.api = ApiServer(self.loop)
        self.harmful: set[tuple[str, int]] = set()
        self.pods: dict[str, PlayedPod] = {}
        self.api.put("ConfigMap", "aurumai-defaults", {"data": {DEFAULTS: DEFAULT_POLICIES}, "metadata": {}})
        for service, count in SERVICES.items():
            metadata = {"labels": {**LABELS, COMPONENT: service}}
            self.api.put("Deployment", f"aurumai-{service}", {"metadata": metadata})
            self.api.put("Service", f"aurumai-{service}", {"metadata": metadata})
            for number in range(count):
                self.add_pod(service, f"{service}-{number}")
        self.api.watchers.append(self._kubelet)
        self.operators = [Operator(self, name, seed + number) for number, name in enumerate("ab")]

    def add_pod(self, service: str, name: str) -> None:
        self.pods[name] = PlayedPod(self.api, service, name)

    def led_for(self) -> float:
        """Seconds since an operator leads; 0 if none does."""
        since = [each.leads_since for each in self.operators if each.leads_since is not None]
        return self.loop.now - min(since) if since else 0.0

    def back_up(self) -> tuple[dict[tuple[str, str], Object], int]:
        """For `restore`. etcd counts the changes of everything in a cluster, so that many come after it."""
        backup = copy.deepcopy(self.api.objects), self.api.version
        self.api.version += 1_000_000
        return backup

    def restore(self, backup: Mapping[tuple[str, str], Object], version: int) -> None:
        """As from a backup of etcd: older objects, and versions that go on from there. Pods are not taken back, for the
        kubelet knows better, nor is the Lease; watches begin anew, with a list."""
        now = {key: body for key, body in self.api.objects.items() if key[0] in ("Lease", "Pod")}
        before = {key: body for key, body in copy.deepcopy(dict(backup)).items() if key[0] not in ("Lease", "Pod")}
        self.api.objects = {**before, **now}
        self.api.version = version
        for body in now.values():
            self.api.version += 1
            body["metadata"]["resourceVersion"] = str(self.api.version)
        for each in self.operators:
            each.watch_anew()

    def advance(self, seconds: float) -> None:
        """Time goes by; each half second, and at each write, at most one operator must hold the lease."""
        until = self.loop.now + seconds
        while self.loop.now < until:
            self.loop.advance(min(until, self.loop.now + 0.5))
            self.check_lease()

    def check_lease(self) -> None:
        holders = [each.name for each in self.operators if each.running and each.leadership.holds]
        assert len(holders) <= 1, f"{holders} hold the lease"

    def start_operators(self) -> None:
        """Those that have ended, as Kubernetes does."""
        asyncio._set_running_loop(self.loop)
        try:
            for each in self.operators:
                if not each.running:
                    each.start()
        finally:
            asyncio._set_running_loop(None)

    def close(self) -> None:
        for each in self.operators:
            each.kill()

    def _kubelet(self, kind: str, body: Object) -> None:
        pod = self.pods.get(body["metadata"]["name"])
        if body["kind"] == "Pod" and kind != "DELETED" and pod is not None:
            self.loop.call_later(0.1, pod.look)
