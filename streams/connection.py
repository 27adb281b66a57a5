"""Where the log is: its brokers and the prefix of our topics. Waiting for a broker that is not there yet."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts
from aiokafka.errors import KafkaError

if TYPE_CHECKING:
    from streams.topics import Topic

#: A broker that takes longer than this to answer the first question is not there.
_ANSWER_S: Final = 5.0
#: Waiting starts with this pause and doubles it, up to the second: a broker of our own is up in 3 s,
#: one that is being repaired should not be hammered.
_PAUSES_S: Final = (0.05, 2.0)
#: Silence makes people restart things: say again after this long that nothing has changed.
_SAY_AGAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the log is, and what our topics are called there."""

    #: `host:port,host:port`.
    bootstrap: str
    #: Stands before every topic's name, so that several installations can share a cluster.
    prefix: str = "tenterhook."
    #: Whether producers are idempotent; `auto` asks the broker.
    idempotence: Literal["auto", "on", "off"] = "auto"

    def topic(self, topic: "Topic") -> str:
        """The topic's name on the broker."""
        return self.prefix + topic.name


class BrokerAway(ConnectionError):
    """No broker answers there; the message says why, for people."""

    code = "broker.away"


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
            await brokers_at(connection.bootstrap)
        except BrokerAway as away:
            now = time.monotonic()
            if said is None or said[0] != str(away) or now - said[1] >= _SAY_AGAIN_S:
                say(
                    f"waiting for a broker at {connection.bootstrap}: {away}. "
                    "Start it, or set TENTERHOOK_BROKER to where it is."
                )
                said = str(away), now
        else:
            if said is not None:
                say(f"the broker at {connection.bootstrap} is there, after {time.monotonic() - started:.0f} s")
            return
        await _pause(pause_s, stop)
        pause_s = min(2 * pause_s, longest_s)


async def brokers_at(bootstrap: str) -> int:
    """
    How many brokers the cluster there has in service now: one or more.

    Raises:
        BrokerAway: none of the addresses answers, or none speaks Kafka, or the cluster is not ready yet.
    """
    client = AIOKafkaClient(bootstrap_servers=await _reachable(bootstrap), request_timeout_ms=int(_ANSWER_S * 1000))
    try:
        await asyncio.wait_for(client.bootstrap(), 2 * _ANSWER_S)
        count = len(client.cluster.brokers())
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerAway("something listens there, but it does not answer as a Kafka broker") from error
    finally:
        await client.close()
    if count == 0:
        raise BrokerAway("it is starting: no broker of the cluster is in service yet")
    return count


async def _reachable(bootstrap: str) -> str:
    """
    The first of the addresses that somebody listens at.

    Plain TCP, since its reason is clearer, and aiokafka logs each failed try as an error of its own.
    """
    reasons = []
    for host, port, _ in collect_hosts(bootstrap):
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), _ANSWER_S)
        except TimeoutError:
            reasons.append(f"{host}:{port} does not answer within {_ANSWER_S:.0f} s")
        except OSError as error:
            reasons.append(f"{host}:{port}: {error.strerror or error}")
        else:
            writer.close()
            return f"{host}:{port}"
    raise BrokerAway("; ".join(sorted(reasons)))


async def _pause(pause_s: float, stop: asyncio.Event | None) -> None:
    if stop is None:
        await asyncio.sleep(pause_s)
        return
    try:
        await asyncio.wait_for(stop.wait(), pause_s)
    except TimeoutError:
        return
