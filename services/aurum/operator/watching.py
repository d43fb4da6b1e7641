"""Events of the API server, by kopf: they keep the store up to date and nudge the reconciler, no more."""

import logging
from collections.abc import Callable
from typing import Any

import kopf

from aurum.operator.connecting import login
from aurum.operator.kubernetes import INSTANCE, PART_OF
from aurum.operator.resources import GROUP, KINDS, VERSION
from aurum.operator.store import Store

logger = logging.getLogger(__name__)


async def watch(namespace: str, release: str, store: Store, nudge: Callable[[], None]) -> None:
    """Follows policies, pods and ConfigMaps of a namespace, for as long as it runs. Nothing is written: no finalizer,
    no annotation, no event. What the store cannot understand it notes and leaves out: no handler raises."""
    registry = kopf.OperatorRegistry()
    labels = {PART_OF: "aurumai", INSTANCE: release}

    kopf.on.login(registry=registry)(login)

    def taken(take: Callable[..., bool]) -> Callable[..., Any]:
        async def handler(event: kopf.RawEvent, **_: Any) -> None:
            kind = event["type"]  # None: the watch begins, anew after an error, with all there is
            if take(event["object"], deleted=kind == "DELETED", listed=kind is None):
                nudge()

        return handler

    for plural, _ in KINDS.values():
        kopf.on.event(GROUP, VERSION, plural, registry=registry)(taken(store.resource))
    kopf.on.event("", "v1", "pods", registry=registry, labels=labels)(taken(store.pod))
    kopf.on.event("", "v1", "configmaps", registry=registry, labels=labels)(taken(store.config_map))

    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.networking.error_backoffs = (0.2, 0.5, 1, 2, 5, 10)
    settings.watching.reconnect_backoff = 0.2
    settings.queueing.idle_timeout = 0.2  # a task for each object that has just changed; a list brings all at once
    await kopf.operator(registry=registry, settings=settings, namespace=namespace, standalone=True)
