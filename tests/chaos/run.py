"""One run: services as processes on Apache Kafka, load, faults, quiescence, and then the claims."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.cli.brokers.kafka import KafkaBroker
from services.cli.reconcile.proof import Span
from services.cli.reconcile.reading import Reconciliation
from streams import codec, topics
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import IntegrationConfig
from streams.topics import Partitions
from tests.apps import make_app
from tests.chaos.bounds import NO_BOUNDS, Bounds
from tests.chaos.destinations import KILLS, MIXED, RECOVERY, Destination
from tests.chaos.ends import Receiver, Sender, receiving
from tests.chaos.fleet import Access, Fleet, anybody
from tests.chaos.following import Following
from tests.chaos.observed import Observed
from tests.chaos.pausing import Pausing, token
from tests.chaos.releases import THIS, Release
from tests.chaos.schedule import CALM_S, Fault, Plan, schedule
from tests.records import make_integration

#: More than workers, so that each has several.
PARTITIONS: Final = Partitions(by_app=2, by_integration=6)

#: All retries that are due have come, and nothing new has happened, for so long.
QUIET_S: Final = 4.0
#: How long that may take after the last fault; at least half as long as the faults: they leave a backlog.
QUIESCENCE_S: Final = 180.0
#: How long reading the log of half an hour to its end may take.
_CONCLUDED_S: Final = 600.0
#: How long all processes are of one release before they are replaced again: admin writes configuration each 2 s, and is
#: the last that becomes newer and the first that becomes older.
_WHOLE_S: Final = 12.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is run."""

    destinations: tuple[Destination, ...]
    plan: Plan
    per_second: float
    #: What is done, in place of what is drawn by the plan.
    script: tuple[Fault, ...] = ()
    #: Whether each waits until all are ready again after the one before, as whoever updates does.
    is_patient: bool = False
    bounds: Bounds = NO_BOUNDS

    @property
    def steady(self) -> tuple[str, ...]:
        """The integrations that get requests all the time while all is well."""
        return tuple(each.name for each in self.destinations if each.is_common)


def mixed(load_s: float, nodes: int = 1, per_second: float = 30.0) -> Scenario:
    """Every fault there is, on every kind of endpoint: one each 3 s or so."""
    count = max(1, round(load_s / 45))
    counts: dict[Any, int] = {
        ("kill", "dispatcher"): 3 * count,
        ("stop", "dispatcher"): 2 * count,
        ("freeze", "dispatcher"): 2 * count,
        ("join", "dispatcher"): count,
        ("kill", "breaker"): count,
        ("stop", "breaker"): count,
        ("freeze", "breaker"): count,
        ("kill", "ingest"): count,
        ("stop", "ingest"): count,
        ("kill", "admin"): count,
        ("stop", "admin"): count,
        ("node", "node"): count,
    }
    if nodes > 1:
        counts = {
            ("node", "node"): nodes * count,
            ("kill", "dispatcher"): count,
            ("stop", "dispatcher"): count,
            ("freeze", "dispatcher"): count,
            ("join", "dispatcher"): count,
            ("kill", "ingest"): count,
            ("kill", "breaker"): count,
        }
    plan = Plan(load_s, counts, workers=3 if nodes == 1 else 2, nodes=nodes)
    return Scenario(MIXED, plan, per_second, bounds=_some_judged(load_s, per_second))


def each_once(load_s: float) -> Scenario:
    """Every fault there is on whatever it is made on, once; for a run of a minute or so."""
    counts = dict.fromkeys(mixed(load_s).plan.counts, 1)
    return Scenario(MIXED, Plan(load_s, counts, workers=3, nodes=1), 30.0, bounds=_some_judged(load_s, 30.0))


def _some_judged(load_s: float, per_second: float) -> Bounds:
    """Of what fails in the calm at the end, 1.3 retries in 3 s for each event a second, most; of the rest, nothing."""
    return Bounds(least_judged=round(per_second), least_pauses=_pauses(load_s), least_tripped=1)


