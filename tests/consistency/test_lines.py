"""
Lines that wait on the log: paused, behind, blocked; and requests that outlive their partition's owner.

The model is that of `test_takeover.py`, on real brokers, one case each; `tests/properties/test_line_model.py` draws
schedules of them. Time is the test's where a case is about hours.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.admin.compose import activated
from services.admin.rules import SKIP
from services.dispatcher import detaching
from services.dispatcher.detaching import SAVE_FEW_S
from services.dispatcher.lane import Pace
from services.dispatcher.line import ATTACHED_RECORDS
from services.dispatcher.pacing import AMIDST_S
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.engine.app import Bounds
from streams.lane_rows import LaneRows
from streams.reading import started
from streams.records import Delivery, LaneRow
from streams.topics import Topic
from tests.dispatching import SLOW
from tests.handing import Configured, Courier, Group, Owner, group_of, until
from tests.logs import Log, log_of, make_event
from tests.records import make_delivery, make_integration
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

ONE = topics.Partitions(by_app=1, by_integration=1)

#: Source: contract, rebalances. Everything but the slow one goes on within that.
OTHERS_GO_ON_S = 3.0
HOUR_MS = 3_600_000


def failed(due_at_ms: int, attempt: int = 2, slot: int | None = None) -> dict[str, Any]:
    return {"outcome": None, "next_attempt": attempt, "next_due_at_ms": due_at_ms, "next_slot": slot}


async def records_of(group: Group, topic: Topic, number: int = 0) -> list[Any]:
    partition = next(each for each in _partitions(group, topic) if each.partition == number)
    return await group.read(partition, 0, await group.end(partition))


def _partitions(group: Group, topic: Topic) -> list[Any]:
    count = topics.partition_count(topic, ONE)
    return [TopicPartition(group.log.connection.topic(topic), number) for number in range(count)]


async def rows_of(group: Group) -> list[LaneRow]:
    """The rows that count."""
    rows = LaneRows()
    for record in await records_of(group, topics.LANE_ROWS):
        rows.apply(0, record.key, record.value, record.offset)
    return list(rows.all())


async def retries_of(group: Group) -> list[Delivery]:
    found = []
    for topic in topics.RETRIES:
        for each in _partitions(group, topic):
            found += [
                codec.decode_as(Delivery, record.value) for record in await group.read(each, 0, await group.end(each))
            ]
    return found


async def accept(owner: Owner, *names: str, **changes: Any) -> None:
    """Events of these names, handed to the lanes as their deliveries."""
    before = await _delivered_end(owner)
    await owner.log.events(*(make_event(event_id=name, **changes) for name in names))

    async def all_are_there() -> bool:
        await owner.hand_over_all(topics.EVENTS)
        return await _delivered_end(owner) >= before + len(names)

    await eventually(all_are_there)
    await owner.hand_over_all(topics.DELIVERIES)


async def _delivered_end(owner: Owner) -> int:
    return await owner.group.end(owner.partitions(topics.DELIVERIES)[0])


def sent(courier: Courier) -> list[str]:
    return [each.event_id for each in courier.sent]


async def everything_is_done(owner: Owner) -> None:
    """Every delivery has ended, and no line waits."""
    await until(lambda: not owner.unfinished(topics.DELIVERIES) and not owner.lanes._lines)


async def outcomes(log: Log) -> Counter[tuple[str, str]]:
    await eventually(log.is_read_to_the_end)
    return Counter((each.event_id, each.outcome) for each in log.results if each.outcome is not None)


async def test_a_retry_that_was_not_written_is_written_by_the_successor_without_another_attempt(
    kafka_connection: Connection,
):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        group.now_ms = time.time_ns() // 1_000_000
        due_at_ms = group.now_ms + 5_000
        courier = Courier(answers={"evt_0": failed(due_at_ms, slot=1)})
        first = await group.next_owner(courier)
        await log.events(make_event(event_id="evt_0"))
        await first.hand_over_all(topics.EVENTS)
        first.producers.of_retries.left = 0
        await first.hand_over_all(topics.DELIVERIES)
        await until(lambda: first.producers.of_retries.stands_still)
        first.commit()
        await first.die()

        # Paused meanwhile: nothing is sent, and what failed is not forgotten.
        courier.standings["int_1"] = "hold"
        for _ in range(2):
            second = await group.next_owner(courier)
            await second.work_through()
            second.commit()
            await second.die()
        courier.standings.clear()
        last = await group.next_owner(courier)
        await last.work_through()
        await everything_is_done(last)
        assert sent(courier) == ["evt_0"]
        # Written again by each that died before it was committed; the lanes drop the second.
        assert {(2, due_at_ms)} == {(each.attempt, each.due_at_ms) for each in await retries_of(group)}
        await last.die()


async def test_a_slow_request_is_handed_over_and_its_line_alone_waits_for_the_result(kafka_connection: Connection):
    """
    From the moment its partition is given up until a delivery of another line goes out elsewhere: 3 s.

    Without what the group itself takes to rebalance. 0.65 s on a machine three times as busy as it can be.
    """
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        for name in ("int_slow", "int_1"):
            await log.integration(make_integration(name, events=[name]))
        slow = asyncio.Event()
        old = Courier(hanging={"evt_slow": slow})
        first = await group.next_owner(old)
        await accept(first, "evt_slow", "evt_behind", type="int_slow")
        await until(lambda: old.waiting == 1)
        await log.events(make_event(event_id="evt_1", type="int_1"))
        await first.hand_over_all(topics.EVENTS)  # it waits on the log when the partition changes hands

        new = Courier()
        started_s = time.monotonic()
        await first.leave()
        left_s = time.monotonic()
        second = await group.next_owner(new)
        await second.hand_over_all(topics.DELIVERIES)
        await until(lambda: bool(new.sent))
        took_s = time.monotonic() - started_s
        print(f"given up in {left_s - started_s:.2f} s, others after {took_s:.2f} s")  # noqa: T201
        assert sent(new) == ["evt_1"]
        assert took_s < OTHERS_GO_ON_S
        slow.set()
        await everything_is_done(second)
        assert sent(old) == ["evt_slow"]
        assert sent(new) == ["evt_1", "evt_behind"]
        assert {(name, "delivered"): 1 for name in ("evt_slow", "evt_behind", "evt_1")} == await outcomes(log)
        await second.die()
        await first.lanes.finish_leaving(1)


@pytest.mark.parametrize("is_strict", [False, True])
async def test_a_request_whose_worker_died_after_handing_it_over_is_made_again_after_its_time(
    kafka_connection: Connection, is_strict: bool
):
    """Under `strict` it is the second attempt, whose place and due time stand in a row."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        pace = Pace("strict" if is_strict else "integration", 1)
        old = Courier(paces={"int_1": pace})
        first = await group.next_owner(old)
        if is_strict:
            old.at_first["evt_0"] = [failed(60_000)]
            await accept(first, "evt_0", "evt_1")
            await until(lambda: first.lanes.detached_lines == 1 and not first.lanes.in_flight)
            group.now_ms = 60_000
        old.hanging["evt_0"] = asyncio.Event()
        if is_strict:
            first.lanes.wake("int_1")
        else:
            await accept(first, "evt_0", "evt_1")
        await until(lambda: old.waiting == 1)
        await first.leave()

        new = Courier(paces={"int_1": pace})
        second = await group.next_owner(new)
        await second.hand_over_all(topics.DELIVERIES)
        await asyncio.sleep(0.3)
        assert sent(new) == []
        await second.leave()  # it does not know either: what it found, its successor has to find
        await first.die()
        await first.lanes.finish_leaving(0)

        group.now_ms += 30_000
        third = await group.next_owner(new)
        await third.hand_over_all(topics.DELIVERIES)
        await everything_is_done(third)
        attempts = [(each.event_id, each.attempt) for each in new.sent]
        assert attempts == [("evt_0", 2 if is_strict else 1), ("evt_1", 1)]
        await third.die()


