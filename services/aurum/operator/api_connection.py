"""Connections to the API server, with the credentials of the pod or of the current kube-context.

Certificates are verified, but not in the strict mode of RFC 5280. Since Python 3.13, that mode refuses certificate
authorities without a certain extension, and those of many clusters lack it.
"""

import dataclasses
import ssl
from typing import Any

import httpx2
import kopf
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.async_client import AsyncClient
from lightkube.core.exceptions import ConfigError

MANAGER = "aurumai-operator"
REQUEST_TIMEOUT = 4.0  # seconds that one request to the API server may take


def open_client(namespace: str | None) -> AsyncClient:
    """Opens a client of the API server.

    Args:
        namespace: Namespace, by default that of the pod or kube-context.

    Raises:
        ConfigError: There is no usable configuration (lightkube).
    """
    config = KubeConfig.from_env().get()
    if config is None or config.user is None:
        raise ConfigError("the kube-context names no cluster or no user")
    context = _not_strict(verify_cluster(config.cluster, config.user, config.abs_file, trust_env=False))
    transport: Any = httpx2.AsyncHTTPTransport(verify=context)  # an async client needs an async transport
    timeout = httpx2.Timeout(REQUEST_TIMEOUT)
    return AsyncClient(
        config, field_manager=MANAGER, namespace=namespace, trust_env=False, transport=transport, timeout=timeout
    )


def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Returns the connection for kopf, which calls this as its login handler."""
    connection = kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)
    return connection and _Connection(
        **{field.name: getattr(connection, field.name) for field in dataclasses.fields(connection)}
    )


@dataclasses.dataclass(frozen=True)
class _Connection(kopf.ConnectionInfo):
    def as_ssl_context(self) -> ssl.SSLContext:
        return _not_strict(super().as_ssl_context())


def _not_strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
