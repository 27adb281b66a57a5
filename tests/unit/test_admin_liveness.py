"""An admin process that stands still is not live; one whose broker is away is. The clock comes in."""

import asyncio
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from services.admin.app import Admin
from streams import topics
from streams.connection import Connection
from streams.engine.progress import LOOK_S, STUCK_S
from streams.follower import Follower
from tests.admins import admin_settings

LOOKS = int(STUCK_S / LOOK_S)


class Looked:
    """An admin process that waits for its broker, and what is seen of it, a look each `LOOK_S`."""

    def __init__(self, admin):
        self.admin, self.is_there, self.now_s = admin, True, 1_000.0
        admin._watching.cancel()
        admin._liveness._broker_answers = self._answers

    async def _answers(self):
        return self.is_there

    async def look(self, times=LOOKS + 1):
        for _ in range(times):
            self.now_s += LOOK_S
            await self.admin._liveness.look(self.now_s)
        return self.admin._not_live()


@pytest.fixture
async def looked():
    admin = Admin(admin_settings(Connection("127.0.0.1:1", "t.")))
    yield Looked(admin)
    await admin.close()


def has_opened(admin):
    """As when it has read all there was, and has joined the group."""
    admin.opened.cancel()
    admin.opened = asyncio.get_running_loop().create_future()
    admin.opened.set_result(None)


async def test_a_start_that_gets_no_further_makes_it_not_live_until_it_does(looked):
    with capture_logs() as said:
        assert await looked.look(LOOKS) is None
        told = "no progress: the configuration is not opened, though the broker answers for 120 s"
        assert await looked.look(1) == told
        looked.admin.config.followers[-1].position += 1
        assert await looked.look(LOOKS) is None
        looked.admin.config.tries += 1
        assert await looked.look(LOOKS) is None
    assert [line["event"] for line in said if line["event"].startswith("admin.")] == ["admin.stuck", "admin.moves"]


@pytest.mark.parametrize("has_started", [True, False], ids=["read once", "being read"])
async def test_what_has_been_read_once_and_goes_on_is_no_progress_of_a_start(looked, monkeypatch, has_started):
    """States are published each second, and long topics are read for minutes."""
    monkeypatch.setattr(Follower, "is_live", property(lambda _: True))
    follower = looked.admin.config.followers[-1]
    follower.has_started = has_started
    for _ in range(2 * LOOKS):
        follower.position += 1
        told = await looked.look(1)
    assert (told is None) != has_started
    assert told is None or told.startswith("no progress: the configuration is not opened, though the broker answers")


async def test_what_it_does_not_read_though_the_broker_has_it_makes_it_not_live(looked, monkeypatch):
    admin = looked.admin
    has_opened(admin)
    followers = {each.topic: each for each in (*admin.config.followers, admin.changes.replies)}

    async def end():
        return 9

    async def away():
        raise TimeoutError

    for each in followers.values():
        monkeypatch.setattr(each, "end", away)
    for topic in (topics.INTEGRATION_CONFIG, topics.COMMAND_REPLIES):
        monkeypatch.setattr(followers[topic], "end", end)
    assert await looked.look() == (
        "no progress: integration-config is not read, though the broker has it for 120 s; "
        "command-replies is not read, though the broker has it for 120 s"
    )


@pytest.mark.parametrize("reason", [None, "t.commands 0 ended before what was read of it"])
async def test_commands_that_are_lost_make_it_not_ready(looked, monkeypatch, reason):
    admin = looked.admin
    has_opened(admin)
    monkeypatch.setattr(type(admin.config), "trouble", None)
    monkeypatch.setattr(type(admin.history), "holds_up", None)
    admin._owning = SimpleNamespace(shortened=reason, stuck=None, should_stop=False)
    assert (admin._not_live(), admin.not_ready()) == (None, reason)


async def test_one_whom_the_group_forgets_for_good_is_not_live(looked, monkeypatch):
    admin = looked.admin
    monkeypatch.setattr(Follower, "is_live", property(lambda _: True))
    has_opened(admin)
    admin._owning = owning = SimpleNamespace(is_confirmed=True, rebalances=1, stuck=None, should_stop=False)
    assert await looked.look() is None
    owning.is_confirmed = False
    assert await looked.look(LOOKS) is None
    assert await looked.look(1) == "no progress: the group is not joined, though the broker answers for 120 s"
    owning.rebalances += 1
    assert await looked.look(LOOKS) is None
    looked.is_there = False
    assert await looked.look() is None


async def test_a_broker_that_is_away_leaves_it_live(looked):
    looked.is_there = False
    assert await looked.look(10 * LOOKS) is None
    looked.is_there = True
    assert await looked.look(LOOKS) is None, "its time begins when the broker is back"
