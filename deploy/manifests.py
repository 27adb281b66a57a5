"""
Writes those manifests of deploy/kubernetes that follow from the code: what `streams.topics`, `streams.grants` and
`services.dispatcher.guard` say.

    python -m deploy.manifests          # `make manifests`

Pure but for `main`; `tests/unit/test_manifests.py` holds the files to it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from services.dispatcher.guard import open_blocks
from streams.connection import Connection
from streams.grants import GRANTS, Grant
from streams.topics import TOPICS, Partitions, configs, partition_count

FOLDER: Final = Path(__file__).parent / "kubernetes"
#: The Kafka resource of Strimzi that topics and users belong to.
CLUSTER: Final = "kafka"
STRIMZI: Final = "kafka.strimzi.io/v1"
REPLICAS: Final = 3

_HEAD: Final = "# Made by `make manifests` out of {source}: change that.\n"
#: Strimzi's words.
_KINDS: Final = {"topic": "topic", "group": "group", "transactional_id": "transactionalId"}


def files(connection: Connection, partitions: Partitions) -> dict[Path, str]:
    """What each of them says."""
    return {
        FOLDER / "strimzi" / "topics.yaml": _yaml("streams/topics.py", _topics(connection, partitions)),
        FOLDER / "strimzi" / "users.yaml": _yaml("streams/grants.py", _users(connection)),
        FOLDER.parent / "kafka" / "acls.sh": _acl_commands(connection),
        FOLDER / "base" / "dispatcher-egress.yaml": _yaml("services/dispatcher/guard.py", [_egress()]),
    }


def _topics(connection: Connection, partitions: Partitions) -> Iterable[dict[str, Any]]:
    for topic in TOPICS:
        # Names of topics are names in Kubernetes too: small letters, digits, dots and dashes.
        yield _strimzi(
            "KafkaTopic",
            connection.topic(topic),
            {
                "partitions": partition_count(topic, partitions),
                "replicas": REPLICAS,
                "config": configs(topic, REPLICAS),
            },
        )


def _users(connection: Connection) -> Iterable[dict[str, Any]]:
    """One a service. Strimzi puts its password into a secret of the user's name, under `password`."""
    for service, grants in GRANTS.items():
        acls = [_acl(connection, grant) for grant in grants]
        spec = {
            "authentication": {"type": "scram-sha-512"},
            "authorization": {"type": "simple", "acls": acls},
        }
        yield _strimzi("KafkaUser", f"tenterhook-{service}", spec)


def _strimzi(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"strimzi.io/cluster": CLUSTER}}
    return {"apiVersion": STRIMZI, "kind": kind, "metadata": metadata, "spec": spec}


def _acl(connection: Connection, grant: Grant) -> dict[str, Any]:
    return {
        "resource": {
            "type": _KINDS[grant.kind],
            "name": connection.prefix + grant.name,
            "patternType": "prefix" if grant.is_prefix else "literal",
        },
        "operations": list(grant.operations),
        "host": "*",
    }


#: The tool's words.
_OPTIONS: Final = {"topic": "--topic", "group": "--group", "transactional_id": "--transactional-id"}


def _acl_commands(connection: Connection) -> str:
    """The same as commands of Kafka's own tool."""
    lines = [
        "#!/usr/bin/env bash",
        _HEAD.format(source="streams/grants.py").rstrip(),
        "#   BROKER=HOST:PORT ADMIN=admin.properties deploy/kafka/acls.sh",
        "set -euo pipefail",
        'allow() { kafka-acls.sh --bootstrap-server "$BROKER" --command-config "$ADMIN" --add "$@"; }',
    ]
    for service, grants in GRANTS.items():
        for grant in grants:
            operations = " ".join(f"--operation {each}" for each in grant.operations)
            pattern = " --resource-pattern-type prefixed" if grant.is_prefix else ""
            resource = f"{_OPTIONS[grant.kind]} {connection.prefix}{grant.name}"
            lines.append(f"allow --allow-principal User:tenterhook-{service} {operations} {resource}{pattern}")
    return "\n".join(lines) + "\n"


def _egress() -> dict[str, Any]:
    """Webhooks may go wherever the guard lets them, on any port: a second lock, in the network."""
    blocks = [
        {"ipBlock": {"cidr": str(network), "except": [str(each) for each in closed]}}
        for network, closed in open_blocks()
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "tenterhook-webhooks"},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "dispatcher"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": blocks, "ports": [{"protocol": "TCP"}]}],
        },
    }


def _yaml(source: str, documents: Iterable[Mapping[str, Any]]) -> str:
    return _HEAD.format(source=source) + yaml.safe_dump_all(documents, sort_keys=False, width=120)


def main() -> None:
    for file, text in files(Connection(""), Partitions()).items():
        file.write_text(text)


if __name__ == "__main__":
    main()
