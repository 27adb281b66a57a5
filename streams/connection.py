"""Where the log is: its brokers and the prefix of our topics. Waiting for a broker that is not there yet."""

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from streams.closed_connections import treat_as_broken
from streams.security import OPEN, Security

if TYPE_CHECKING:
    from streams.topics import Topic

#: A broker that takes longer than this to answer the first question is not there.
_ANSWER_S: Final = 5.0
#: Waiting starts with this pause and doubles it, up to the second: a broker of our own is up in 3 s,
#: one that is being repaired should not be hammered.
_PAUSES_S: Final = (0.05, 2.0)
#: A connection that was silent for so long is closed, and made anew when it is wanted. What stands between us and the
#: broker forgets silent ones without a word, Azure's load balancer after 4 minutes, AWS's after 350 s: what is sent
#: over one of those waits for `request_timeout_ms`, 40 s. aiokafka's default is 9 minutes.
IDLE_MS: Final = 180_000
#: Silence makes people restart things: say again after this long that nothing has changed.
_SAY_AGAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Connection:
    """
    Where the log is, and what our topics are called there.

    Raises:
        AiokafkaChanged: see `streams.closed_connections`.
    """

    #: `host:port,host:port`.
    bootstrap: str
    #: Stands before every topic's name, so that several installations can share a cluster.
    prefix: str = "tenterhook."
    #: Whether producers are idempotent; `auto` asks the broker.
    idempotence: Literal["auto", "on", "off"] = "auto"
    security: Security = OPEN

    def __post_init__(self) -> None:
        # Whoever makes a client, in whatever process, has one of these.
        treat_as_broken()

    @property
    def client_options(self) -> dict[str, Any]:
        """Options of every client of aiokafka: where the brokers are, and how they are spoken to."""
        return {
            "bootstrap_servers": self.bootstrap,
            "connections_max_idle_ms": IDLE_MS,
            **self.security.client_options,
        }

    @property
    def by_address(self) -> "list[Connection]":
        """The same with one address each, for whoever asks them beside each other."""
        return [replace(self, bootstrap=address.strip()) for address in self.bootstrap.split(",")]

    def topic(self, topic: "Topic") -> str:
        """The topic's name on the broker."""
        return self.prefix + topic.name


class BrokerAway(ConnectionError):
    """No broker answers there; the message says why, for people."""

    code = "broker.away"
    when = "nobody answers there, or not over that protocol, or the broker wants a certificate of ours"
    #: What to do, a sentence.
    remedy = "Start it, or set TENTERHOOK_BROKER to where it is."


class BrokerUntrusted(BrokerAway):
    """One answers, and TLS does not come about: its certificate or ours is not what the other side wants."""

    code = "broker.untrusted"
    when = "the broker's certificate is not signed by that CA, has expired, or has another name"
    remedy = (
        "Set TENTERHOOK_KAFKA__CA_FILE to the CA that signed the brokers' certificates, and TENTERHOOK_BROKER to names "
        "that stand in them."
    )


class BrokerRefused(BrokerAway):
    """One answers, and does not take our user, password or mechanism."""

    code = "broker.refused"
    when = "user, password or mechanism is not what the broker has"
    remedy = "Correct TENTERHOOK_KAFKA__USER, its password, or TENTERHOOK_KAFKA__SASL_MECHANISM."


async def wait_for_broker(
    connection: Connection, *, say: Callable[[str], None], stop: asyncio.Event | None = None
) -> None:
    """
    Returns when a broker answers, or when *stop* is set.

    Says once why it waits and what can be done, again when the reason changes or a minute has passed, and once when
    the waiting is over; nothing where the broker is there at once.
    """
    started = time.monotonic()
    said: tuple[str, float] | None = None
    pause_s, longest_s = _PAUSES_S
    while stop is None or not stop.is_set():
        try:
            await brokers_at(connection)
        except BrokerAway as away:
            now = time.monotonic()
            if said is None or said[0] != str(away) or now - said[1] >= _SAY_AGAIN_S:
                say(f"waiting for a broker at {connection.bootstrap}: {away}. {away.remedy}")
                said = str(away), now
        else:
            if said is not None:
                say(f"the broker at {connection.bootstrap} is there, after {time.monotonic() - started:.0f} s")
            return
        await _pause(pause_s, stop)
        pause_s = min(2 * pause_s, longest_s)


