"""A start that takes as long as the broker does: anew, where it goes away in the middle of one."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from typing import Final, TypeVar

import structlog
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from services.runtime.serving import StartupError
from streams.connection import Connection, wait_for_broker
from streams.grants import GRANTS, Kind
from streams.trouble import Trouble

T = TypeVar("T")

log = structlog.get_logger(__name__)

_KINDS: Final[Mapping[type[KafkaError], Kind]] = {
    TopicAuthorizationFailedError: "topic",
    GroupAuthorizationFailedError: "group",
    TransactionalIdAuthorizationFailed: "transactional_id",
}
#: What a broker answers whose ACLs forbid something. No waiting changes that.
DENIED: Final = (*_KINDS, ClusterAuthorizationFailedError)

#: Between two starts: a broker that answers questions may refuse the rest for a while.
_PAUSES_S: Final = (0.5, 10.0)
#: A start is let go on for so long when it is not wanted any more, since one that is over ends in order: a member that
#: leaves its group is replaced at once, one that is cut off after its session.
_LATE_S: Final = 5.0
#: And for so long may what was cut off take to end.
_CUT_OFF_S: Final = 2.0


class BrokerDenied(StartupError):
    """The broker forbids a service something that it needs. The message says what to grant."""

    code = "broker.denied"
    when = "the broker's ACLs forbid the service something; the message names the topic or the group"
    remedy = (
        "grant what the message says; [deploying](deploying.md#what-each-service-may-at-the-broker) lists what each "
        "service may"
    )

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.code}: {reason}")


async def until_started(
    service: str,
    connection: Connection,
    start: Callable[[AsyncExitStack], Awaitable[T]],
    *,
    stop: asyncio.Event | None = None,
) -> tuple[T, AsyncExitStack] | None:
    """
    Start it when there is a broker; what it returns, and what ends it. None where *stop* was set before.

    Args:
        service: its name, as in `streams.grants`.
        start: puts what it opens on the stack, which is closed where it raises. After KafkaError and OSError it is
            called again, with nothing kept; anything else goes through.

    Raises:
        BrokerDenied: it forbids something.
    """
    stop = stop or asyncio.Event()
    pause_s, longest_s = _PAUSES_S
    trouble = Trouble(log)
    while True:
        await wait_for_broker(connection, say=log.info, stop=stop)
        if stop.is_set():
            return None
        stack = AsyncExitStack()
        try:
            if await _finished(starting := asyncio.ensure_future(start(stack)), stop):
                started = starting.result(), stack
                trouble.over()
                return started
        except DENIED as error:
            await stack.aclose()
            raise denied(service, connection, error) from error
        except (KafkaError, OSError) as error:
            trouble.met("start.interrupted", error, hint="the broker went away; starting anew")
            await stack.aclose()
        except BaseException:
            await stack.aclose()
            raise
        else:
            await stack.aclose()
            return None
        try:
            await asyncio.wait_for(stop.wait(), pause_s)
        except TimeoutError:
            pause_s = min(2 * pause_s, longest_s)


def denied(service: str, connection: Connection, error: KafkaError) -> BrokerDenied:
    """What to say where the broker forbids the service something: which topic or group, and what to grant."""
    kind = _KINDS.get(type(error))
    missing = []
    for name in _named(error):
        operations = [
            operation
            for grant in GRANTS[service]
            if (grant.kind, connection.prefix + grant.name, grant.is_prefix) == (kind, name, False)
            for operation in grant.operations
        ]
        what = f"{kind or 'cluster'} {name}".replace("_", " ")
        missing.append(f"{' and '.join(operations)} on {what}" if operations else what)
    return BrokerDenied(
        f"the broker forbids {service} something that it needs ({type(error).__name__}). Grant its user "
        f"{', '.join(missing) or 'what is missing'}; docs/deploying.md lists what each service may"
    )


def _named(error: KafkaError) -> list[str]:
    """What it is about, in order; nothing where aiokafka tells something else, or nothing."""
    named = error.args[0] if error.args else ()
    if isinstance(named, str):
        return [named]
    return sorted(each for each in named if isinstance(each, str)) if isinstance(named, Collection) else []


async def _finished(starting: "asyncio.Future[T]", stop: asyncio.Event) -> bool:
    """Whether it is over, well or not; not where *stop* was set, and it did not end soon after that."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            await asyncio.wait((starting,), timeout=_LATE_S)
        return starting.done()
    finally:
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait((starting,), timeout=_CUT_OFF_S)
