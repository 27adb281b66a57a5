"""
Takeovers: what a successor does again of what its predecessor had done, wherever that one died.

The model: an owner is a fan-out and lanes, on a real broker; a test hands them batches, commits where
it likes, and ends them by letting its producers stand still after any number of records (`tests/handing.py`). The next
owner gets what was committed, with its floor, and the log. Claims, for every place to die and however often in a row:

1. every event has one receipt that counts, and it is the first one;
2. a delivery is appended once for each integration on that receipt, and for none else, also when the configuration has
   changed in between;
3. a delivery whose result is on the log is not attempted again, whatever the result;
4. nothing is lost: every delivery has a result in the end;
5. what a frozen owner appends late is set aside, by the lanes and by every later takeover alike.
"""

import asyncio
import gc
import time
from collections import Counter

import pytest
from aiokafka.errors import MessageSizeTooLargeError, OutOfOrderSequenceNumber

from streams import codec, topics
from streams.connection import Connection
from streams.engine.processor import Assignment, Batch
from streams.producer import MAX_REQUEST_BYTES
from streams.records import Delivery, FanOutReceipt
from tests.handing import Courier, group_of, until
from tests.logs import Log, log_of, make_event
from tests.records import make_delivery, make_integration
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

ONE = topics.Partitions(by_app=1, by_integration=1)


async def everything_seen(log: Log) -> None:
    await eventually(log.is_read_to_the_end)


def appended(log: Log) -> Counter[tuple[str, str]]:
    """How often each (event, integration) stands on `deliveries`."""
    return Counter((each.event_id, each.integration) for each in log.deliveries)


