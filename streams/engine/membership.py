"""
A name in the consumer group that outlives its process: Kafka's static membership, used so that fences hold.

What a worker writes carries the group's generation, and readers set aside what a lower one wrote behind a higher one's
marker (`streams.takeover`). Kafka gives a process that joins under a name the generation, and the partitions, of the
one that had it: two owners of one generation, and no fence between them. So whoever joins anew leaves first, in the
name of its predecessor. It costs one rebalance, and what is won stays: a worker that died and is started again does not
wait for its predecessor's session to end, nor do its partitions.

aiokafka does not leave a group under a name: a worker that is scaled in would keep its partitions for a session. Here
it leaves at once, as others do.
"""

import asyncio
from typing import Any, Final

import structlog
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError, NoError, UnknownMemberIdError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int16, Int32, Schema, String

log = structlog.get_logger("streams.membership")

#: A coordinator that moves answers within as much.
_PAUSE_S: Final = 0.5


class _Response(Response):  # type: ignore[misc]
    API_KEY = 13
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "members",
            Array(("member_id", String("utf-8")), ("group_instance_id", String("utf-8")), ("error_code", Int16)),
        ),
    )


class _RequestStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 13
    API_VERSION = 3
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("members", Array(("member_id", String("utf-8")), ("group_instance_id", String("utf-8")))),
    )


class _Leave(Request[_RequestStruct]):  # type: ignore[misc]
    """aiokafka's own has the older versions, without a name."""

    API_KEY = 13

    def __init__(self, group: str, member_id: str, name: str) -> None:
        self._group, self._member = group, (member_id, name)

    def build(self, request_struct_class: type[_RequestStruct]) -> _RequestStruct:
        return request_struct_class(self._group, [self._member])


def join_under(name: str, coordinator: GroupCoordinator) -> None:
    """Have this coordinator, which has not joined yet and was made with the name, join and leave as described above."""
    join = coordinator._do_rejoin_group

    async def leave_and_join(subscription: Any) -> bool:
        if not coordinator.member_id and not await _left(coordinator, "", name):
            await asyncio.sleep(_PAUSE_S)
            return False  # and asked again, when the coordinator is known
        return bool(await join(subscription))

    async def leave() -> None:
        if coordinator.generation > 0:
            await _left(coordinator, coordinator.member_id, name)
        coordinator.reset_generation()

    coordinator._do_rejoin_group = leave_and_join
    coordinator._maybe_leave_group = leave


async def _left(coordinator: GroupCoordinator, member_id: str, name: str) -> bool:
    """Whether nobody has the name in the group any more. An empty *member_id* is whoever has it."""
    try:
        answer = await coordinator._send_req(_Leave(coordinator.group_id, member_id, name))
    except KafkaError as error:
        log.warning("group.not_left", instance_id=name, reason=repr(error))
        return False
    found = [for_code(answer.error_code), *(for_code(code) for _, _, code in answer.members)]
    refused = [error.__name__ for error in found if error not in (NoError, UnknownMemberIdError)]
    if refused:
        log.warning("group.not_left", instance_id=name, reason=", ".join(refused))
        coordinator.coordinator_dead()  # where it has moved; asked for anew, it costs little
        return False
    if not member_id and UnknownMemberIdError not in found:
        log.info("group.left_for_predecessor", instance_id=name)
    return True
