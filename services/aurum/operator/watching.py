"""Watches the API server with kopf: events update the store and wake the reconciler."""

import logging
from collections.abc import Callable
from typing import Any

import kopf

from aurum.operator.api_connection import login
from aurum.operator.informer_cache import InformerCache
from aurum.operator.kubernetes import INSTANCE, PART_OF
from aurum.operator.resources import GROUP, KINDS, VERSION

logger = logging.getLogger(__name__)


async def watch(namespace: str, release: str, cache: InformerCache, nudge: Callable[[], None]) -> None:
    """Watches the policies, pods and ConfigMaps of a namespace until it is cancelled.

    It writes nothing: no finalizer, annotation or event. Handlers do not raise errors, because the cache records
    objects that it cannot parse and skips them.
    """
    registry = kopf.OperatorRegistry()
    labels = {PART_OF: "aurumai", INSTANCE: release}

    kopf.on.login(registry=registry)(login)

    def update_handler(update: Callable[..., bool]) -> Callable[..., Any]:
        async def handler(event: kopf.RawEvent, **_: Any) -> None:
            kind = event["type"]  # None: initial listing when a watch begins or restarts after an error
            if update(event["object"], deleted=kind == "DELETED", listed=kind is None):
                nudge()

        return handler

    for plural, _ in KINDS.values():
        kopf.on.event(GROUP, VERSION, plural, registry=registry)(update_handler(cache.update_resource))
    kopf.on.event("", "v1", "pods", registry=registry, labels=labels)(update_handler(cache.update_pod))
    kopf.on.event("", "v1", "configmaps", registry=registry, labels=labels)(update_handler(cache.update_config_map))

    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.networking.error_backoffs = (0.2, 0.5, 1, 2, 5, 10)
    settings.watching.reconnect_backoff = 0.2
    settings.queueing.idle_timeout = 0.2  # each changed object has a task, and a list changes all at once
    await kopf.operator(registry=registry, settings=settings, namespace=namespace, standalone=True)