async def test_fan_out_that_dies_between_any_two_records_is_continued_without_a_repeat(kafka_connection: Connection):
    """Three events for two integrations are nine records: die after each number of them, and change who selects."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        for dies_after in range(10):
            old = {f"int_a{dies_after}", f"int_b{dies_after}"}
            for name in old:
                await log.integration(make_integration(name))
            events = [make_event(event_id=f"evt_{dies_after}_{number}") for number in range(3)]
            first = await group.next_owner()
            await log.events(*events)
            first.producers.of_deliveries.left = dies_after
            await first.hand_over_all(topics.EVENTS)
            first.commit()
            await first.die()

            await everything_seen(log)
            had_a_receipt = {each.event_id for each in log.receipts}
            new = {f"int_c{dies_after}", f"int_a{dies_after}"}
            await log.delete(f"int_b{dies_after}")
            await log.integration(make_integration(f"int_c{dies_after}"))
            second = await group.next_owner()
            await second.hand_over_all(topics.EVENTS)
            second.commit()
            assert second.unfinished(topics.EVENTS) == 0
            await second.die()
            for name in new:
                await log.delete(name)

            await everything_seen(log)
            for event in events:
                wanted = old if event.event_id in had_a_receipt else new
                got = {pair: count for pair, count in appended(log).items() if pair[0] == event.event_id}
                assert {(event.event_id, name): 1 for name in wanted} == got, f"died after {dies_after} records"
                assert sum(each.event_id == event.event_id for each in log.receipts) == 1


@pytest.mark.parametrize("kind", [FanOutReceipt, Delivery])
async def test_a_batch_that_is_appended_after_a_later_one_is_neither_lost_nor_appended_again(
    kafka_connection: Connection, kind: type
):
    """
    Events 101 to 105 find no leader, 106 goes through: the highest that was appended says nothing of those below.

    They are appended never, before the owner dies, or behind its successor's marker, where they count for nobody.
    """
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_1"))
        for fate in ("never", "in time", "late"):
            names = [f"evt_{fate}_{number}" for number in range(100, 108)]
            first = await group.next_owner()
            held = set(names[1:6])
            producer = first.producers.of_deliveries
            producer.holds = lambda record, held=held: isinstance(record, kind) and record.event_id in held
            await log.events(*(make_event(event_id=name) for name in names))
            await first.hand_over_all(topics.EVENTS)
            of_kind = topics.FAN_OUT if kind is FanOutReceipt else topics.DELIVERIES
            assert producer.held(log.connection.topic(of_kind)) == 5
            first.commit()
            if fate == "in time":
                await first.producers.thaw()
            if fate != "late":
                await first.die()

            await everything_seen(log)
            found = [each.event_id for each in log.of(of_kind, kind) if each.event_id in names]
            passed = [name for name in names if name not in held]
            assert found == passed + (sorted(held) if fate == "in time" else [])
            courier = Courier()
            second = await group.next_owner(courier)
            if fate == "late":
                await first.producers.thaw()
                await first.die()
                await second.die()
                second = await group.next_owner(courier)  # it reads what came behind that marker
            await second.work_through()
            await until(lambda second=second: not second.unfinished(topics.DELIVERIES))
            second.commit()
            assert Counter(each.event_id for each in courier.sent) == Counter(names)
            await second.die()

            await everything_seen(log)
            if fate != "late":  # those count for nobody, and were not sent
                assert {(name, "int_1"): 1 for name in names}.items() <= appended(log).items()


async def test_lanes_that_die_do_not_send_again_what_has_its_result(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_1"))
        await log.integration(make_integration("int_slow", events=["slow"]))
        courier = Courier(hanging={"evt_slow": asyncio.Event()})
        first = await group.next_owner(courier)
        await log.events(make_event(event_id="evt_slow", type="slow"), *(make_event(n) for n in range(200)))
        await first.work_through()
        first.commit()
        assert len(courier.sent) == 201
        await first.die()

        courier = Courier()
        second = await group.next_owner(courier)
        await second.work_through()
        assert [each.event_id for each in courier.sent] == ["evt_slow"]
        assert second.unfinished(topics.DELIVERIES) == 0


async def test_a_second_death_does_not_send_again_what_the_first_takeover_found(kafka_connection: Connection):
    """
    The successor finds 200 results and passes over their deliveries; while one of them is still open, so that it
    commits in front of the 200, it dies too. What its own successor has to know stands below its marker.
    """
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        for name in ("int_1", "int_2"):
            await log.integration(make_integration(name, events=[name]))
        both_hang = {name: asyncio.Event() for name in ("evt_1", "evt_2")}
        first = await group.next_owner(Courier(hanging=both_hang))
        await log.integration(make_integration("int_3", events=["int_3"]))
        await log.events(
            make_event(event_id="evt_1", type="int_1"),
            make_event(event_id="evt_2", type="int_2"),
            *(make_event(number, type="int_3") for number in range(200)),
        )
        await first.work_through()
        first.commit()
        await first.die()

        second = await group.next_owner(Courier(hanging={"evt_2": asyncio.Event()}))
        await second.work_through()
        assert [each.event_id for each in second.courier.sent] == ["evt_1", "evt_2"]
        second.commit()
        await second.die()

        third = await group.next_owner()
        await third.work_through()
        assert [each.event_id for each in third.courier.sent] == ["evt_2"]


async def test_a_second_death_of_fan_out_repeats_nothing_that_the_first_takeover_found(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_1"))
        first = await group.next_owner()
        events = [make_event(event_id=f"evt_{number}") for number in range(10)]
        await log.events(*events)
        first.producers.of_deliveries.left = 20  # all that there is to append; what it did not do is commit
        await first.hand_over_all(topics.EVENTS)
        await first.die()

        second = await group.next_owner()
        await second.hand_over(second.partitions(topics.EVENTS)[0], at_most=1)
        second.commit()
        await second.hand_over(second.partitions(topics.EVENTS)[0], at_most=1)
        await second.die()

        third = await group.next_owner()
        await third.hand_over_all(topics.EVENTS)
        await everything_seen(log)
        assert {(event.event_id, "int_1"): 1 for event in events} == appended(log)
        assert len(log.receipts) == 10


async def test_what_ended_without_a_request_has_ended_too(kafka_connection: Connection):
    """Blocked and discarded: their results count no attempt. One outcome a delivery, whoever takes over."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_1"))
        await log.integration(make_integration("int_slow", events=["slow"]))
        await log.events(make_event(event_id="evt_slow", type="slow"), make_event(event_id="evt_1"))
        blocked = {"attempt": 0, "outcome": "blocked", "reason": "secret_unknown"}
        first = await group.next_owner(Courier(hanging={"evt_slow": asyncio.Event()}, answers={"evt_1": blocked}))
        await first.work_through()
        first.commit()
        await first.die()

        second = await group.next_owner()
        await second.work_through()
        assert [each.event_id for each in second.courier.sent] == ["evt_slow"]


async def test_deliveries_that_a_frozen_owner_appends_late_are_set_aside_and_appended_again(
    kafka_connection: Connection,
):
    """
    An owner freezes with its deliveries unsent, is replaced, wakes and sends them, behind its successor's marker.
    The lanes set them aside; so no takeover may count them as appended, or nobody delivers them.
    """
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_1"))
        frozen = await group.next_owner()
        events = [make_event(event_id=f"evt_{number}") for number in range(5)]
        await log.events(*events)
        frozen.producers.of_deliveries.left = 5 + 2  # the receipts, and two deliveries
        await frozen.hand_over_all(topics.EVENTS)

        second = await group.next_owner()
        await frozen.producers.thaw()
        second.commit()  # nothing done yet; the floor is its own
        await second.die()

        third = await group.next_owner()
        await third.work_through()
        assert [event.event_id for event in events] == [each.event_id for each in third.courier.sent]
        assert third.unfinished(topics.DELIVERIES) == 0


