"""
Apache Kafka nodes of our own: one, or a cluster of three, as Java processes on loopback, started from the jars.

Each is broker and controller (KRaft). The data folder holds everything, the chosen ports too, so that a node that is
started again is found where it was and has what it had:

    cluster.json            the cluster's id and its nodes' ports
    node-1/server.properties, log4j2.properties
    node-1/log/             Kafka's data
    node-1/broker.log       its warnings and errors
    node-1/output.txt       what the process printed
"""

import asyncio
import base64
import json
import os
import subprocess
import uuid
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final, Literal

from services.cli.brokers import BrokerFailed
from services.cli.brokers.java import find_java
from services.cli.brokers.kafka_files import ClusterPlan, NodePlan, log4j2_properties, server_properties
from services.cli.brokers.node import Node, in_service
from services.cli.brokers.ports import free_ports, is_free
from streams.connection import BrokerAway, Connection, brokers_at
from streams.security import OPEN, Security

#: Where `make kafka` puts them.
JARS: Final = Path(__file__).resolve().parents[3] / "deploy" / "kafka" / "jars"

#: Beside the jars, where `archive.py` was run.
ARCHIVE: Final = "kafka.jsa"

#: Ready after 3 s on an idle machine; a busy one is given time.
_START_S: Final = 90.0
#: One that cannot hand over its partitions any more (the others are gone) would try for minutes.
_STOP_S: Final = 10.0
_FORMAT_S: Final = 60.0

#: Started quickly and small. The first compiler alone: 95 µs of CPU a record (16 in flight, 1 KB, written and read)
#: from the second thousand on, where both compilers still need 220 after 24,000. Serial collector: the least CPU on
#: two cores.
_JVM: Final = (
    *("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"),
    *("-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true", "-Dlog4j2.disableJmx=true"),
)


def has_jars(jars: Path = JARS) -> bool:
    """Whether Kafka's jars are there."""
    return next(jars.glob("kafka_2.13-*.jar"), None) is not None


