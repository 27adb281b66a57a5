"""Loops that try again for as long as something fails: ten failures are one line, and that it works again is one."""

import asyncio
from contextlib import suppress
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError, NotLeaderForPartitionError
from faust.types import TP
from structlog.testing import capture_logs

from services.admin.config_log import ConfigLog
from services.dispatcher import attempt, catch_up, retries
from services.dispatcher.attempt import Attempts
from services.dispatcher.catch_up import CatchUp
from services.dispatcher.pacing import Pacing
from services.dispatcher.retries import DeliveryEnds
from services.dispatcher.sender import Answer, NoResources
from services.dispatcher.together import Together
from services.runtime.problems import Problem
from streams import features, quarantine
from streams.connection import Connection
from streams.engine import app, consumer
from streams.engine.consumer import LedgerConsumer, Turn
from streams.engine.spacing import Spacing
from streams.features import APACHE_KAFKA
from streams.ledger import Ledger
from streams.quarantine import Quarantine
from streams.states import States
from streams.topics import Partitions
from streams.trouble import Trouble
from streams.views import Apps, Integrations
from tests.dispatching import KEYRING
from tests.waiting import eventually

A = TP("deliveries", 0)
FAILURES = 10


class Failing:
    """Raises so often, numbering what it raises, then answers."""

    def __init__(self, error=KafkaConnectionError, answer=None):
        self.times, self._error, self._answer = 0, error, answer

    async def __call__(self, *_args, **_named):
        await asyncio.sleep(0)
        self.times += 1
        if self.times <= FAILURES:
            raise self._error(f"node {self.times} is away")
        return self._answer


@pytest.fixture
def said():
    """What is said, without debug: event, level, and whether it has a traceback."""
    with capture_logs() as lines:
        yield lambda: [
            (each["event"], each["log_level"], "exc_info" in each) for each in lines if each["log_level"] != "debug"
        ]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setitem(features._known, "fake", APACHE_KAFKA)
    for module, name in (
        (attempt, "NO_RESOURCES_RETRY_S"),
        (retries, "ENDS_REFRESH_S"),
        (catch_up, "_RETRY_S"),
        (quarantine, "_PAUSE_S"),
        (app, "ASIDE_RETRY_S"),
        (consumer, "TAKEOVER_RETRY_S"),
    ):
        monkeypatch.setattr(module, name, 0)


def told(event, *, traceback=False):
    return [(event, "error" if traceback else "warning", traceback), ("trouble.over", "warning", False)]


class Consuming(LedgerConsumer):
    """The consumer without Faust and without a broker; what it asks aiokafka for fails at first."""

    def __init__(self):
        self.app = SimpleNamespace(consumer_generation_id=1)
        self._ledgers, self._live, self._suspects, self._unknown = {A: Ledger(7)}, {A}, set(), set()
        self._standing, self._stored, self._processors, self.shortened, self._steps = {}, {}, {}, {}, {}
        self._has_settled, self.flow_active, self._committing = False, True, asyncio.Lock()
        self._fetching, self._commits, self._taking_over = Trouble(consumer.log), Trouble(consumer.log), {}
        self._kafka = SimpleNamespace(_coordinator=SimpleNamespace(generation=1))
        self._take_over = Failing()
        self._getmany, self._spacing = Failing(answer={}), Spacing()

    should_stop = is_ready = is_confirmed = False

    async def sleep(self, _seconds):
        await asyncio.sleep(0)

    def _fetchable(self):
        return {A}, False


async def test_fetches_that_fail(said):
    consuming = Consuming()
    fetching = asyncio.create_task(consuming._fetch_and_hand_over(SimpleNamespace(should_stop=False)))
    await eventually(lambda: consuming._getmany.times > FAILURES + 3)
    fetching.cancel()
    await asyncio.gather(fetching, return_exceptions=True)
    assert said() == told("fetch.failed", traceback=True)