async def test_lanes_that_take_over_behind_a_marker_know_what_it_said(kafka_connection: Connection):
    """The marker is committed over, the late delivery behind it is not: it has to stay set aside."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_1"))
        frozen = await group.next_owner()
        await log.events(make_event(event_id="evt_0"))
        frozen.producers.of_deliveries.left = 1  # the receipt
        await frozen.hand_over_all(topics.EVENTS)

        second = await group.next_owner()
        await second.hand_over_all(topics.DELIVERIES)  # up to its own marker
        second.commit()
        await frozen.producers.thaw()
        await second.hand_over_all(topics.EVENTS)
        second.commit()  # the event is done: its delivery stands behind the late one
        await second.die()

        third = await group.next_owner()
        await third.work_through()
        assert [each.event_id for each in third.courier.sent] == ["evt_0"]
        assert [each.event_id for each in log.deliveries] == ["evt_0", "evt_0"]


async def test_a_receipt_that_a_frozen_owner_appends_late_does_not_count(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_old"))
        frozen = await group.next_owner()
        await log.events(make_event(event_id="evt_0"))
        frozen.producers.of_deliveries.left = 0
        await frozen.hand_over_all(topics.EVENTS)
        await log.delete("int_old")
        await log.integration(make_integration("int_new"))

        second = await group.next_owner()
        await frozen.producers.thaw()
        second.producers.of_deliveries.left = 1  # its own receipt
        await second.hand_over_all(topics.EVENTS)
        await second.die()
        await log.integration(make_integration("int_newer"))

        third = await group.next_owner()
        await third.work_through()
        assert [(each.event_id, each.integration) for each in third.courier.sent] == [("evt_0", "int_new")]


async def test_one_event_that_cannot_be_fanned_out_does_not_make_the_others_of_its_batch_be_fanned_out_twice(
    kafka_connection: Connection,
):
    """The engine hands the batch over again, a record at a time, to find which one raises."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        for name in ("int_1", "int_2"):
            await log.integration(make_integration(name))
        # What a delivery adds to its event makes it too large for our producer.
        huge = make_event(event_id="evt_huge", payload=b'"' + bytes(MAX_REQUEST_BYTES - 180) + b'"')
        await log.events(make_event(event_id="evt_0"), huge, make_event(event_id="evt_1"))
        owner = await group.next_owner()
        [events] = owner.partitions(topics.EVENTS)
        with pytest.raises(MessageSizeTooLargeError):
            await owner.hand_over(events)
        [batch] = owner.batches
        for record in batch.records:
            alone = batch.alone(record)
            if record.offset == 1:
                with pytest.raises(MessageSizeTooLargeError):
                    await owner.fan_out.process(alone)
            else:
                await owner.fan_out.process(alone)
        await everything_seen(log)
        assert {(f"evt_{n}", name): 1 for n in range(2) for name in ("int_1", "int_2")} == appended(log)
        assert owner.unfinished(topics.EVENTS) == 1


async def test_a_producer_that_has_ended_for_good_ends_the_worker(kafka_connection: Connection):
    """Nothing that it does can be recorded any more; nothing of it is put aside, since another process can do it."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_1"))
        await log.events(make_event(event_id="evt_0"))
        retried = {"outcome": None, "next_attempt": 2, "next_due_at_ms": time.time_ns() // 1_000_000, "next_slot": 1}
        for name in ("of_deliveries", "of_results", "of_retries"):
            owner = await group.next_owner(Courier(at_first={"evt_0": [retried]}))
            topic = topics.EVENTS if name == "of_deliveries" else topics.DELIVERIES
            if topic is topics.DELIVERIES:
                await owner.hand_over_all(topics.EVENTS)
            error = getattr(owner.producers, name).dies_of = OutOfOrderSequenceNumber()
            await owner.hand_over_all(topic)
            await until(lambda owner=owner: not owner.lanes.in_flight)
            assert [error] == owner.fatal, name
            assert owner.unfinished(topic) == 1, name
            await owner.die()
        await everything_seen(log)
        assert log.quarantined == []


async def test_a_delivery_that_waits_does_not_keep_the_batch_that_it_came_with_in_memory(kafka_connection: Connection):
    """The ledger bounds what is unfinished; a finished record must not be held by an unfinished neighbour."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_1"))
        await log.integration(make_integration("int_slow", events=["slow"]))
        courier = Courier(hanging={"evt_slow": asyncio.Event()})
        owner = await group.next_owner(courier)
        await log.events(make_event(event_id="evt_slow", type="slow"), *(make_event(number) for number in range(300)))
        await owner.hand_over_all(topics.EVENTS)
        owner.batches.clear()
        await owner.hand_over_all(topics.DELIVERIES)
        await owner.lanes_are_still()
        owner.batches.clear()
        courier.sent.clear()
        gc.collect()
        assert [each for each in gc.get_objects() if isinstance(each, Batch) and len(each.records) > 1] == []


