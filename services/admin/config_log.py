"""
The config topics as the admin service reads them, through followers.

Reads first catch up with the topics' ends, so that they meet the writes of every process. What is written goes another
way: `services.admin.changes`.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from services.admin.audit import Chains
from services.admin.tokens import EVERY_APP
from services.admin.versions import Versions
from services.runtime import kinds
from services.runtime.problems import Problem
from services.runtime.starting import DENIED, denied
from streams import schema_topic
from streams.connection import Connection, wait_for_broker
from streams.ends import EndOffsets
from streams.features import features_of
from streams.follower import Follower
from streams.lane_rows import LaneRows
from streams.partitions_follower import PartitionsFollower
from streams.records import AppConfig, IntegrationConfig
from streams.replays import Replays
from streams.states import States
from streams.topics import (
    APP_CONFIG,
    AUDIT,
    CONFIG_HISTORY,
    INTEGRATION_CONFIG,
    INTEGRATION_STATE,
    LANE_ROWS,
    REPLAYS,
    SCHEMAS,
    Partitions,
    ensure,
)
from streams.trouble import Trouble
from streams.views import Apps, Integrations

#: How long a request waits for the broker before it is answered with 503. A healthy one needs milliseconds; the
#: election of a new leader some 3 s on three brokers.
PATIENCE_S: Final = 5.0

#: Between two attempts to make the topics, when the broker went away in between.
AGAIN_AFTER_S: Final = 1.0

log = structlog.get_logger(__name__)


class ConfigLog:
    """
    Apps, integrations and what the breaker says of them, as they stand at the end of their topics.

    Also the rows of detached integrations: those are written about a second late, and read half a second after that.
    """

    def __init__(self, connection: Connection) -> None:
        self.apps = Apps()
        self.integrations = Integrations()
        self.states = States()
        self.chains = Chains()
        self.versions = Versions()
        self.replays = Replays()
        self.rows = LaneRows()
        self._connection = connection
        self._integrations = Follower(
            connection, INTEGRATION_CONFIG, self.integrations.apply, clear=self.integrations.clear
        )
        #: What the owner of the configuration waits for, too.
        self.audit = Follower(connection, AUDIT, self.chains.apply, clear=self.chains.clear)
        self._followers = (
            Follower(connection, APP_CONFIG, self.apps.apply, clear=self.apps.clear),
            self._integrations,
            Follower(connection, INTEGRATION_STATE, self.states.apply, clear=self.states.clear),
            Follower(connection, REPLAYS, self.replays.apply, clear=self.replays.clear),
            Follower(connection, CONFIG_HISTORY, self.versions.apply, clear=self.versions.clear),
            self.audit,
        )
        followed = [follower.partition for follower in self._followers]
        self._schemas = Follower(connection, SCHEMAS, schema_topic.learn)
        self._ends = EndOffsets(connection, followed)
        self._ends_with_open = EndOffsets(connection, followed, with_open=True)
        self._rows: PartitionsFollower | None = None
        self._is_read = False
        self._making, self._meeting = Trouble(log), Trouble(log)
        #: How often it was begun to make the topics.
        self.tries = 0

    @property
    def trouble(self) -> str | None:
        """Why no request can be answered now; None when all is well."""
        if not self._is_read:
            return "the configuration has not been read yet: there is no broker, or it is still being read"
        if not all(follower.is_live for follower in self._followers):
            return "the configuration cannot be followed: the broker does not answer"
        return None

    @property
    def followers(self) -> tuple[Follower, ...]:
        """Who reads what must be read; the rows of lines are shown as far as they are known."""
        return (self._schemas, *self._followers)

    async def open(self, partitions: Partitions, *, replication: int, check: Callable[[], None] = lambda: None) -> None:
        """
        Wait for a broker as long as it takes, make the topics that are missing, and read them to the end.

        Args:
            check: called when all is read, before anything of it is shown; what it raises goes through.

        Raises:
            TopicMismatch: the topics are there, and not as they must be.
            StartupError: the broker forbids it.
        """
        while True:
            self.tries += 1
            await wait_for_broker(self._connection, say=lambda line: log.warning("broker.awaited", state=line))
            try:
                await ensure(self._connection, partitions, replication=replication)
            except DENIED as error:
                raise denied("admin", self._connection, error) from error
            except (KafkaError, OSError) as error:
                self._making.met("topics.not_ensured", error)
                await asyncio.sleep(AGAIN_AFTER_S)
            else:
                self._making.over()
                break
        self._rows = PartitionsFollower(
            self._connection, LANE_ROWS, partitions.by_integration, self.rows.apply, clear=self.rows.clear
        )
        await asyncio.gather(*(follower.start() for follower in (self._schemas, *self._followers, self._rows)))
        # A state that was met may be of an integration that was made since its topic's end was asked for.
        await asyncio.gather(*(follower.catch_up() for follower in self._followers))
        check()
        self._is_read = True

    async def close(self) -> None:
        """Stop following. Who waits is cancelled."""
        rows = () if self._rows is None else (self._rows,)
        own = (self._schemas, *self._followers, *rows, self._ends, self._ends_with_open)
        await asyncio.gather(*(each.stop() for each in own))

    async def catch_up(self) -> None:
        """
        Meet everything that was confirmed before this call, by whichever process.

        Raises:
            Problem: 503 `broker_unavailable`; nothing was changed.
        """
        await self._met(self._ends, PATIENCE_S)

    async def meet_all(self, within_s: float = PATIENCE_S) -> None:
        """
        Meet also what is just being committed: a commit becomes visible in one topic after the other.

        Whoever calls `catch_up` when this has returned, in whichever process, meets as much.

        Raises:
            Problem: 503 `broker_unavailable`; nothing was changed.
        """
        await self._met(self._ends_with_open, within_s)

    async def seen(self, app: str, within_s: float) -> bytes:
        """
        The end of the app's audit chain, with everything met that was written together with it or before it.

        Until whoever asked waits for something, the views show the app as it was at that end, or newer in parts.

        Raises:
            Problem: 503 `broker_unavailable`; nothing was changed.
        """
        until_s = time.monotonic() + within_s
        while True:
            end = self.chains.last(app)
            await self.meet_all(until_s - time.monotonic())
            # Else its chain went on meanwhile, perhaps further than what was met.
            if self.chains.last(app) == end:
                return end

    def app(self, name: str) -> AppConfig | None:
        """
        The app as it is now; None where there is none.

        Raises:
            Problem: 503 `config_unreadable`: that is not known, since its record cannot be read.
        """
        if self.apps.is_broken(name):
            raise _unreadable(f"the app {name!r}" if name != EVERY_APP else "the installation's tokens")
        return self.apps.get(name)

    def integration(self, integration: str) -> IntegrationConfig | None:
        """
        The integration as it is now; None where there is none.

        Raises:
            Problem: 503 `config_unreadable`: that is not known, since its record cannot be read.
        """
        if self.integrations.is_broken(integration):
            raise _unreadable(f"the integration {integration!r}")
        return self.integrations.get(integration)

    def next_offset(self) -> int:
        """Offset that the next record of `integration-config` gets, as far as this process has read."""
        return self._integrations.position

    async def _met(self, ends: EndOffsets, within_s: float) -> None:
        if not self._is_read:
            raise unavailable("The configuration has not been read yet, so nothing was done. Repeat the request.")
        try:
            async with asyncio.timeout(within_s):
                if (await features_of(self._connection)).exact_ends:
                    found = await ends.ask()
                    await asyncio.gather(*(each.reach(found[each.partition]) for each in self._followers))
                else:  # each end costs a fetch there, and there is nothing open
                    await asyncio.gather(*(follower.catch_up() for follower in self._followers))
        except (TimeoutError, KafkaError, OSError) as error:
            self._meeting.met("config.not_met", error)
            raise unavailable("The broker does not answer, so nothing was done. Repeat the request.") from None
        self._meeting.over()


def _unreadable(whose: str) -> Problem:
    """Nobody has deleted it, so it is not said to be missing, and nothing takes its place."""
    return Problem(
        kinds.CONFIG_UNREADABLE,
        f"The newest configuration of {whose} cannot be read, and nothing is known from before, so nothing was done. "
        "An operator has to write it again (`tenterhook restore --unreadable`); repeat the request then.",
        headers={"Retry-After": "30"},
    )


def unavailable(detail: str) -> Problem:
    """The broker is away, or not confirming."""
    return Problem(kinds.BROKER_UNAVAILABLE, detail, headers={"Retry-After": "5"})