async def test_takeovers_that_fail_in_one_generation_after_the_other(said):
    consuming = Consuming()
    failing, group = consuming._take_over, consuming._kafka._coordinator

    async def take_over(*_):
        if failing.times in {3, 6}:
            group.generation += 1
        await failing()

    consuming._take_over = take_over
    while failing.times <= FAILURES:
        now = group.generation
        turn = Turn(now, lambda now=now: group.generation != now)
        await consuming._take_over_until_done("deliveries", [A], turn, set())
    assert group.generation == 3
    assert said() == told("takeover.failed", traceback=True)


async def test_commits_that_are_refused(said):
    consuming = Consuming()
    consuming._kafka.commit = Failing(CommitFailedError)
    while not await consuming._commit({A: 0}):
        pass
    assert await consuming._commit({A: 0})
    assert said() == told("commit.refused")


@pytest.mark.parametrize("in_flight", [1, 5])
async def test_requests_for_which_there_is_no_socket(said, in_flight):
    send = Failing(NoResources, Answer(status=200))
    attempts = Attempts(
        config=None, integrations=Integrations(), apps=Apps(), states=States(), keyring=KEYRING,
        sender=SimpleNamespace(send=send), brand="X", version="0", now_ms=lambda: 0, together=Together(Pacing()),
    )  # fmt: skip
    planned = SimpleNamespace(url="https://a.example", headers=(), body=b"", timeout_ms=1_000)

    async def until_sent():
        while True:  # as who makes the attempt looks again at all that speaks against it
            with suppress(NoResources):
                return await attempts._send(planned, lambda: True)

    answers = await asyncio.gather(*(until_sent() for _ in range(in_flight)))
    assert [each.status for each in answers] == [200] * in_flight
    assert said() == told("sender.out_of_resources")


async def test_records_that_cannot_be_put_aside(said):
    record = SimpleNamespace(topic="deliveries", partition=0, offset=7, key=b"", value=b"", headers=())
    putting = Quarantine(
        SimpleNamespace(send_and_wait=Failing(NotLeaderForPartitionError)), Connection("fake"), "lanes", lambda: 0
    )
    lines = app._Lines(SimpleNamespace(), "lanes", Failing())
    await putting.put(record, "record.unreadable", "no Avro")
    await lines._set_aside(SimpleNamespace(finish=lambda _: None), record, ValueError())
    assert said() == [
        *told("quarantine.retried"),
        ("record.quarantined", "error", False),
        *told("quarantine.failed", traceback=True),
    ]


async def test_records_that_cannot_be_read_again(said, monkeypatch):
    there = SimpleNamespace(offset=5, key=b"int_1")
    reader = SimpleNamespace(
        _client=SimpleNamespace(_conns={}), start=Failing(), stop=Failing(), seek=lambda *_: None,
        assign=lambda _: None, assignment=set, pause=lambda *_: None, resume=lambda *_: None,
        getmany=Failing(answer={TopicPartition("deliveries", 0): [there]}),
    )  # fmt: skip
    reader.stop.times = reader.getmany.times = FAILURES
    monkeypatch.setattr(catch_up, "AIOKafkaConsumer", lambda **_: reader)
    reading = CatchUp(Connection("fake"), "deliveries", SimpleNamespace(detached={0: {}}, live=lambda _: 9), Pacing())
    reading.start()
    assert await reading.fetch(0, 5) is there
    await eventually(lambda: len(said()) == 2)
    await reading.stop()
    assert said() == told("catch_up.interrupted")


async def test_ends_that_are_not_told(said):
    ask = Failing(answer={})
    ends = DeliveryEnds(Connection("fake"), Partitions(), ask)
    ends.use("reader")
    await eventually(lambda: ask.times > FAILURES + 3)
    ends.leave("reader")
    assert said() == told("ends.unknown")


async def test_requests_that_do_not_meet_the_configuration(said, monkeypatch):
    log = ConfigLog(Connection("fake"))
    log._is_read = True
    zero = {TopicPartition(each.partition.topic, 0): 0 for each in log._followers}
    monkeypatch.setattr(log._ends, "ask", ask := Failing(answer=zero))
    for _ in range(FAILURES):
        with pytest.raises(Problem, match="The broker does not answer"):
            await log.catch_up()
    await log.catch_up()
    await log.catch_up()
    assert ask.times == FAILURES + 2
    assert said() == told("config.not_met")