def _pauses(load_s: float) -> int:
    """A third of what there are in half an hour of faults: one each 5.7 s."""
    return int(load_s // 17)


def kills() -> Scenario:
    """Twenty kills of dispatchers under 150 events a second, three workers, one slow key."""
    counts: dict[Any, int] = {("kill", "dispatcher"): 12, ("stop", "dispatcher"): 4, ("freeze", "dispatcher"): 4}
    return Scenario(KILLS, Plan(170.0, counts, workers=3, nodes=1), 150.0)


def recovery() -> Scenario:
    """Kills and graceful stops, one at a time, with one endpoint that never answers."""
    counts: dict[Any, int] = {("kill", "dispatcher"): 5, ("stop", "dispatcher"): 5}
    plan = Plan(170.0, counts, workers=2, nodes=1, spread=0.1)
    return Scenario(RECOVERY, plan, 40.0, bounds=Bounds(silent_s={"kill": 10.0, "stop": 3.0}))


def scale() -> Scenario:
    """Processes of every service join under load, and those that were there first leave: 1, 3 and 1 dispatchers."""
    joins = ("dispatcher", "ingest", "breaker", "admin", "dispatcher")
    leaves = ("dispatcher-1", "ingest", "breaker", "admin", "dispatcher-2")
    steps = [*(("join", target) for target in joins), *(("leave", target) for target in leaves)]
    return _scripted(5.0, [steps], workers=1, is_patient=True)


def upgrade(times: int = 3, every_s: float = 5.0, *, is_patient: bool = True) -> Scenario:
    """
    Every process is replaced under load, one after another, by the newer release, by the older one again, and so on.

    In the order that docs/operating.md asks for: admin last, and first on the way back.

    Args:
        is_patient: see `Scenario`; else one may still start when the next is stopped.
    """
    others = ("dispatcher-1", "dispatcher-2", "breaker", "ingest")
    update = [("update", target) for target in (*others, "admin")]
    back = [("back", target) for target in ("admin", *others)]
    turns = [back if number % 2 else update for number in range(times)]
    return _scripted(every_s, turns, workers=2, is_patient=is_patient)


def _scripted(every_s: float, turns: list[list[tuple[Any, str]]], *, workers: int, is_patient: bool) -> Scenario:
    """One step after another, on every kind of endpoint; `_WHOLE_S` between turns."""
    script, at_s = [], CALM_S
    for turn in turns:
        for kind, target in turn:
            script.append(Fault(at_s, kind, target))
            at_s += every_s
        at_s += _WHOLE_S
    plan = Plan(at_s - _WHOLE_S + CALM_S, {}, workers=workers, nodes=1)
    bounds = Bounds(least_pauses=_pauses(plan.load_s), least_tripped=1)
    return Scenario(MIXED, plan, 30.0, tuple(script), is_patient, bounds)


class Run:
    """One scenario with one seed."""

    def __init__(
        self,
        broker: KafkaBroker,
        connection: Connection,
        folder: Path,
        scenario: Scenario,
        seed: int,
        say: Say,
        *,
        access: Access = anybody,
        older: Release = THIS,
        newer: Release = THIS,
    ) -> None:
        """
        Args:
            access, older, newer: the fleet's.
        """
        self._connection = connection
        self._scenario = scenario
        self._seed = seed
        self._say = say
        self.faults = scenario.script or schedule(seed, scenario.plan)
        self.destinations = {each.name: each for each in scenario.destinations}
        self.seen = Observed(self.destinations)
        self._fleet = Fleet(
            broker, connection, PARTITIONS, folder, scenario.plan.workers, say, access=access, older=older, newer=newer
        )
        self._configs: dict[str, IntegrationConfig] = {}

    async def run(self) -> Observed:
        """What was recorded of it."""
        self._say(f"seed {self._seed}: {self._scenario.plan.load_s:.0f} s of {self._scenario.per_second:g} events/s")
        async with receiving(self.destinations, self._seed) as receiver:
            await self._furnish(receiver)
            following = Following(self._connection, PARTITIONS, self._configs, self.seen)
            reading = asyncio.create_task(following.run(), name="follow the log")
            try:
                await self._fleet.start()
                await self._work(receiver, following, reading)
            finally:
                await self._fleet.end()
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            self.seen.requests = receiver.requests
        return self.seen

    async def _furnish(self, receiver: Receiver) -> None:
        """Topics, the app, the integrations."""
        await topics.ensure(self._connection, PARTITIONS)
        app = make_app(tokens=[token()], max_active=100)
        self._configs = {
            each.name: make_integration(
                each.name, url=f"{receiver.endpoint.url}/{each.name}", events=list(each.types), **each.config
            )
            for each in self.destinations.values()
        }
        producer = await open_producer(self._connection, client_id="chaos")
        try:
            topic = self._connection.topic(topics.APP_CONFIG)
            await producer.send_and_wait(topic, codec.encode(app), key=app.app.encode())
            for config in self._configs.values():
                topic = self._connection.topic(topics.INTEGRATION_CONFIG)
                await producer.send_and_wait(topic, codec.encode(config), key=config.id.encode())
        finally:
            await producer.stop()

    async def _work(self, receiver: Receiver, following: Following, reading: "asyncio.Task[None]") -> None:
        sender = Sender(lambda: self._fleet.urls("ingest"), self._seed, self._scenario.per_second)
        pausing = Pausing(lambda: self._fleet.urls("admin"))
        at_times = [each.name for each in self.destinations.values() if each.is_paused_at_times]
        operating = asyncio.create_task(pausing.run(at_times), name="pause and activate")
        leaving = asyncio.create_task(self._leave_paused(pausing), name="pause for good")
        sending = asyncio.create_task(sender.run(), name="send events")
        try:
            await self._make_faults(sender, receiver)
            await self._fleet.settled()
            await leaving
            if self._scenario.bounds.least_judged:
                await asyncio.sleep(CALM_S)
            sender.stop()
            await asyncio.wait_for(sending, QUIESCENCE_S)
            if operating.done():
                operating.result()  # whoever pauses has failed, unless there is nobody to pause
        finally:
            for task in (operating, leaving, sending):
                task.cancel()
            await asyncio.gather(operating, leaving, sending, return_exceptions=True)
        assert not reading.done(), reading.exception()
        self.seen.sent = sender.sent
        receiver.is_healed = True
        await pausing.activate([*at_times, *(each.name for each in self.destinations.values() if each.heals)])
        await self._fleet.settled()
        await self._quiet(receiver, following)
        self.seen.changed, self.seen.faults = pausing.changed, self._fleet.happened
        await self._conclude(following)

    async def _leave_paused(self, pausing: Pausing) -> None:
        """In the middle of the load, so that what is held goes through half of the faults."""
        await asyncio.sleep(self._scenario.plan.load_s / 2)
        await pausing.pause([each.name for each in self.destinations.values() if each.is_left_paused])

    async def _make_faults(self, sender: Sender, receiver: Receiver) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        rest = Fault(self._scenario.plan.load_s, "stop", "nothing")
        for fault in (*self.faults, rest):
            if self._scenario.is_patient:
                await self._fleet.settled()
            await asyncio.sleep(began_s + fault.at_s - loop.time())
            if fault is not rest:
                self._say(f"{fault}   [{len(sender.sent)} events acknowledged, {receiver.count} requests]")
                self._fleet.begin(fault)

    async def _quiet(self, receiver: Receiver, following: Following) -> None:
        """Returns when nothing is under way, has come or has ended for a while."""
        within_s = max(QUIESCENCE_S, self._scenario.plan.load_s / 2)
        until_s = asyncio.get_running_loop().time() + within_s
        before, since_s = (-1, -1), 0.0
        while True:
            now_s = asyncio.get_running_loop().time()
            state = receiver.count, len(self.seen.results)
            if state != before or receiver.open:
                before, since_s = state, now_s
            elif now_s - since_s > QUIET_S and await following.is_at_the_end():
                return
            if now_s > until_s:
                self._say(f"no quiescence within {within_s:.0f} s")
                return
            await asyncio.sleep(0.2)

    async def _conclude(self, following: Following) -> None:
        """The log's last words."""
        async with asyncio.timeout(_CONCLUDED_S):
            self.seen.reconciled = await Reconciliation(self._connection, Span(), lambda *_: None).run()
            while not await following.is_at_the_end():  # noqa: ASYNC110  # what is read tells nobody
                await asyncio.sleep(0.1)
        following.conclude()


def drawn_seed() -> int:
    """One to print."""
    return random.SystemRandom().randrange(1, 1_000_000)
