"""A session with a Cassandra cluster: prepared statements, quorums, bounded concurrency and translated errors."""

import asyncio
import collections
import logging
import ssl
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cassandra import ConsistencyLevel, DriverException, InvalidRequest
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, ResponseFuture
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.policies import DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import BatchStatement, BatchType, SimpleStatement

from aurum.ingestion.cassandra import schema
from aurum.ingestion.store import KEPT_KINDS, machine_concerned
from aurum.resilience import RetryPolicy
from aurum.runtime.errors import FailedPreconditionError, UnavailableError
from aurum.storage import metrics

logger = logging.getLogger(__name__)

DRIVER_ERRORS = (DriverException, NoHostAvailable, OSError)  # all other errors of the driver are DriverExceptions
_IN_FLIGHT = 256  # concurrent statements of a replica
_READ_CONCURRENCY = 32  # concurrent statements of one query
_WRITE_CONCURRENCY = 8  # concurrent statements of one merge
_PAGE = 2000  # rows
_DATA_PAGE = 250  # rows that contain segments
_PROTOCOL = 4  # the native protocol that Cassandra 3 and later and ScyllaDB share
_SCHEMA_SECONDS = 60.0  # for a change of the tables
_GOSSIP_SECONDS = 15.0  # for nodes to learn of each other
_ROWS_AT_ONCE = 200  # of one partition that are changed at once
_ATTEMPTS, _BASE_DELAY, _MAX_DELAY = 4, 0.1, 1.0  # every statement may be repeated


@dataclass(frozen=True, slots=True)
class CassandraOptions:
    """How to connect to a cluster.

    Attributes:
        hosts: The nodes to contact first.
        keyspace: The keyspace of the tables.
        port: The port of all nodes.
        replication: The number of copies of everything.
        consistency: The consistency level; LOCAL_QUORUM for production.
        datacenter: The local datacenter, if there are several.
        timeout: The seconds for a statement.
        username: The user, if the cluster requires one.
        password: Its password.
        ca_file: The PEM file of the authorities for TLS; no TLS if absent.
    """

    hosts: tuple[str, ...]
    keyspace: str
    port: int = 9042
    replication: int = 3
    consistency: str = "LOCAL_QUORUM"
    datacenter: str | None = None
    timeout: float = 10.0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None


def parse_url(url: str, **more: Any) -> CassandraOptions:
    """Parses cassandra://host,host[:port]/keyspace?replication=3&consistency=LOCAL_QUORUM&datacenter=dc1.

    Raises:
        ValueError: If the URL is wrong. The message is a sentence.
    """
    parts = urlsplit(url)
    netloc, _, port = parts.netloc.partition(":")
    hosts = tuple(filter(None, netloc.split(",")))
    keyspace = parts.path.strip("/")
    if parts.scheme != "cassandra" or not hosts or not keyspace.isidentifier() or (port and not port.isdigit()):
        raise ValueError(f"{url!r} is not cassandra://HOST,HOST[:PORT]/KEYSPACE")
    options: dict[str, Any] = {"port": int(port)} if port else {}
    for name, value in parse_qsl(parts.query):
        if name == "replication" and value.isdigit() and int(value) >= 1:
            options[name] = int(value)
        elif (name == "consistency" and value in ConsistencyLevel.name_to_value) or name == "datacenter":
            options[name] = value
        else:
            raise ValueError(f"{name}={value} in {url!r} is not a valid replication, consistency or datacenter")
    return CassandraOptions(hosts, keyspace, **options, **more)


