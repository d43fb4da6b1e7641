"""Starts, kills and stops Cassandra nodes as processes."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
JARS = ROOT / ".cache" / "cassandra" / "5.0.5"
CQL_PORT = 9042
_HEAP = "400m"
_START_SECONDS = 120

_EXPORTS = {
    "java.base": ["jdk.internal.misc", "jdk.internal.ref", "sun.nio.ch"],
    "java.management.rmi": ["com.sun.jmx.remote.internal.rmi"],
    "java.rmi": ["sun.rmi.registry", "sun.rmi.server"],
    "java.sql": ["java.sql"],
}
_OPENS = {
    "java.base": [
        *("java.lang", "java.lang.module", "java.io", "java.nio", "java.util", "java.util.concurrent"),
        *("java.util.concurrent.atomic", "sun.nio.ch", "jdk.internal.loader", "jdk.internal.ref"),
        *("jdk.internal.reflect", "jdk.internal.math", "jdk.internal.module", "jdk.internal.util.jar"),
    ],
    "jdk.management": ["com.sun.management.internal"],
}

LOGGING = "logback.xml"  # beside a node's configuration
LOGGING_CONFIG = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="out"/></root>
</configuration>
"""


def what_is_missing(nodes: int = 3) -> str | None:
    """Why so many nodes cannot run on this machine, or None. With 0 of them: what is needed to build an image."""
    if shutil.which("java") is None:
        return "needs Java 17 to run a real Cassandra"
    if shutil.which("mvn") is None and not JARS.exists():
        return "needs Maven to fetch Cassandra"
    for number in range(1, nodes + 1):
        with contextlib.closing(socket.socket()) as probe:
            try:
                probe.bind((f"127.0.0.{number}", 0))
            except OSError:
                return f"needs the address 127.0.0.{number}"
            if probe.connect_ex((f"127.0.0.{number}", CQL_PORT)) == 0:
                return f"port {CQL_PORT} on 127.0.0.{number} is in use"
    return None


def fetch_jars() -> None:
    """Has Maven bring the jars, once."""
    JARS.parent.mkdir(parents=True, exist_ok=True)
    with (JARS.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if JARS.exists():
            return
        partial = JARS.with_suffix(".part")
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
        subprocess.run(command, cwd=Path(__file__).parent, check=True, timeout=600)
        partial.rename(JARS)


@dataclass
class Node:
    number: int
    folder: Path
    popen: "subprocess.Popen[bytes] | None" = None

    @property
    def address(self) -> str:
        return f"127.0.0.{self.number}"

    @property
    def log(self) -> Path:
        return self.folder / "output.log"

    def start(self) -> None:
        """Returns when the node takes CQL connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "node.yaml"
        config.with_name(LOGGING).write_text(LOGGING_CONFIG)
        data = self.folder / "data"
        config.write_text(yaml.safe_dump(node_config(self.address, data)))
        seen = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            command = node_command(config, data, JARS, 7190 + self.number)
            self.popen = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + _START_SECONDS
        while b"Starting listening for CQL" not in self.log.read_bytes()[seen:]:
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Cassandra node {self.number} did not start, see {self.log}")
            time.sleep(0.2)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.popen and self.popen.poll() is None:
            self.popen.send_signal(number)
            self.popen.wait(60)


def node_config(address: str, data: Path, seed: str = "127.0.0.1") -> dict[str, object]:
    """cassandra.yaml of a node. data: the folder with all that it keeps; seed: the node that it looks for first."""
    return {
        "cluster_name": "aurumai-test",
        "num_tokens": 16,
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "endpoint_snitch": "SimpleSnitch",
        "listen_address": address,
        "rpc_address": address,
        "native_transport_port": CQL_PORT,
        "storage_port": 7000,
        "data_file_directories": [str(data / "data")],
        "commitlog_directory": str(data / "commitlog"),
        "saved_caches_directory": str(data / "saved_caches"),
        "hints_directory": str(data / "hints"),
        "cdc_raw_directory": str(data / "cdc_raw"),
        # An acknowledgement means that the commit log is synced
        "commitlog_sync": "group",
        "commitlog_sync_group_window": "10ms",
        "seed_provider": [
            {
                "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                "parameters": [{"seeds": f"{seed}:7000"}],
            }
        ],
    }


def node_command(config: Path, data: Path, jars: Path, jmx_port: int) -> list[str]:
    """What starts a node in the foreground."""
    modules = [
        f"--add-{kind}={module}/{package}=ALL-UNNAMED"
        for kind, packages in (("exports", _EXPORTS), ("opens", _OPENS))
        for module, names in packages.items()
        for package in names
    ]
    properties = {
        "cassandra.config": config.as_uri(),
        "cassandra.storagedir": str(data),
        "cassandra.jmx.local.port": str(jmx_port),
        "cassandra-foreground": "yes",
        "logback.configurationFile": str(config.with_name(LOGGING)),
        "cassandra.superuser_setup_delay_ms": "0",
        "cassandra.skip_wait_for_gossip_to_settle": "0",
        "cassandra.ring_delay_ms": "2000",
    }
    return [
        "java",
        *modules,
        f"-Xms{_HEAP}",
        f"-Xmx{_HEAP}",
        # A node lives for minutes, beside others on few cores: compiling it well would cost more than it brings
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        *(f"-D{name}={value}" for name, value in properties.items()),
        "-cp",
        f"{jars}{os.sep}*",
        "org.apache.cassandra.service.CassandraDaemon",
    ]


@dataclass
class Cluster:
    folder: Path
    nodes: list[Node] = field(default_factory=list)

    def start(self, nodes: int) -> None:
        fetch_jars()
        for number in range(1, nodes + 1):
            node = Node(number, self.folder / f"node{number}")
            self.nodes.append(node)
            try:
                node.start()
            except RuntimeError:
                # One that hears nothing of the others in its first seconds gives up: that is not the store's fault
                node.kill()
                shutil.rmtree(node.folder / "data", ignore_errors=True)
                node.start()

    def url(self, keyspace: str) -> str:
        return f"cassandra://{','.join(node.address for node in self.nodes)}/{keyspace}"

    def create_tables(self, keyspace: str) -> None:
        """Creates a keyspace with its tables, which takes longer on a busy machine than a service may take to start."""
        from aurum.ingestion.cassandra.session import CassandraSession, parse_url

        CassandraSession(parse_url(f"{self.url(keyspace)}?replication={len(self.nodes)}")).close()

    def stop(self) -> None:
        for node in self.nodes:
            if node.popen and node.popen.poll() is None:
                node.popen.kill()
        for node in self.nodes:
            if node.popen:
                node.popen.wait(30)
