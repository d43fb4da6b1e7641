"""Connects to a Dask cluster and runs tasks on its workers. The tasks of a worker that ends are repeated by others."""

import contextlib
import ipaddress
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from aurum import __version__

if TYPE_CHECKING:
    from distributed import Client

_CONNECT_SECONDS = 20
_WORKERS_SECONDS = 60

T = TypeVar("T")


class SchedulerError(RuntimeError):
    """The cluster cannot be used. The message says why and what to do."""


class Cluster:
    """A Dask cluster, see `connect`."""

    def __init__(self, client: "Client", address: str) -> None:
        self._client = client
        self._address = address

    def results(
        self,
        function: Callable[..., T],
        arguments: Sequence[tuple[Any, ...]],
        names: Sequence[str],
        shared: object = None,
    ) -> Iterator[tuple[int, T]]:
        """Calls a function on the workers, and yields the index and the result of each call as soon as it is done.

        Results leave the cluster at once.

        Args:
            function: The function, which workers import by its name.
            arguments: The arguments of each call.
            names: What each call reads, for messages.
            shared: The last argument of all calls, which is sent to the cluster once.

        Raises:
            SchedulerError: Workers have ended again and again, or the scheduler does not answer any more.
        """
        from distributed import KilledWorker, as_completed  # noqa: PLC0415 - an extra

        submit = self._client.submit
        kept = submit(_same, shared, pure=False)  # a task, so that it is repeated if the worker that has it ends
        futures = {submit(function, *each, kept, pure=False): index for index, each in enumerate(arguments)}
        try:
            for future in as_completed(list(futures), loop=self._client.loop):
                index = futures.pop(future)
                result = future.result()
                future.release()
                yield index, result
        except KilledWorker as error:
            raise SchedulerError(
                f"several workers have ended while they read {names[index]}, probably for lack of memory; give workers "
                f"more memory, run fewer threads in each, or divide the file"
            ) from error
        except CancelledError as error:
            raise SchedulerError(
                f"the connection to the scheduler at {self._address} was lost; start it again, and then the command"
            ) from error
        finally:
            self._client.cancel([*futures, kept])


@contextlib.contextmanager
def connect(address: str) -> Generator[Cluster]:
    """Connects to the scheduler at an address such as tcp://HOST:8786 or tls://HOST:8786.

    Raises:
        SchedulerError: Dask is not installed, the scheduler does not answer, or the workers cannot be used.
    """
    try:
        from distributed import Client, Security  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SchedulerError(
            "--scheduler needs Dask, which is not installed; install it with: pip install 'aurumai[dask]'"
        ) from error
    address = address if "://" in address else f"tcp://{address}"
    if not address.startswith("tls://") and not _is_local(address):
        print(
            f"the connection to {address} is neither encrypted nor authenticated: whoever reaches the scheduler can "
            f"run programs here and on its workers; use tls:// (docs/security.md)",
            file=sys.stderr,
        )
    if address.startswith("tls://") and Security().get_connection_args("client").get("ssl_context") is None:
        raise SchedulerError(
            f"{address} needs certificates, and Dask's configuration has none; set "
            f"DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..._TLS__CLIENT__CERT and ..._TLS__CLIENT__KEY to their files"
        )
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError) as error:
        raise SchedulerError(
            f"no Dask scheduler can be used at {address}: {error}; start one with `dask scheduler`, and "
            f"give its address, which begins with tls:// if it uses TLS"
        ) from error
    with client:
        _check_workers(client, address)
        yield Cluster(client, address)


def _check_workers(client: "Client", address: str) -> None:
    """Raises SchedulerError without workers, or if one has another version of this program."""
    try:
        client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
    except TimeoutError as error:
        raise SchedulerError(
            f"the scheduler at {address} has no worker; start some with `dask worker {address}`"
        ) from error
    for worker, version in client.run(_version, on_error="return").items():
        if version != __version__:
            raise SchedulerError(
                f"worker {worker} has {f'version {version}' if isinstance(version, str) else 'no usable program '}"
                f"{'' if isinstance(version, str) else f'({version})'} and this is version {__version__}; install "
                f"aurumai[dask] {__version__} where workers run"
            )


def _same(value: T) -> T:
    return value


def _version() -> str:
    return __version__


def _is_local(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or urlsplit(address).scheme == "inproc"