async def brokers_at(connection: Connection) -> int:
    """
    How many brokers the cluster there has in service now: one or more.

    Raises:
        BrokerUntrusted, BrokerRefused: one answers, and does not let us in.
        BrokerAway: none of the addresses answers, or none speaks Kafka, or the cluster is not ready yet.
    """
    host, port = await _reachable(connection)
    security = connection.security.client_options
    if connection.security != OPEN:
        # Asked for by itself, since its reason is clear: the client below says only that it could not.
        await _let_in(host, port, security)
    client = AIOKafkaClient(bootstrap_servers=f"{host}:{port}", request_timeout_ms=int(_ANSWER_S * 1000), **security)
    try:
        await asyncio.wait_for(client.bootstrap(), 2 * _ANSWER_S)
        count = len(client.cluster.brokers())
    except (KafkaError, OSError, TimeoutError) as error:
        raise _no_broker(connection.security.protocol) from error
    finally:
        await client.close()
    if count == 0:
        raise BrokerAway("it is starting: no broker of the cluster is in service yet")
    return count


async def coordinator_answers(connection: Connection, group: str) -> bool:
    """Whether the broker that keeps the consumer group, by its full name, can be reached now by this connection."""
    client = AIOKafkaClient(request_timeout_ms=int(_ANSWER_S * 1000), **connection.client_options)
    try:
        await client.bootstrap()
        node = await client.coordinator_lookup(CoordinationType.GROUP, group)
        return bool(await client.ready(node, group=ConnectionGroup.COORDINATION))
    except Exception:  # noqa: BLE001  # whatever keeps it from answering, it does not answer
        return False
    finally:
        await client.close()


def _no_broker(protocol: str) -> BrokerAway:
    wanted = ", or it wants a certificate of us (…__CERTIFICATE_FILE)" if protocol.endswith("SSL") else ""
    return BrokerAway(
        f"something listens there, but it does not answer as a Kafka broker over {protocol} "
        f"(TENTERHOOK_KAFKA__SECURITY_PROTOCOL){wanted}"
    )


async def _let_in(host: str, port: int, security: dict[str, Any]) -> None:
    """Open a connection as every client does, and close it."""
    where = f"{host}:{port}"
    try:
        connection = await create_conn(host, port, request_timeout_ms=int(_ANSWER_S * 1000), **security)
    except ssl.SSLCertVerificationError as error:
        raise BrokerUntrusted(
            f"broker.untrusted: {where} shows a certificate that is not to be trusted ({error.verify_message})"
        ) from None
    except ssl.SSLError as error:
        raise BrokerUntrusted(
            f"broker.untrusted: no TLS with {where} ({error.reason}): it may speak none, or want another certificate"
        ) from None
    except UnsupportedSaslMechanismError:
        raise BrokerRefused(
            f"broker.refused: {where} does not take {security['sasl_mechanism']} from its users"
        ) from None
    except (SaslAuthenticationFailed, AuthenticationFailedError, ValueError):
        # Of Kafka's own message nothing is repeated; ValueError is what a wrong SCRAM answer ends in.
        raise BrokerRefused(
            f"broker.refused: {where} does not let the user {security.get('sasl_plain_username')!r} in "
            f"({security.get('sasl_mechanism')})"
        ) from None
    except (KafkaError, OSError, TimeoutError) as error:
        raise _no_broker(security["security_protocol"]) from error
    await asyncio.wait((connection.close(),), timeout=_ANSWER_S)


async def _reachable(connection: Connection) -> tuple[str, int]:
    """
    The first of the addresses that somebody listens at.

    Plain TCP, since its reason is clearer, and aiokafka logs each failed try as an error of its own.
    """
    reasons = []
    for host, port, _ in collect_hosts(connection.bootstrap):
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), _ANSWER_S)
        except TimeoutError:
            reasons.append(f"{host}:{port} does not answer within {_ANSWER_S:.0f} s")
        except OSError as error:
            reasons.append(f"{host}:{port}: {error.strerror or error}")
        else:
            writer.close()
            return host, port
    raise BrokerAway("; ".join(sorted(reasons)))


async def _pause(pause_s: float, stop: asyncio.Event | None) -> None:
    if stop is None:
        await asyncio.sleep(pause_s)
        return
    try:
        await asyncio.wait_for(stop.wait(), pause_s)
    except TimeoutError:
        return
