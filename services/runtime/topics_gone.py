"""
Says which topic was deleted, or deleted and made again, while this process runs: once, and by name. And that no broker
answers any more: once, and when one does again.

What else is heard of it are the troubles that it makes, which name no cause. What becomes of the work is not decided
here: who works on the topic waits or ends, and no start goes on with another one (`streams.installation`).
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import structlog

from services.runtime.connection import connection_of
from services.runtime.settings import Settings
from streams.answers import ANSWERS
from streams.connection import BrokerAway, Connection, brokers_at
from streams.features import features_of
from streams.security import SecurityUnusable
from streams.topic_ids import topic_ids
from streams.topics import TOPICS

#: Between looks, each of some 10 ms; and before a second one, where the first has found something: a broker that has
#: just started may not know all topics yet.
EVERY_S: Final = 20.0
AGAIN_S: Final = 3.0

DELETED: Final = "it was deleted"
MADE_AGAIN: Final = "it was deleted and made again"

log = structlog.get_logger(__name__)


class Gone:
    """What is known of topics by their ids. Pure."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._suspected: dict[str, str] = {}
        self._said: dict[str, str] = {}

    @property
    def suspects(self) -> bool:
        """Whether the last look has found something that another one has to confirm."""
        return self._suspected != self._said

    def saw(self, ids: Mapping[str, str]) -> dict[str, str]:
        """
        What is to be said now: what has happened to a topic, by its name, when two looks in a row have found the same.

        Args:
            ids: of those of our topics that are there; of none where the broker has no ids.
        """
        found = {
            topic: DELETED if topic not in ids else MADE_AGAIN
            for topic, first in self._first.items()
            if ids.get(topic) != first
        }
        confirmed = {topic: what for topic, what in found.items() if self._suspected.get(topic) == what}
        news = {topic: what for topic, what in confirmed.items() if self._said.get(topic) != what}
        self._said = confirmed
        self._suspected = found
        self._first = {**ids, **self._first}
        return news


async def watch_topics(settings: Settings) -> None:
    """Look, and say it, until cancelled."""
    try:
        connection = connection_of(settings)
    except SecurityUnusable:
        return  # whoever needs it ends by that
    names, gone = [connection.topic(topic) for topic in TOPICS], Gone()
    #: None until a broker has answered: until then, whoever starts says that it waits.
    is_there: bool | None = None
    wait_s = AGAIN_S  # whoever starts waits for a broker by itself, and says so
    while True:
        await asyncio.sleep(wait_s)
        try:
            ids = await asyncio.wait_for(_ids(connection, names), EVERY_S)
        except Exception as error:  # noqa: BLE001 - no broker, or one that answers otherwise: others tell
            log.debug("topics.not_looked_at", reason=repr(error))
            if is_there and (away := await _away(connection)) is not None:
                is_there = False
                log.warning("broker.away", reason=away, hint="what is under way waits for it")
        else:
            if is_there is False:
                log.warning("broker.back")
            is_there = True
            for topic, what in gone.saw(ids).items():
                log.error("topic.gone", topic=topic, reason=what, hint="restore the brokers, or accept the loss")
        wait_s = AGAIN_S if gone.suspects else EVERY_S


async def _ids(connection: Connection, names: list[str]) -> dict[str, str]:
    """As `topic_ids`; a broker that has none is asked only where it has answered nobody lately."""
    has_ids = (await features_of(connection)).topic_ids
    if not has_ids and time.time() - ANSWERS.answered_s < EVERY_S:
        return {}
    return await topic_ids(connection, names)


async def _away(connection: Connection) -> str | None:
    """Why no broker answers; None where one does, and where that cannot be told."""
    try:
        await brokers_at(connection)
    except BrokerAway as away:
        return str(away)
    except Exception as error:  # noqa: BLE001 - a bug in the client must not end the watch
        log.debug("broker.not_asked", reason=repr(error))
    return None
