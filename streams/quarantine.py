"""Puts records aside that no code could read or finish: as they were, with the reason, so that they can be put back."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from streams import codec
from streams.connection import Connection
from streams.records import Header, Quarantined
from streams.topics import PUT_BACK_HEADER, QUARANTINE
from streams.trouble import Trouble

Code = Literal["record.unreadable", "record.unexpected", "record.fatal", "agent.raised", "attempt.raised"]

log = structlog.get_logger(__name__)

_AFTER_A_BUG: Final = "the log has its trace just before: report it, and put it back under a release without the fault"
#: What each code means, and what to do. Links are as from `docs/`.
CODES: Final[Mapping[Code, tuple[str, str]]] = {
    "record.unreadable": (
        "no code could read it",
        "find out who wrote it; where it was a newer release, update, then put it back",
    ),
    "record.unexpected": ("it is a record of ours that has no place on that topic", "find out who wrote it"),
    "record.fatal": (
        "workers ended while they worked on it, the last one on nothing else",
        "find out [why](why/poison.md), then put it back",
    ),
    "agent.raised": ("our code raised for it, alone too", _AFTER_A_BUG),
    "attempt.raised": (
        "the attempt of this delivery raised: our fault, and not counted as the integration's",
        _AFTER_A_BUG,
    ),
}

#: Records that this process has put aside, by code, for metrics.
PUT_ASIDE: Final[Counter[str]] = Counter()

#: For people: a sentence or two. A reason made from an exception could be of any length.
_MAX_REASON_CHARS: Final = 1_000
_PAUSE_S: Final = 0.5


def was_put_back(record: "ConsumerRecord[Any, Any]") -> bool:
    """
    Whether it was in quarantine and somebody has put it back.

    As many owners as may have come since it was made, and whatever came by under its name: it is to be worked on.
    """
    return any(name == PUT_BACK_HEADER for name, _ in record.headers)


class Quarantine:
    """The quarantine topic, as one agent sees it."""

    def __init__(
        self, producer: AIOKafkaProducer, connection: Connection, agent: str, clock_ms: Callable[[], int]
    ) -> None:
        self._producer = producer
        self._topic = connection.topic(QUARANTINE)
        self._agent = agent
        self._clock_ms = clock_ms
        self._trouble = Trouble(log, agent=agent)
        #: Records put aside by this process.
        self.count = 0

    async def put(self, record: "ConsumerRecord[Any, Any]", code: Code, reason: str) -> None:
        """
        Returns when it is on the broker; tries for as long as that takes.

        Args:
            reason: for people; never a secret or a body.

        Raises:
            KafkaError: the producer is dead (see `open_producer`) or closed.
        """
        quarantined = self._quarantined(record, code, reason[:_MAX_REASON_CHARS])
        try:
            await self._send(quarantined)
        except MessageSizeTooLargeError:
            # It stays where it was for that topic's retention: better without its value than not at all.
            size = len(record.value or b"")
            await self._send(
                self._quarantined(record, code, f"{reason[:900]} (its {size} bytes fit in no record)", bare=True)
            )
        self.count += 1
        PUT_ASIDE[code] += 1
        log.error(
            "record.quarantined",
            agent=self._agent,
            code=code,
            reason=quarantined.reason,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
        )

    async def _send(self, quarantined: Quarantined) -> None:
        value = codec.encode(quarantined)
        while True:
            try:
                await self._producer.send_and_wait(self._topic, value)
            except KafkaError as error:
                if not error.retriable:
                    raise
                self._trouble.met("quarantine.retried", error)
                await asyncio.sleep(_PAUSE_S)
            else:
                self._trouble.over()
                return

    def _quarantined(
        self, record: "ConsumerRecord[Any, Any]", code: str, reason: str, *, bare: bool = False
    ) -> Quarantined:
        return Quarantined(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=None if bare else record.key,
            value=None if bare else record.value,
            headers=[] if bare else [Header(name=name, value=value) for name, value in record.headers],
            code=code,
            reason=reason,
            agent=self._agent,
            at_ms=self._clock_ms(),
        )