async def test_a_strict_head_keeps_its_place_and_its_time_over_two_deaths(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        courier = Courier(ordering="strict", at_first={"evt_1": [failed(3_600_000)]})
        owner = await group.next_owner(courier)
        await accept(owner, "evt_0", "evt_1", "evt_2")
        for name in ("evt_3", "evt_4"):
            await until(lambda owner=owner: not owner.unfinished(topics.DELIVERIES))
            owner.commit()
            await owner.die()
            owner = await group.next_owner(courier)
            await accept(owner, name)
        assert sent(courier) == ["evt_0", "evt_1"]
        [row] = await rows_of(group)
        assert [(each.attempt, each.due_at_ms) for each in row.open] == [(2, 3_600_000)]

        group.now_ms = 3_599_999
        owner.lanes.wake("int_1")
        await asyncio.sleep(0.1)
        assert len(courier.sent) == 2
        group.now_ms = 3_600_000
        owner.lanes.wake("int_1")
        await everything_is_done(owner)
        assert sent(courier)[2:] == ["evt_1", "evt_2", "evt_3", "evt_4"]
        assert courier.sent[2].attempt == 2
        await eventually(lambda: rows_are_gone(group))
        await owner.die()


async def rows_are_gone(group: Group) -> bool:
    return not await rows_of(group)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=SLOW)])