async def test_an_owner_that_may_have_been_replaced_starts_no_request(kafka_connection: Connection):
    """It was frozen, or has not heard from its group: it waits until it knows, and ends at once when it is replaced."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        for name in ("int_1", "int_2"):
            await log.integration(make_integration(name))
        owner = await group.next_owner()
        await log.events(*(make_event(event_id=f"evt_{number}") for number in range(3)))
        await owner.hand_over_all(topics.EVENTS)
        owner.is_confirmed = False
        await owner.hand_over_all(topics.DELIVERIES)
        assert owner.lanes.in_flight == 2
        assert owner.courier.sent == []

        owner.is_confirmed = True
        await eventually(lambda: owner.unfinished(topics.DELIVERIES) == 0)
        assert len(owner.courier.sent) == 6

        await log.events(make_event(event_id="evt_3"))
        await owner.hand_over_all(topics.EVENTS)
        owner.is_confirmed = False
        await owner.hand_over_all(topics.DELIVERIES)
        async with asyncio.timeout(10):
            await owner.lanes.settle(60)
        assert len(owner.courier.sent) == 6
        assert owner.unfinished(topics.DELIVERIES) == 2


async def test_a_result_that_cannot_be_written_is_put_aside_and_ends_no_worker(kafka_connection: Connection):
    """Our fault, for that delivery alone: a worker that ended for it would end again at every start."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_1"))
        await log.events(*(make_event(event_id=f"evt_{number}") for number in range(3)))
        unwritable = {"status": 2**40, "detail": "\udcff"}
        owner = await group.next_owner(Courier(answers={"evt_1": unwritable}))
        await owner.work_through()
        await eventually(lambda: owner.unfinished(topics.DELIVERIES) == 0)
        [aside] = await log.quarantined_come(1)
        assert aside.code == "attempt.raised"
        assert owner.fatal == []
        await everything_seen(log)
        assert [each.event_id for each in log.results] == ["evt_0", "evt_2"]


async def test_a_takeover_with_a_producer_that_has_ended_ends_the_worker(kafka_connection: Connection):
    """Tried again for ever it would keep the partitions, alive and of no use."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        owner = await group.next_owner()
        error = OutOfOrderSequenceNumber()
        owner.producers.die_of(error)
        with pytest.raises(OutOfOrderSequenceNumber):
            await owner.fan_out.take_over(Assignment(2, {0: ""}, {0: 0}))
        with pytest.raises(OutOfOrderSequenceNumber):
            await owner.lanes.take_over(Assignment(2, {0: ""}, {0: 0}))
        assert owner.fatal == 2 * [error]


async def test_a_retry_that_came_back_twice_is_sent_once_however_long_nobody_worked(kafka_connection: Connection):
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration())
        group.now_ms = time.time_ns() // 1_000_000
        courier = Courier()
        owner = await group.next_owner(courier)
        deliveries = owner.partitions(topics.DELIVERIES)[0]
        # A reader of retries died between appending it to the next line and committing: it comes back twice.
        copy = make_delivery(attempt=2, due_at_ms=group.now_ms, source_generation=99)

        async def comes_back() -> None:
            await log.producer.send_and_wait(
                deliveries.topic, codec.encode(copy), key=copy.integration.encode(), partition=deliveries.partition
            )

        await comes_back()
        await owner.hand_over_all(topics.DELIVERIES)
        await until(lambda: len(courier.sent) == 1 and not owner.unfinished(topics.DELIVERIES))
        owner.commit()
        await owner.die()
        await comes_back()

        group.now_ms += 600_000
        owner = await group.next_owner(courier)
        await owner.hand_over_all(topics.DELIVERIES)
        await until(lambda: not owner.unfinished(topics.DELIVERIES))
        assert [(each.delivery_id, each.attempt) for each in courier.sent] == [(copy.delivery_id, 2)]
        await owner.die()