class CassandraSession:
    """A session. `execute` is for the event loop; `rows` and `each` block and are for other threads."""

    def __init__(self, options: CassandraOptions) -> None:
        """Connects, and migrates the tables to this version. Raises UnavailableError, FailedPreconditionError."""
        profile = ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc=options.datacenter or "")),
            consistency_level=ConsistencyLevel.name_to_value[options.consistency],
            serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
            request_timeout=options.timeout,
        )
        self._cluster = Cluster(
            options.hosts,
            port=options.port,
            protocol_version=_PROTOCOL,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            auth_provider=PlainTextAuthProvider(options.username, options.password) if options.username else None,
            ssl_context=ssl.create_default_context(cafile=options.ca_file) if options.ca_file else None,
            idle_heartbeat_interval=10,
        )
        try:
            self._session = self._cluster.connect()
            self._session.default_fetch_size = _PAGE
            # The order of writes and deletions of replicas must not depend on their clocks
            self._session.use_client_timestamp = False
            self._prepare(options)
        except DRIVER_ERRORS as error:
            self._cluster.shutdown()
            hosts = ",".join(options.hosts)
            raise UnavailableError(f"Cassandra at {hosts} cannot be used: {error_text(error)}") from error
        except BaseException:
            self._cluster.shutdown()
            raise
        self._gate = asyncio.Semaphore(_IN_FLIGHT)
        self._retry = RetryPolicy(
            _ATTEMPTS,
            _BASE_DELAY,
            _MAX_DELAY,
            "ingestion/cassandra",
            retryable=lambda error: isinstance(error, DRIVER_ERRORS) and not isinstance(error, InvalidRequest),
        )
        self.problem: str | None = None

    async def execute(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        """Runs a statement with retries, and returns the first page of its rows. Raises UnavailableError."""
        started = time.perf_counter()
        status = "error"
        try:
            async with self._gate:
                rows = await self._retry.call_async(lambda: self._attempt(name, parameters))
            status = "ok"
        except DRIVER_ERRORS as error:
            self.problem = f"cannot be reached: {error_text(error)}"
            raise UnavailableError(f"the store {self.problem}", retry_after=1.0) from error
        finally:
            metrics.track_db_query(name, time.perf_counter() - started, status)
        self.problem = None
        return rows

    def rows(self, name: str, parameters: Sequence[Any]) -> Iterable[Any]:
        """Yields all rows of a statement, page by page. Raises UnavailableError."""
        try:
            yield from self._session.execute(self._statements[name], parameters)
        except DRIVER_ERRORS as error:
            raise UnavailableError(f"the store cannot be reached: {error_text(error)}", retry_after=1.0) from error

    def rows_for_each(self, name: str, parameters: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Returns the rows of a statement for each of several parameters. Raises UnavailableError."""
        try:
            results = execute_concurrent_with_args(
                self._session, self._statements[name], parameters, concurrency=_READ_CONCURRENCY
            )
            return [list(result) for _, result in results]
        except DRIVER_ERRORS as error:
            raise UnavailableError(f"the store cannot be reached: {error_text(error)}", retry_after=1.0) from error

    def write_all(self, rows: Iterable[tuple[str, Sequence[Any]]]) -> None:
        """Runs statements, given by name and parameters, concurrently. Raises UnavailableError."""
        in_flight: collections.deque[ResponseFuture] = collections.deque()
        try:
            for name, parameters in rows:
                in_flight.append(self._session.execute_async(self._statements[name], parameters))
                if len(in_flight) >= _WRITE_CONCURRENCY:
                    in_flight.popleft().result()
            while in_flight:
                in_flight.popleft().result()
        except DRIVER_ERRORS as error:
            raise UnavailableError(f"the store cannot be reached: {error_text(error)}", retry_after=1.0) from error

    def write_partition(self, name: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Runs a statement for several rows of one partition, as few mutations. Raises UnavailableError."""
        try:
            for start in range(0, len(parameters), _ROWS_AT_ONCE):
                together = BatchStatement(BatchType.UNLOGGED)
                for row in parameters[start : start + _ROWS_AT_ONCE]:
                    together.add(self._statements[name], row)
                together.is_idempotent = True
                self._session.execute(together)
        except DRIVER_ERRORS as error:
            raise UnavailableError(f"the store cannot be reached: {error_text(error)}", retry_after=1.0) from error

    def close(self) -> None:
        """Closes the connections to the cluster. Blocks."""
        self._cluster.shutdown()

    async def _attempt(self, name: str, parameters: Sequence[Any]) -> list[Any]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Any]] = loop.create_future()

        def settle(rows: list[Any] | None, error: Exception | None) -> None:
            if done.done():
                return  # the caller no longer waits
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(rows or [])

        response = self._session.execute_async(self._statements[name], parameters)
        response.add_callbacks(
            lambda rows: loop.call_soon_threadsafe(settle, rows, None),
            lambda error: loop.call_soon_threadsafe(settle, None, error),
        )
        return await done

    def _prepare(self, options: CassandraOptions) -> None:
        waited_until = time.monotonic() + _GOSSIP_SECONDS
        while (nodes := len(self._cluster.metadata.all_hosts())) < options.replication:
            if time.monotonic() < waited_until:  # new nodes are not known to all others at once
                time.sleep(0.5)
                self._cluster.refresh_nodes()
                continue
            raise FailedPreconditionError(
                f"Cassandra has {nodes} nodes, fewer than the replication factor {options.replication}; add nodes, or "
                f"set ?replication={nodes} in AURUM_STORE_URL"
            )
        self._run(
            f"CREATE KEYSPACE IF NOT EXISTS {options.keyspace} WITH replication = "
            f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {options.replication}}}"
        )
        self._session.set_keyspace(options.keyspace)
        self._run(schema.VERSION_TABLE)
        row = self._session.execute("SELECT version FROM schema_version WHERE id = 1").one()
        version_in_use = row.version if row else 0
        if version_in_use > schema.VERSION:
            raise FailedPreconditionError(
                f"keyspace {options.keyspace} was made by a newer version: its format is {version_in_use}, and this "
                f"version reads {schema.VERSION}. It is left unchanged; start the newer version, or use another one"
            )
        for version in range(version_in_use + 1, schema.VERSION + 1):
            self._run_steps(schema.STEPS[version])
            if version == schema.JOURNAL_SINCE and version_in_use:
                self._fill_journal()
            if version == schema.EVENTS_ABOUT_SINCE and version_in_use:
                self._fill_events_about()
            self._session.execute("UPDATE schema_version SET version = %s WHERE id = 1", (version,))
        self._statements = {}
        for name, text in schema.STATEMENTS.items():
            statement = self._session.prepare(text)
            statement.is_idempotent = " IF " not in text
            self._statements[name] = statement
        for name in ("segments_between", "batch_members"):
            self._statements[name].fetch_size = _DATA_PAGE

    def _fill_events_about(self) -> None:
        """Adds the events from before they were stored by the machine that they concern."""
        add = self._session.prepare(schema.STATEMENTS["add_event_about"])
        rows = self._session.execute(SimpleStatement(schema.EARLIER_EVENTS, fetch_size=_PAGE), timeout=600.0)
        about = [
            (row.kind, machine_id, row.at_us, row.id, row.data, 0 if row.kind in KEPT_KINDS else schema.EVENT_TTL)
            for row in rows
            if not row.machine_id and (machine_id := machine_concerned(row.id))
        ]
        execute_concurrent_with_args(self._session, add, about, concurrency=_READ_CONCURRENCY)

    def _fill_journal(self) -> None:
        """Numbers the events from before there was a journal by their times."""
        add = self._session.prepare(schema.STATEMENTS["add_to_journal"])
        rows = self._session.execute(SimpleStatement(schema.EARLIER_EVENTS, fetch_size=_PAGE), timeout=600.0)
        journal = [(row.kind, row.at_us, row.at_us, row.id, row.data) for row in rows if not row.machine_id]
        execute_concurrent_with_args(self._session, add, journal, concurrency=_READ_CONCURRENCY)

    def _run_steps(self, steps: Sequence[str]) -> None:
        """Runs the steps of a version. Tables are created concurrently, because the nodes agree on each for a while."""
        tables = [SimpleStatement(step) for step in steps if step.startswith("CREATE TABLE")]
        # By one node, so that the nodes have less to agree on
        node = next((host for host in self._cluster.metadata.all_hosts() if host.is_up), None)
        for created in [self._session.execute_async(each, timeout=_SCHEMA_SECONDS, host=node) for each in tables]:
            created.result()
        for step in steps:
            if not step.startswith("CREATE TABLE"):
                self._run_step(step)

    def _run_step(self, step: str) -> None:
        """Runs a migration step. Another replica, or a killed run, may already have done a part of it."""
        try:
            self._run(step)
        except InvalidRequest:
            if not step.startswith("ALTER TABLE"):
                raise
            _, _, table, _, column, *_ = step.split()
            names = "SELECT column_name FROM system_schema.columns WHERE keyspace_name = %s AND table_name = %s"
            present = {row.column_name for row in self._session.execute(names, (self._session.keyspace, table))}
            if column not in present:
                raise

    def _run(self, text: str) -> None:
        self._session.execute(SimpleStatement(text), timeout=_SCHEMA_SECONDS)


def error_text(error: BaseException) -> str:
    """Returns the text of a driver's error in one line."""
    if isinstance(error, NoHostAvailable):
        reasons = {str(each) or type(each).__name__ for each in error.errors.values()} if error.errors else set()
        return "; ".join(sorted(reasons)) or "no node answers"
    return " ".join(str(error).split()) or type(error).__name__