class KafkaBroker:
    """One cluster of our own."""

    kind: Literal["kafka"] = "kafka"

    #: How its nodes are asked whether they are in service. They are on loopback, and open; tests have others.
    security: Security = OPEN
    #: More of Kafka's formatter.
    format_options: tuple[str, ...] = ()

    def __init__(self, data: Path, *, nodes: int = 1, jars: Path = JARS, jvm: tuple[str, ...] = ()) -> None:
        """
        Args:
            data: the folder described above; made where there is none.
            nodes: 1 or 3. A folder that has a cluster already keeps its own.
            jvm: more options for Java.

        Raises:
            BrokerFailed: the folder's cluster.json cannot be read.
        """
        self.data = data.resolve()
        self._jars = jars
        self._jvm = jvm
        self.plan = _kept_or_new(self.data / "cluster.json", nodes)
        self.bootstrap = self.plan.bootstrap
        self.nodes = [
            Node(f"Kafka node {plan.id}", partial(self._command, plan), self._folder(plan) / "output.txt")
            for plan in self.plan.nodes
        ]

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """What to run, one command a node, after `prepare`."""
        return tuple(self._command(plan) for plan in self.plan.nodes)

    def prepare(self) -> None:
        """
        Write the nodes' files, and format the folders that Kafka has never used. Takes a second the first time.

        Raises:
            BrokerFailed: Kafka's formatter refused; the message has what it said.
        """
        for plan in self.plan.nodes:
            folder = self._folder(plan)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "server.properties").write_text(self._properties(plan, folder))
            (folder / "log4j2.properties").write_text(log4j2_properties(str(folder / "broker.log")))
        formatting = [
            (plan, self._format(plan))
            for plan in self.plan.nodes
            if not (self._folder(plan) / "log" / "meta.properties").exists()
        ]
        for plan, process in formatting:
            said, _ = process.communicate(timeout=_FORMAT_S)
            if process.returncode != 0:
                raise BrokerFailed(f"Kafka cannot format {self._folder(plan) / 'log'}: {said.strip()[-2000:]}")

    async def probe(self) -> str | None:
        """None when all nodes are in service, else why not yet."""
        # Each for itself: for some seconds the others count one that was killed as in service. All are waited for: who
        # is left behind is cut off when the loop ends, and leaves its connection open.
        asked = [brokers_at(Connection(each, security=self.security)) for each in self.bootstrap.split(",")]
        counts: list[int] = []
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, BrokerAway):
                return str(answer)
            if isinstance(answer, BaseException):
                raise answer
            counts.append(answer)
        return None if min(counts) >= len(self.nodes) else f"{min(counts)} of {len(self.nodes)} nodes are in service"

    async def start(self) -> None:
        """
        Start the nodes that do not run; returns when all are in service.

        Raises:
            BrokerFailed: a node ended, or was not ready in time; the others are stopped.
        """
        await asyncio.to_thread(self.prepare)
        try:
            for node in self.nodes:
                node.launch()
            await in_service(self.nodes, self.probe, within_s=_START_S)
        except (BrokerFailed, asyncio.CancelledError):
            self.kill()
            raise

    async def stop(self, *, grace_s: float = _STOP_S) -> None:
        """End all nodes; what they hold stays on disk."""
        await asyncio.gather(*(node.stop(grace_s=grace_s) for node in self.nodes))

    def kill(self) -> None:
        """`kill -9` to all nodes."""
        for node in self.nodes:
            node.kill()

    def _properties(self, plan: NodePlan, folder: Path) -> str:
        """Its `server.properties`."""
        return server_properties(self.plan, plan, str(folder / "log"))

    def _folder(self, plan: NodePlan) -> Path:
        return self.data / f"node-{plan.id}"

    def _command(self, plan: NodePlan) -> tuple[str, ...]:
        folder = self._folder(plan)
        logging = f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}"
        return (*self._java(*self._jvm, logging), "kafka.Kafka", str(folder / "server.properties"))

    def _format(self, plan: NodePlan) -> "subprocess.Popen[str]":
        properties = str(self._folder(plan) / "server.properties")
        tool = ("kafka.tools.StorageTool", "format", "-t", self.plan.cluster_id, "-c", properties)
        return subprocess.Popen(  # noqa: S603 - Java and arguments of ours
            (*self._java(), *tool, *self.format_options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _java(self, *options: str) -> tuple[str, ...]:
        java = find_java()
        if java is None:
            raise BrokerFailed("there is no Java; Kafka needs 17 or newer (Debian: openjdk-17-jre-headless)")
        archive = self._jars / ARCHIVE
        sharing = (f"-XX:SharedArchiveFile={archive}",) if archive.exists() else ()
        classes = os.pathsep.join(str(jar) for jar in sorted(self._jars.glob("*.jar")))
        return (java.command, *_JVM, *sharing, *options, "-cp", classes)


def _kept_or_new(file: Path, nodes: int) -> ClusterPlan:
    """The folder's cluster; ports that somebody else has taken since are chosen anew."""
    try:
        kept = _read(file)
    except FileNotFoundError:
        kept = ClusterPlan(_new_cluster_id(), ())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokerFailed(
            f"{file} cannot be read ({type(error).__name__}). Restore it, or use another data folder."
        ) from None
    ids = [node.id for node in kept.nodes] or list(range(1, nodes + 1))
    taken = [port for node in kept.nodes for port in (node.port, node.controller_port) if not is_free(port)]
    if kept.nodes and not taken:
        return kept
    ports = free_ports(2 * len(ids))
    plan = ClusterPlan(
        kept.cluster_id,
        tuple(
            NodePlan(number, *pair) for number, pair in zip(ids, zip(ports[::2], ports[1::2], strict=True), strict=True)
        ),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(plan), indent=1) + "\n")
    return plan


def _read(file: Path) -> ClusterPlan:
    content = json.loads(file.read_text())
    return ClusterPlan(str(content["cluster_id"]), tuple(NodePlan(**node) for node in content["nodes"]))


def _new_cluster_id() -> str:
    """As Kafka writes UUIDs; one that starts with a dash would look like an option to its tools."""
    while True:
        name = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not name.startswith("-"):
            return name
