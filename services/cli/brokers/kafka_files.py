"""The files of an Apache Kafka node of ours, as text. Pure; the settings and their reasons are here, once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node of a cluster: broker and controller in one process."""

    #: Counted from 1.
    id: int
    port: int
    controller_port: int


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """One cluster: what is chosen once and kept in its data folder."""

    #: 22 characters, base64 of a UUID.
    cluster_id: str
    nodes: tuple[NodePlan, ...]

    @property
    def bootstrap(self) -> str:
        """`host:port,host:port`."""
        return ",".join(f"{HOST}:{node.port}" for node in self.nodes)


def server_properties(cluster: ClusterPlan, node: NodePlan, log_dir: str) -> str:
    """The node's `server.properties`."""
    voters = ",".join(f"{each.id}@{HOST}:{each.controller_port}" for each in cluster.nodes)
    size = len(cluster.nodes)
    replicas, in_sync = (3, 2) if size >= 3 else (1, 1)  # noqa: PLR2004 - as docs/topics.md says
    return _properties(
        {
            "process.roles": "broker,controller",
            "node.id": node.id,
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://{HOST}:{node.port},CONTROLLER://{HOST}:{node.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{node.port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": log_dir,
        }
        | _durable(replicas, in_sync)
        | _SWIFT
        | _SMALL
    )


def _durable(replicas: int, in_sync: int) -> dict[str, object]:
    """Nothing that was acknowledged is lost, in topics of Kafka's own too."""
    return {
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "unclean.leader.election.enable": "false",
        # A topic made by a misspelt name would have the wrong partitions and retention.
        "auto.create.topics.enable": "false",
    }


#: Quick to notice, for one machine where nothing is far away.
_SWIFT: Final[dict[str, object]] = {
    # A first worker need not wait for others to join with it.
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1_000,
    # A dead node is noticed after 3 s instead of 9.
    "broker.heartbeat.interval.ms": 500,
    "broker.session.timeout.ms": 3_000,
}

#: Light: a node beside all services, a browser and a compiler.
_SMALL: Final[dict[str, object]] = {
    "num.network.threads": 2,
    "num.io.threads": 4,
    "background.threads": 2,
    "offsets.topic.num.partitions": 8,
    "transaction.state.log.num.partitions": 8,
    "share.coordinator.state.topic.num.partitions": 8,
    # 128 MB is for logs of millions of keys; ours compact thousands.
    "log.cleaner.dedupe.buffer.size": 8_388_608,
    # The internal log of an idle controller would grow by two records a second.
    "metadata.max.idle.interval.ms": 5_000,
}


def log4j2_properties(file: str) -> str:
    """Quiet: warnings and errors, into a file of 8 MB and the one before."""
    return _properties(
        {
            "status": "error",
            "appender.file.type": "RollingFile",
            "appender.file.name": "file",
            "appender.file.fileName": file,
            "appender.file.filePattern": f"{file}.%i",
            "appender.file.layout.type": "PatternLayout",
            "appender.file.layout.pattern": "%d{ISO8601} %p %m (%c{1})%n",
            "appender.file.policies.type": "SizeBasedTriggeringPolicy",
            "appender.file.policies.size": "8MB",
            "appender.file.strategy.type": "DefaultRolloverStrategy",
            "appender.file.strategy.max": 1,
            "rootLogger.level": "warn",
            "rootLogger.appenderRef.file.ref": "file",
        }
    )


def _properties(values: Mapping[str, object]) -> str:
    """Java's properties format; a backslash would escape what follows it."""
    escaped = {name: str(value).replace("\\", "\\\\") for name, value in values.items()}
    return "".join(f"{name}={value}\n" for name, value in escaped.items())
