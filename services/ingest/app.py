"""
The ingest service: HTTP in, the topic `events` out.

The port opens at once, whether there is a broker or not: a sender that hears 503 knows what to do, one that is
refused a connection does not.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog

from services.ingest.append import EventLog
from services.ingest.handlers import Events
from services.runtime import metrics
from services.runtime.connection import connection_of
from services.runtime.liveness import Liveness, broker_answers
from services.runtime.metric import Sample
from services.runtime.readiness import tell_readiness
from services.runtime.serving import Served, StartupError, application, serve
from services.runtime.settings import Settings
from streams import schema_topic, topics
from streams.follower import Follower
from streams.views import Apps

#: How long a stop waits for events in flight: a second more than they wait for the broker.
DRAIN_S: Final = 6.0

log = structlog.get_logger(__name__)


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """
    Take events until *stop* is set, then finish those in flight.

    Raises:
        StartupError: the port is taken, or the topics are not as they must be.
    """
    async with running(settings) as ingest:
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((stopping, ingest.work), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if ingest.work.done():
            await ingest.work


class Ingest:
    """One ingest process: the HTTP side, the log, and the apps that it follows."""

    def __init__(self, settings: Settings) -> None:
        connection = connection_of(settings)
        partitions = topics.Partitions(settings.partitions.by_app, settings.partitions.by_integration)
        self._apps = Apps()
        self._schemas = Follower(connection, topics.SCHEMAS, schema_topic.learn)
        self._follower = Follower(connection, topics.APP_CONFIG, self._apps.apply, clear=self._log_replaced)
        self._log = EventLog(connection, partitions, replication=settings.replication)
        self._events = Events(self._apps, self._follower, self._log)
        self._liveness = Liveness(
            "ingest",
            self._log,
            (self._schemas, self._follower),
            lambda: broker_answers(connection),
            waiting=("an event waits for the log", lambda: self._log.oldest),
        )
        self.http = application(lambda: self._liveness.stuck, self.trouble, service="ingest")
        self._events.add_to(self.http)
        #: Ends only when this process can never take events.
        self.work: asyncio.Future[None] = asyncio.ensure_future(self._run())
        self.served: Served

    def trouble(self) -> str | None:
        """Why no event can be taken now; None when all is well."""
        if not self._log.opened.is_set():
            return self._log.trouble
        if not self._events.knows_apps:
            return "the apps and their keys have not been read yet"
        if not self._follower.is_live:
            return "the apps and their keys cannot be followed: the broker does not answer"
        return self._log.trouble

    def gauges(self) -> list[Sample]:
        """What Prometheus is told when it asks."""
        return [metrics.UNACKNOWLEDGED.of(self._log.unacknowledged_bytes)]

    async def _run(self) -> None:
        telling = tell_readiness(self.trouble, ready="ingest.ready", not_ready="ingest.not_ready")
        work = (self._log.keep_open(), self._follow(), self._liveness.watch(), telling)
        tasks = [asyncio.ensure_future(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        except topics.TopicMismatch as mismatch:
            raise StartupError(str(mismatch)) from mismatch
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        await self._log.opened.wait()
        await self._schemas.start()
        await self._follower.start()
        self._events.knows_apps = True

    def _log_replaced(self) -> None:
        """Nothing that is known of the log before it counts: neither the apps nor what was accepted."""
        self._apps.clear()
        self._events.forget()

    async def stop(self) -> None:
        """Finish the requests in flight, then close."""
        await self.served.stop()
        self.work.cancel()
        with suppress(asyncio.CancelledError, StartupError):
            await self.work
        await self._follower.stop()
        await self._schemas.stop()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Ingest]:
    """An ingest service that listens; it may not be ready yet."""
    ingest = Ingest(settings)
    try:
        ingest.served = await serve(ingest.http, settings.ingest.host, settings.ingest.port, drain_s=DRAIN_S)
    except StartupError:
        ingest.work.cancel()
        raise
    log.info("ingest.listening", url=ingest.served.url)
    try:
        with metrics.answering(ingest.gauges):
            yield ingest
    finally:
        await ingest.stop()
