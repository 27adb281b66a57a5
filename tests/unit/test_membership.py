"""A name in the group: nobody joins under it before its predecessor has left, and who stops leaves."""

from types import SimpleNamespace

import pytest
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    NotCoordinatorForGroupError,
    RequestTimedOutError,
    UnknownMemberIdError,
)

from streams.engine import membership
from streams.engine.membership import join_under


class Coordinator:
    """As much of aiokafka's as is used."""

    group_id = "tenterhook.dispatcher"

    def __init__(self, *answers):
        self.member_id, self.generation = "", -1
        self.answers = list(answers)
        self.happened = []

    async def _send_req(self, request):
        sent = request.build(membership._RequestStruct)
        self.happened.append(("left", *sent.members[0]))
        answer = self.answers.pop(0)
        if isinstance(answer, type):
            raise answer
        return SimpleNamespace(error_code=answer[0], members=[("", "dispatcher-0", answer[1])])

    async def _do_rejoin_group(self, subscription):
        self.happened.append("joined")
        self.member_id, self.generation = "member-1", 7
        return True

    async def _maybe_leave_group(self):
        raise AssertionError("aiokafka's own does not leave under a name")

    def reset_generation(self):
        self.member_id, self.generation = "", -1

    def coordinator_dead(self):
        self.happened.append("looked for the coordinator")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(membership, "_PAUSE_S", 0)


OK, UNKNOWN = (0, 0), (0, UnknownMemberIdError.errno)
IN_ITS_NAME = ("left", "", "dispatcher-0")


async def test_a_predecessor_leaves_before_its_successor_joins_and_rejoining_is_no_leaving():
    coordinator = Coordinator(OK)
    join_under("dispatcher-0", coordinator)

    assert await coordinator._do_rejoin_group(None)
    assert await coordinator._do_rejoin_group(None)
    assert coordinator.happened == [IN_ITS_NAME, "joined", "joined"]


async def test_who_was_thrown_out_leaves_before_it_joins_again():
    coordinator = Coordinator(UNKNOWN, OK)
    join_under("dispatcher-0", coordinator)
    await coordinator._do_rejoin_group(None)
    coordinator.reset_generation()
    await coordinator._do_rejoin_group(None)

    assert coordinator.happened == [IN_ITS_NAME, "joined", IN_ITS_NAME, "joined"]


@pytest.mark.parametrize(
    "failure",
    [
        (NotCoordinatorForGroupError.errno, 0),
        (0, NotCoordinatorForGroupError.errno),
        GroupCoordinatorNotAvailableError,
        RequestTimedOutError,
    ],
)
async def test_nobody_joins_while_it_is_not_known_that_the_predecessor_has_left(failure):
    coordinator = Coordinator(failure, OK)
    join_under("dispatcher-0", coordinator)
    first = await coordinator._do_rejoin_group(None)

    assert not first
    assert "joined" not in coordinator.happened
    assert await coordinator._do_rejoin_group(None)


async def test_who_stops_leaves_under_its_own_id_and_only_as_a_member():
    coordinator = Coordinator(OK, OK)
    join_under("dispatcher-0", coordinator)
    await coordinator._maybe_leave_group()
    assert coordinator.happened == []

    await coordinator._do_rejoin_group(None)
    await coordinator._maybe_leave_group()
    assert coordinator.happened[-1] == ("left", "member-1", "dispatcher-0")
    assert (coordinator.member_id, coordinator.generation) == ("", -1)