async def test_what_was_held_is_skipped_and_what_comes_after_arrives_though_owners_die(
    kafka_connection: Connection, count: int
):
    """
    Whoever activates has a clock 200 ms behind that of ingest: by the time it shows, what was held came after it.

    And 200 ms before it what came after, for another ingest. Only what the activation was written behind counts.
    """
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        config = make_integration(status="paused")
        await log.integration(config)
        activated_ms = time.time_ns() // 1_000_000
        held, after = [f"held_{n}" for n in range(count)], [f"after_{n}" for n in range(20)]
        courier = Configured(group)
        owner = await group.next_owner(courier)
        for start in range(0, count, 500):
            await accept(owner, *held[start : start + 500], accepted_at_ms=activated_ms + 200)
        await until(lambda: not owner.unfinished(topics.DELIVERIES))

        async def all_is_counted() -> bool:
            return [(row.reason, row.held, row.open) for row in await rows_of(group)] == [("paused", count, [])]

        await eventually(all_is_counted)
        owner.commit()
        await owner.die()

        offset = await group.config.catch_up()
        active = activated(config, SKIP, offset=offset, now_ms=activated_ms, who="anna")
        assert offset == await log.integration(active)
        await group.config.catch_up()
        for dies_after in (count // 8, count // 3):
            owner = await group.next_owner(courier)
            owner.producers.of_results.left = dies_after
            await until(lambda owner=owner: owner.producers.of_results.stands_still, 60)
            owner.commit()
            await owner.die()
        owner = await group.next_owner(courier)
        await accept(owner, *after, accepted_at_ms=activated_ms - 200)
        await until(lambda: not owner.unfinished(topics.DELIVERIES) and not owner.lanes._lines, 120)
        ended = await outcomes(log)
        assert {(name, "discarded") for name in held} | {(name, "delivered") for name in after} == set(ended)
        assert {each.reason for each in log.results if each.outcome == "discarded"} == {"skipped"}
        assert sent(courier) == after
        # Two died, each with one in flight.
        assert sum(ended.values()) <= count + 20 + 2
        await owner.die()


async def test_what_a_row_counts_is_exact_though_owners_die_before_they_wrote_one(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        courier = Courier(hanging={"evt_0": asyncio.Event()})
        owner = await group.next_owner(courier)
        count = ATTACHED_RECORDS + 300
        await log.events(*(make_event(event_id=f"evt_{n}") for n in range(count)))
        for _ in range(2):
            await owner.hand_over_all(topics.EVENTS)
            await owner.hand_over_all(topics.DELIVERIES)
        await until(lambda: owner.lanes.detached_lines == 1 and owner.lanes._lines["int_1"].is_durable)
        for death in range(2):
            await accept(owner, *(f"evt_{death}_{n}" for n in range(20)))
            count += 20
            owner.commit()
            await owner.die()
            owner = await group.next_owner(courier)
        # The last one finds it paused, and nobody tells it so: a row says that, too.
        await owner.die()
        courier.standings["int_1"] = "hold"
        owner = await group.next_owner(courier)
        await owner.hand_over_all(topics.DELIVERIES)

        async def all_is_counted() -> bool:
            return [(row.reason, row.held + len(row.open)) for row in await rows_of(group)] == [("paused", count)]

        await eventually(all_is_counted)
        await owner.die()


async def test_a_retry_that_stands_twice_far_behind_is_sent_once_by_whatever_owner(
    kafka_connection: Connection, monkeypatch: pytest.MonkeyPatch
):
    """A line that is read again meets the second copy when nobody looks for results of the first any more."""
    for name, records in (("ATTACHED_RECORDS", 5), ("AHEAD_RECORDS", 6), ("LOW_RECORDS", 2)):
        monkeypatch.setattr(f"services.dispatcher.line.{name}", records)
    monkeypatch.setattr(detaching, "SAVE_FEW_S", 0.2)
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        first_hang, second_hang = asyncio.Event(), asyncio.Event()
        courier = Courier(hanging={"evt_0": first_hang, "evt_15": second_hang})
        owner = await group.next_owner(courier)
        deliveries = owner.partitions(topics.DELIVERIES)[0]
        # As its reader left it that died between appending it to the next line and committing.
        copy = make_delivery(event_id="copy", attempt=2, due_at_ms=1, source_generation=99)

        async def comes_back() -> int:
            there = await log.producer.send_and_wait(
                deliveries.topic, codec.encode(copy), key=copy.integration.encode(), partition=deliveries.partition
            )
            return int(there.offset)

        await accept(owner, "evt_0")
        first = await comes_back()
        await accept(owner, *(f"evt_{n}" for n in range(1, 30)))
        await comes_back()
        await owner.hand_over_all(topics.DELIVERIES)
        await until(lambda: owner.lanes.detached_lines == 1)
        first_hang.set()
        await until(lambda: courier.waiting == 1 and "copy" in sent(courier))
        await until(lambda: not owner.unfinished(topics.DELIVERIES))

        async def a_row_is_behind_the_first() -> bool:
            return [row.frontier > first for row in await rows_of(group)] == [True]

        await eventually(a_row_is_behind_the_first)
        owner.commit()
        await owner.die()

        async def nothing(*_: Any) -> dict[Any, int]:
            return {}

        monkeypatch.setattr(takeover, "since", nothing)  # all that is looked back for has long passed
        owner = await group.next_owner(courier)
        second_hang.set()
        await owner.hand_over_all(topics.DELIVERIES)
        await everything_is_done(owner)
        assert Counter(sent(courier))["copy"] == 1
        assert {f"evt_{n}" for n in range(30)} <= set(sent(courier))
        await owner.die()


async def test_one_that_waits_for_its_key_alone_does_not_hold_its_partition_back(
    kafka_connection: Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(detaching, "RUNS_S", 0.2)
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        for name in ("int_locked", "int_1"):
            await log.integration(make_integration(name, events=[name]))
        courier = Courier()
        monkeypatch.setattr(courier, "is_locked", lambda integration: integration == "int_locked")
        owner = await group.next_owner(courier)
        await accept(owner, "waits", type="int_locked")
        await accept(owner, "evt_1", type="int_1")
        await until(lambda: not owner.unfinished(topics.DELIVERIES))
        # On its way back to what comes, it is no other.
        await until(lambda: owner.lanes._lines["int_locked"].until is not None)
        await accept(owner, "waits_too", type="int_locked")
        await until(lambda: not owner.unfinished(topics.DELIVERIES))
        assert sent(courier) == ["evt_1"]
        monkeypatch.setattr(courier, "is_locked", lambda _: False)
        await everything_is_done(owner)
        assert set(sent(courier)) == {"evt_1", "waits", "waits_too"}
        await owner.die()


async def test_what_waits_for_a_row_leaves_others_the_room_of_their_partition(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        for name in ("int_slow", "int_1"):
            await log.integration(make_integration(name, events=[name]))
        courier = Courier(hanging={"slow_0": asyncio.Event()})
        owner = await group.next_owner(courier, bounds=Bounds(unfinished_records=100, unfinished_bytes=40_000))
        names = [f"slow_{n}" for n in range(ATTACHED_RECORDS + 10)]
        await log.events(*(make_event(event_id=name, type="int_slow") for name in names))
        for _ in range(2):
            await owner.hand_over_all(topics.EVENTS)
            await owner.hand_over_all(topics.DELIVERIES)
        await until(lambda: owner.lanes._lines["int_slow"].is_durable)
        for count, size in ((60, 10), (3, 10_000)):
            before = time.monotonic()
            payload = b'{"text":"%s"}' % (b"x" * size)
            await accept(owner, *(f"slow_{size}_{n}" for n in range(count)), type="int_slow", payload=payload)
            await until(lambda: not owner.unfinished(topics.DELIVERIES))
            assert time.monotonic() - before < SAVE_FEW_S / 2
        await owner.die()


async def test_of_a_held_line_what_a_predecessor_had_begun_is_ended(kafka_connection: Connection):
    """Nobody else would: nothing of it comes by, and nothing is read."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        answers = asyncio.Event()
        courier = Courier(hanging={"evt_0": answers})
        first = await group.next_owner(courier)
        await accept(first, "evt_0", "evt_1")
        await until(lambda: courier.waiting == 1)
        courier.standings["int_1"] = "hold"
        first.lanes.wake("int_1")

        async def is_paused() -> bool:
            return [(row.reason, len(row.open)) for row in await rows_of(group)] == [("paused", 1)]

        await eventually(is_paused)
        await until(lambda: not first.unfinished(topics.DELIVERIES))
        first.commit()
        await first.leave()
        second = await group.next_owner(courier)
        answers.set()

        async def only_the_other_waits() -> bool:
            return [(len(row.open), row.held) for row in await rows_of(group)] == [(0, 1)]

        await eventually(only_the_other_waits)
        assert sent(courier) == ["evt_0"]
        await second.die()
        await first.die()


async def test_an_endpoint_that_hangs_falls_behind_alone_and_catches_up_in_order(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        for name in ("int_slow", "int_1"):
            await log.integration(make_integration(name, events=[name]))
        hangs = asyncio.Event()
        courier = Courier(hanging={"slow_0": hangs})
        owner = await group.next_owner(courier)
        names = [f"slow_{n}" for n in range(ATTACHED_RECORDS + 300)]
        await log.events(*(make_event(event_id=name, type="int_slow") for name in names))
        for _ in range(2):
            await owner.hand_over_all(topics.EVENTS)
            await owner.hand_over_all(topics.DELIVERIES)
        # The one in flight holds nothing back.
        await until(lambda: owner.lanes.detached_lines == 1 and not owner.unfinished(topics.DELIVERIES))
        owner.commit()
        await accept(owner, "evt_1", type="int_1")
        await until(lambda: "evt_1" in sent(courier))
        line = owner.lanes._lines["int_slow"]
        assert sum(1 for _ in line.lane.entries()) <= 401

        hangs.set()
        await until(lambda: len(courier.sent) > 700)
        await owner.die()
        under_way = 1
        owner = await group.next_owner(courier)
        more = [f"slow_more_{n}" for n in range(50)]
        await accept(owner, *more, type="int_slow")
        await everything_is_done(owner)
        order = list(dict.fromkeys(name for name in sent(courier) if name.startswith("slow")))
        assert order == names + more
        assert len(courier.sent) <= len(names) + len(more) + 1 + under_way
        await eventually(lambda: rows_are_gone(group))
        await owner.die()


async def test_a_line_that_comes_back_is_killed_before_and_after_its_row_goes_and_loses_nothing(
    kafka_connection: Connection,
):
    """Fifty that came live are in the lane each time: first behind what its row answers for, then without any row."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        hangs = {name: asyncio.Event() for name in ("old_0", "old_50", "live_0")}
        courier = Courier(hanging=hangs)
        owner = await group.next_owner(courier)
        old, live = [f"old_{n}" for n in range(100)], [f"live_{n}" for n in range(50)]
        await accept(owner, *old)
        await until(lambda: courier.waiting == 1)
        line = owner.lanes._lines["int_1"]
        owner.lanes._detaching.detach(line, "behind")
        await until(lambda: not owner.unfinished(topics.DELIVERIES))

        # It comes back: those below `until` are its row's to answer for, those that come are tracked.
        hangs["old_0"].set()
        await eventually(lambda: is_coming_back(group))
        await until(lambda: sent(courier)[-1] == "old_50")
        await accept(owner, *live)
        assert owner.unfinished(topics.DELIVERIES) == 50
        assert await is_coming_back(group)
        owner.commit()
        await owner.die()

        owner = await group.next_owner(courier)
        await owner.hand_over_all(topics.DELIVERIES)
        assert owner.unfinished(topics.DELIVERIES) == 50
        hangs["old_50"].set()
        await eventually(lambda: rows_are_gone(group))
        assert owner.unfinished(topics.DELIVERIES) == 50
        assert sent(courier)[-1] == "live_0"
        owner.commit()
        await owner.die()

        hangs["live_0"].set()
        owner = await group.next_owner(courier)
        await owner.hand_over_all(topics.DELIVERIES)
        await everything_is_done(owner)
        assert list(dict.fromkeys(sent(courier))) == old + live
        assert Counter(sent(courier)) == Counter([*old, *live, "old_50", "live_0"]), "but for the two in flight"
        assert {(name, "delivered"): 1 for name in old + live} == await outcomes(log)
        await owner.die()


async def is_coming_back(group: Group) -> bool:
    """Whether the row on the log says from where on it does not answer any more."""
    return [row.until is not None for row in await rows_of(group)] == [True]


async def test_a_key_that_fails_for_hours_stops_neither_other_keys_nor_the_bounds(
    kafka_connection: Connection, monkeypatch: pytest.MonkeyPatch
):
    """What waits behind it is bounded in memory and in its row, here to 50; above that the line waits as a whole."""
    monkeypatch.setattr("services.dispatcher.line.MOST_OPEN", 50)
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        now_ms = group.now_ms = time.time_ns() // 1_000_000
        courier = Courier(ordering="key", at_first={"bad_0": [failed(now_ms + 4 * HOUR_MS)]})
        owner = await group.next_owner(courier)
        await accept(owner, "bad_0", ordering_key="bad")
        good = [f"good_{n}" for n in range(600)]
        for start in range(0, 600, 100):
            await accept(owner, *good[start : start + 100], ordering_key=f"k{start}")
            await accept(owner, f"bad_{1 + start // 100}", ordering_key="bad")
        await until(lambda: len(courier.sent) == 601, 60)
        assert Counter(sent(courier)) == Counter(["bad_0", *good])
        [line] = owner.lanes._lines.values()
        await until(lambda: sum(1 for _ in line.lane.entries()) == 7)
        assert sum(entry.delivery is not None for entry in line.lane.entries()) <= 6

        bad, behind = [f"bad_{n}" for n in range(107)], [f"behind_{n}" for n in range(20)]
        await accept(owner, *bad[7:], ordering_key="bad")
        await accept(owner, *behind, ordering_key="k0")
        await until(lambda: not owner.unfinished(topics.DELIVERIES))
        await until(lambda: not line.is_dirty and not line.is_busy)
        assert sum(1 for _ in line.lane.entries()) == 50
        [row] = await rows_of(group)
        assert (len(row.open), row.held) == (50, 107 + 20 - 50)
        owner.commit()
        await owner.die()

        group.now_ms = now_ms + HOUR_MS

        async def nothing(*_: Any) -> dict[Any, int]:
            return {}

        # Else those of the last seconds, which here are all: an hour has passed for the lanes alone.
        monkeypatch.setattr(takeover, "came_at", nothing)
        read = counting_results(log, monkeypatch)
        started_s = time.monotonic()
        owner = await group.next_owner(courier)
        took_s = time.monotonic() - started_s
        print(f"taken over in {took_s:.2f} s, {sum(read)} of {len(log.results)} results read")  # noqa: T201
        assert took_s < 5
        assert read
        assert sum(read) < 60
        [line] = owner.lanes._lines.values()
        assert sum(1 for _ in line.lane.entries()) == 50
        assert len(courier.sent) == 601
        group.now_ms = now_ms + 4 * HOUR_MS
        owner.lanes.wake("int_1")
        await everything_is_done(owner)
        assert [name for name in sent(courier)[601:] if name in bad] == bad
        assert [name for name in sent(courier)[601:] if name not in bad] == behind
        await owner.die()


def counting_results(log: Log, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with how many records of `delivery-results` each takeover from now on reads."""
    counts: list[int] = []
    read_back = takeover.read_back

    async def counted(connection: Connection, spans: Any, see: Any) -> None:
        results = log.connection.topic(topics.RESULTS)
        counts.extend(end - start for target, (start, end) in spans.items() if target.topic == results)
        await read_back(connection, spans, see)

    monkeypatch.setattr(takeover, "read_back", counted)
    return counts


async def test_a_takeover_reads_nothing_of_what_is_held(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        for name in ("int_held", "int_1"):
            await log.integration(make_integration(name, events=[name]))
        courier = Courier(standings={"int_held": "hold"})
        owner = await group.next_owner(courier)
        for start in range(0, 1_500, 500):
            await accept(owner, *(f"held_{start + n}" for n in range(500)), type="int_held")
        await until(lambda: not owner.unfinished(topics.DELIVERIES))
        await owner.leave()

        started_s = time.monotonic()
        owner = await group.next_owner(courier)
        await accept(owner, "evt_1", type="int_1")
        await until(lambda: "evt_1" in sent(courier))
        assert time.monotonic() - started_s < 5
        line = owner.lanes._lines["int_held"]
        assert (line.held, line.lane.is_empty, line.read_from) == (1_500, True, (await rows_of(group))[0].frontier)
        assert owner.lanes._catch_up._at == {}
        await owner.die()


async def test_the_late_row_of_a_frozen_owner_does_not_win(kafka_connection: Connection):
    """It froze when it wanted to say that its line waits from the first delivery on; that has long been delivered."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        courier = Courier(standings={"int_1": "hold"})
        frozen = await group.next_owner(courier)
        await log.events(*(make_event(event_id=f"evt_{n}") for n in range(3)))
        await frozen.hand_over_all(topics.EVENTS)
        frozen.producers.of_results.left, frozen.is_confirmed = 0, False
        await frozen.hand_over_all(topics.DELIVERIES)
        await until(lambda: frozen.producers.of_results.held(log.connection.topic(topics.LANE_ROWS)) == 1)

        courier.standings.clear()
        second = await group.next_owner(courier)
        await second.hand_over_all(topics.EVENTS)
        await second.hand_over_all(topics.DELIVERIES)
        await everything_is_done(second)
        second.commit()
        await frozen.producers.thaw()
        await second.die()
        third = await group.next_owner(courier)
        await third.work_through()
        assert await rows_of(group) == []
        assert sent(courier) == ["evt_0", "evt_1", "evt_2"]
        await frozen.die()
        await third.die()


async def test_an_unreadable_record_of_a_line_that_waits_is_put_aside_when_its_turn_comes(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        courier = Courier(standings={"int_1": "hold"})
        owner = await group.next_owner(courier)
        await accept(owner, "evt_0")
        await log.raw(topics.DELIVERIES, b"no record of ours", b"int_1", partition=0)
        await accept(owner, "evt_1")
        await until(lambda: not owner.unfinished(topics.DELIVERIES))
        owner.commit()
        await owner.die()
        courier.standings.clear()
        owner = await group.next_owner(courier)
        await owner.hand_over_all(topics.DELIVERIES)
        await everything_is_done(owner)
        [aside] = await log.quarantined_come(1)
        assert (aside.code, aside.value) == ("record.unreadable", b"no record of ours")
        assert sent(courier) == ["evt_0", "evt_1"]
        await owner.die()


@pytest.mark.parametrize("is_attempted", [False, True])
async def test_what_is_about_to_fall_out_of_the_log_gets_its_outcome_while_it_is_held(
    kafka_connection: Connection, is_attempted: bool
):
    """Also what keeps its place: a strict head that had failed when its integration was paused."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        courier = Courier(ordering="strict", standings={"int_1": "hold"})
        now_ms = time.time_ns() // 1_000_000
        group.now_ms = now_ms
        owner = await group.next_owner(courier)
        if is_attempted:
            courier.standings.clear()
            courier.at_first["evt_0"] = [failed(now_ms + 20_000_000)]
        await accept(owner, "evt_0")
        await until(lambda: owner.lanes.detached_lines == 1 and not owner.unfinished(topics.DELIVERIES))
        courier.standings["int_1"] = "hold"
        owner.lanes.wake("int_1")
        await owner.leave()

        owner = await group.next_owner(courier)
        group.now_ms = now_ms + (topics.DELIVERIES.retention_ms or 0) - 3_600_000
        await until(lambda: not owner.lanes.in_flight and len(log.results) == 1 + is_attempted)
        assert (log.results[-1].outcome, log.results[-1].reason) == ("discarded", "retention")
        assert len(courier.sent) == is_attempted
        await owner.die()


@pytest.mark.parametrize("ordering", ["integration", "strict", "key", "none"])
async def test_what_waits_is_discarded_when_its_integration_is_to_discard_or_is_deleted(
    kafka_connection: Connection, ordering: Any
):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        names = [f"evt_{n}" for n in range(30)]
        courier = Courier(ordering=ordering, standings={"int_1": "hold"})
        owner = await group.next_owner(courier)
        await accept(owner, *names)
        await until(lambda: not owner.unfinished(topics.DELIVERIES))
        courier.standings["int_1"] = "discard"
        courier.answers = {name: {"attempt": 0, "outcome": "discarded"} for name in names}
        courier.paces["int_1"] = Pace("none", 100)
        owner.lanes.wake("int_1")
        await everything_is_done(owner)
        assert {(name, "discarded"): 1 for name in names} == await outcomes(log)
        await eventually(lambda: rows_are_gone(group))
        await owner.die()


async def test_what_waits_for_one_that_was_deleted_ends_though_compaction_left_no_record_of_it(
    kafka_connection: Connection,
):
    """
    Who starts then meets neither its configuration nor that it was deleted, and offsets that hold nothing.

    Held, fanned out and not handed over yet, and back from a retry topic.
    """
    async with compacting(kafka_connection, topics.INTEGRATION_CONFIG), log_of(kafka_connection, ONE) as log:
        async with group_of(log) as group:
            await log.integration(make_integration("int_1", status="paused"))
            owner = await group.next_owner(Configured(group))
            await accept(owner, *(f"held_{n}" for n in range(20)))
            await until(lambda: not owner.unfinished(topics.DELIVERIES))
            await owner.leave()
            [row] = await rows_of(group)
            assert (row.integration, row.held) == ("int_1", 20)
            owner = await group.next_owner(Configured(group))
            await log.events(*(make_event(event_id=f"late_{n}") for n in range(10)))
            await owner.hand_over_all(topics.EVENTS)
            await eventually(lambda: len(log.deliveries) == 30)
            owner.commit()
            await owner.die()
        again = msgspec.structs.replace(
            log.deliveries[20], delivery_id="dlv_again", event_id="again", attempt=2,
            retry_line=topics.RETRIES[0].name, retry_partition=0, retry_generation=owner.generation,
        )  # fmt: skip
        await log.raw(topics.DELIVERIES, codec.encode(again), b"int_1")
        await log.delete("int_1")
        await eventually(lambda: is_compacted_away(log, "int_1"), 60)

        async with group_of(log) as later:
            later.goes_on_from(group)
            assert later.integrations.changed_at("int_1") == -1
            courier = Configured(later)
            owner = await later.next_owner(courier)
            await owner.work_through()
            await until(lambda: not owner.unfinished(topics.DELIVERIES))
            await eventually(lambda: rows_are_gone(later))
            assert sent(courier) == []
            waited = [*(f"held_{n}" for n in range(20)), *(f"late_{n}" for n in range(10)), "again"]
            assert {(name, "discarded"): 1 for name in waited} == await outcomes(log)
            assert {(each.reason, each.attempt) for each in log.results} == {("integration_deleted", 0)}
            await owner.die()


@asynccontextmanager
async def compacting(connection: Connection, topic: Topic) -> AsyncIterator[None]:
    """The topic, made so that all but its last record can be compacted; and a broker that looks all the time."""
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
    await admin.start()
    at_once = {"segment.ms": "1", "delete.retention.ms": "0", "min.cleanable.dirty.ratio": "0.001"}
    made = NewTopic(connection.topic(topic), 1, 1, topic_configs=topics.configs(topic, 1) | at_once)
    assert [error[1] for error in (await admin.create_topics([made])).topic_errors] == [0]
    [node] = [str(each["node_id"]) for each in (await admin.describe_cluster())["brokers"]]
    try:
        looking = ConfigResource(ConfigResourceType.BROKER, node, {"log.cleaner.backoff.ms": "100"})
        answers = await admin.alter_configs([looking])
        assert [each[0] for answer in answers for each in answer.resources] == [0], answers
        yield
    finally:
        await admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, node, {})])
        await admin.close()


async def is_compacted_away(log: Log, integration: str) -> bool:
    """Whether no record of its configuration is on the log, nor that it was deleted."""
    await log.integration(make_integration("int_other"))  # what stands in the last segment stays
    place = TopicPartition(log.connection.topic(topics.INTEGRATION_CONFIG), 0)
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(bootstrap_servers=log.connection.bootstrap)
    async with started(reader):
        reader.assign([place])
        await reader.seek_to_beginning(place)
        end, keys = (await reader.end_offsets([place]))[place], set()
        while await reader.position(place) < end:
            keys |= {record.key for record in (await reader.getmany(timeout_ms=200)).get(place, [])}
    return integration.encode() not in keys


async def test_nothing_is_lost_where_the_ordering_changes_while_deliveries_wait(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        names = [f"evt_{n}" for n in range(40)]
        courier = Courier(ordering="key", max_in_flight=4, at_first={"evt_0": [failed(10**9)]})
        owner = await group.next_owner(courier)
        for number, name in enumerate(names):
            await accept(owner, name, ordering_key=f"k{number % 4}")
        await until(lambda: len(courier.sent) == 31)
        for ordering in ("integration", "none", "strict", "key"):
            courier.ordering = ordering
            owner.lanes.wake("int_1")
            await asyncio.sleep(0.05)
            await owner.leave()
            owner = await group.next_owner(courier)
            await owner.hand_over_all(topics.DELIVERIES)
        courier.max_in_flight = 1
        group.now_ms = 10**9
        owner.lanes.wake("int_1")
        await everything_is_done(owner)
        assert {(name, "delivered"): 1 for name in names} == await outcomes(log)
        assert sent(courier)[31:] == [name for number, name in enumerate(names) if number % 4 == 0]
        await owner.die()


async def test_a_slow_key_does_not_stop_the_partition(kafka_connection: Connection):
    """What is parked behind a key that hangs counts as what is in line: the line is detached, and nothing held back."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        courier = Courier(ordering="key", hanging={"evt_0": asyncio.Event()})
        owner = await group.next_owner(courier)
        for start in range(0, 1_500, 500):
            await accept(owner, *(f"evt_{start + n}" for n in range(500)), ordering_key="k")
        await until(lambda: not owner.unfinished(topics.DELIVERIES))
        assert sent(courier) == ["evt_0"]
        await owner.die()


async def test_what_is_fanned_out_is_what_lines_that_catch_up_step_aside_for(connection: Connection):
    async with log_of(connection) as log, group_of(log) as group:
        owner = await group.next_owner()
        before_s = time.monotonic()
        owner.pacing.saw_live(before_s - 2 * AMIDST_S)  # others are there
        assert not owner.pacing.is_amidst(before_s)
        await log.events(make_event())
        await owner.hand_over_all(topics.EVENTS)
        assert owner.pacing.is_amidst(before_s)
