"""
Takeovers of retry readers: what a successor puts back again of what its predecessor had, wherever that one died.

The model: an owner is a reader of every retry topic with one producer, on a real broker; a test moves its clock, and
ends it by letting the producer stand still after any number of records (`tests/retrying.py`). Claims:

1. what was put back is not put back again, though nothing of it was committed (a lane may have sent it already);
2. nothing is lost, however often in a row a reader dies;
3. what a frozen reader appends late does not count, for the lanes and for every later takeover;
4. a takeover finds nothing to look for where nothing was put back since the last commit;
5. nothing is put back before it is due, hours of waiting and chains of lines included.
"""

import asyncio
import random
from collections import Counter

import pytest

from services.dispatcher.put_back import IDLE
from streams import codec, takeover, topics
from streams.connection import Connection
from streams.delay_lines import wait_ms
from streams.records import Delivery
from tests.logs import log_of
from tests.records import make_delivery
from tests.retrying import Reading, Waiters, waiters_of

pytestmark = pytest.mark.kafka

TWO = topics.Partitions(by_app=1, by_integration=2)


def failed(group: Waiters, count: int, wait_ms: int = 5_000, prefix: str = "dlv") -> list[Delivery]:
    """Deliveries whose second attempt is due in so long."""
    return [
        make_delivery(
            delivery_id=f"{prefix}_{number}",
            integration=f"int_{number % 7}",
            attempt=2,
            due_at_ms=group.clock.now_ms + wait_ms,
        )
        for number in range(count)
    ]


def once(deliveries: list[Delivery]) -> Counter[tuple[str, int]]:
    return Counter((each.delivery_id, each.attempt) for each in deliveries)


async def finished(owner: Reading, by_ms: int) -> None:
    await owner.hand_over()
    await owner.until_ms(by_ms)
    assert owner.unfinished == 0
    owner.commit()
    assert owner.floors == {IDLE}


async def test_a_due_delivery_comes_back_with_all_that_a_lane_asks_for(kafka_connection: Connection):
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        [delivery] = failed(group, 1)
        await group.put(delivery)
        owner = await group.next_owner()
        await owner.hand_over()
        await owner.until_ms(delivery.due_at_ms - 1)
        assert await group.put_back() == []
        await owner.until_ms(delivery.due_at_ms)
        [back] = await group.put_back()
        assert (back.retry_line, back.retry_partition, back.retry_generation) == ("retry.5s", 2, 1)
        assert (back.delivery_id, back.attempt, back.due_at_ms) == ("dlv_0", 2, delivery.due_at_ms)
        assert back.payload == delivery.payload
        [seen] = [each.raw for each in log.seen[topics.DELIVERIES] if each.record == back]
        assert seen.key == b"int_0"
        await owner.die()


async def test_a_reader_that_dies_between_any_two_records_is_continued_without_a_repeat(kafka_connection: Connection):
    """Six are due: die after each number of them, nothing committed; the successor puts back the others."""
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        for dies_after in (0, 1, 3, 5, 6):
            deliveries = failed(group, 6, prefix=f"dlv_{dies_after}")
            first = await group.next_owner()
            first.commit()
            await group.put(*deliveries)
            await first.hand_over()
            first.producer.left = dies_after
            await first.until_ms(group.clock.now_ms + 5_000)
            await first.die()

            second = await group.next_owner()
            await finished(second, group.clock.now_ms)
            await second.die()
            got = await group.counted()
            assert {key: got[key] for key in once(deliveries)} == once(deliveries), f"died after {dies_after}"


async def test_what_a_takeover_found_is_found_by_the_next_one_too(kafka_connection: Connection):
    """The successor passes over five of ten; it dies before it has read the others, its offsets committed or not."""
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        for commits in (False, True):
            deliveries = failed(group, 10, prefix=f"dlv_{commits}")
            first = await group.next_owner()
            first.commit()
            await group.put(*deliveries)
            await first.hand_over()
            await first.until_ms(group.clock.now_ms + 5_000)  # all are put back, and nothing is committed
            await first.die()

            second = await group.next_owner()
            second.producer.left = 0
            await second.hand_over(at_most=3)
            if commits:
                second.commit()
            await second.die()

            third = await group.next_owner()
            await finished(third, group.clock.now_ms)
            await third.die()
            got = await group.counted()
            assert {key: got[key] for key in once(deliveries)} == once(deliveries)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_no_sequence_of_kills_loses_or_repeats_anything(kafka_connection: Connection, seed: int):
    choose = random.Random(seed)
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        deliveries: list[Delivery] = []
        for life in range(5):
            owner = await group.next_owner()
            for burst in range(choose.randrange(1, 4)):
                due = failed(group, choose.randrange(8), choose.randrange(300, 30_000), f"dlv_{life}_{burst}")
                await group.put(*due, slot=choose.randrange(5))
                deliveries += due
                await owner.hand_over(at_most=choose.choice((1, 2, 1_000)))
                if choose.random() < 0.5:
                    owner.producer.left = choose.randrange(6)
                await owner.until_ms(group.clock.now_ms + choose.randrange(10_000))
                if owner.producer.stands_still:
                    break
                if choose.random() < 0.5:
                    owner.commit()
            await owner.die()
        last = await group.next_owner()
        await finished(last, group.clock.now_ms + 40_000)
        await last.die()
        back = await group.put_back()
        # A record that goes on from one line into another may stand there twice; a lane drops the second at its due
        # time. So what counts is that nothing which was put back from one retry record is put back from it again.
        assert once(back).keys() == once(deliveries).keys()
        assert sorted(each.delivery_id for each in {(b.delivery_id, b.attempt): b for b in back}.values()) == sorted(
            each.delivery_id for each in deliveries
        )
        origins = Counter(each.raw.headers for each in log.seen[topics.DELIVERIES] if isinstance(each.record, Delivery))
        assert set(origins.values()) <= {1}


async def test_what_a_frozen_reader_appends_late_counts_for_nobody(kafka_connection: Connection):
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        deliveries = failed(group, 10)
        frozen = await group.next_owner()
        await group.put(*deliveries)
        await frozen.hand_over()
        frozen.producer.left = 4
        await frozen.until_ms(group.clock.now_ms + 5_000)

        second = await group.next_owner()
        await second.hand_over()
        second.producer.left = 3
        await second.until_ms(group.clock.now_ms)
        await frozen.producer.thaw()
        frozen.commit()  # refused: the group has moved on
        await second.die()

        third = await group.next_owner()
        await finished(third, group.clock.now_ms)
        assert await group.counted() == once(deliveries)
        assert len(log.deliveries) == 10 + 6  # six came late
        await frozen.die()
        await third.die()


async def test_a_worker_that_is_not_known_to_be_a_member_puts_nothing_back(kafka_connection: Connection):
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        deliveries = failed(group, 3)
        owner = await group.next_owner()
        await group.put(*deliveries)
        await owner.hand_over()
        owner.is_confirmed = False
        group.clock.fire_next(group.clock.now_ms + 5_000)
        await asyncio.sleep(0.3)
        assert await group.put_back() == []
        group.clock.now_ms = deliveries[0].due_at_ms + 1_234
        reader = owner.readers[kafka_connection.topic(topics.RETRIES[1])]
        assert reader.overdue_ms == 1_234
        owner.is_confirmed = True
        await owner.until_ms(group.clock.now_ms)
        assert reader.overdue_ms == 0
        assert await group.counted() == once(deliveries)
        await owner.die()


async def test_a_reader_whose_commit_is_refused_puts_nothing_back(kafka_connection: Connection):
    """Its floor is still idle, so a successor would not look; and the refusal says that there is one."""
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        owner = await group.next_owner()
        owner.commit()
        await group.put(*failed(group, 3))
        await owner.hand_over()
        group.generation += 1
        group.clock.fire_next(group.clock.now_ms + 5_000)
        await asyncio.sleep(0.5)
        assert await group.put_back() == []
        await owner.die()


async def test_the_floor_is_idle_but_while_something_put_back_is_not_committed(kafka_connection: Connection):
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        owner = await group.next_owner()
        await group.put(*failed(group, 2), *failed(group, 1, wait_ms=20_000))
        await owner.hand_over()
        owner.commit()
        assert owner.floors == {IDLE}
        await owner.until_ms(group.clock.now_ms + 5_000)
        assert len(owner.floors - {IDLE}) == 1  # before the first was put back, by the reader itself
        owner.commit()
        assert owner.floors == {IDLE}
        await owner.die()


async def test_an_idle_line_is_taken_over_without_reading_anything(kafka_connection: Connection, monkeypatch):
    read: list[int] = []

    async def counting(connection, ranges, see):  # the real one, and how much it is told to read
        read.append(sum(end - start for start, end in ranges.values()))
        await real(connection, ranges, see)

    real = takeover.read_back
    monkeypatch.setattr(takeover, "read_back", counting)
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        owner = await group.next_owner()
        deliveries = failed(group, 4)
        await group.put(*deliveries, *failed(group, 50, wait_ms=20_480_000, prefix="dlv_long"))
        await finished_but_waiting(owner, group.clock.now_ms + 5_000)
        await owner.die()
        read.clear()

        second = await group.next_owner()
        assert set(read) == {0}
        await second.hand_over()
        assert second.waiting == 50
        assert await group.counted() == once(deliveries)
        await second.die()


async def finished_but_waiting(owner: Reading, by_ms: int) -> None:
    await owner.hand_over()
    await owner.until_ms(by_ms)
    owner.commit()


@pytest.mark.parametrize("delay_s", [1, 80, 20_480])
async def test_each_line_lets_out_when_it_is_due_and_not_before(kafka_connection: Connection, delay_s: int):
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        owner = await group.next_owner()
        start_ms, due = group.clock.now_ms, {}
        for slot in range(5):
            [delivery] = failed(group, 1, wait_ms(delay_s, slot), f"dlv_{slot}")
            due[delivery.delivery_id] = delivery.due_at_ms
            group.clock.now_ms = start_ms + 7  # the result took so long
            await group.put(delivery, slot=slot)
            group.clock.now_ms = start_ms
        await owner.hand_over()
        for at_ms in sorted(due.values()):
            await owner.until_ms(at_ms - 1)
            assert {each.due_at_ms for each in await group.put_back()} == {d for d in due.values() if d < at_ms}
            await owner.until_ms(at_ms)
        back = {each.delivery_id: each for each in await group.put_back()}
        assert {name: each.due_at_ms for name, each in back.items()} == due
        assert {each.retry_line for each in back.values()} == {f"retry.{delay_s}s"}
        await owner.die()


@pytest.mark.parametrize("wait_ms", [500, 3_600_000, 30_000_000])
async def test_any_other_due_time_is_met_through_several_lines(kafka_connection: Connection, wait_ms: int):
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        owner = await group.next_owner()
        [delivery] = failed(group, 1, wait_ms)
        await group.put(delivery)
        await owner.hand_over()
        await owner.until_ms(delivery.due_at_ms - 1)
        assert await group.put_back() == []
        await owner.until_ms(delivery.due_at_ms)
        await finished(owner, group.clock.now_ms)
        assert await group.counted() == once([delivery])
        hops = sum((await group.ends(owner._ledgers)).values())
        assert hops <= 16
        await owner.die()


async def test_what_is_no_retry_is_put_aside_and_the_line_goes_on(kafka_connection: Connection):
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        owner = await group.next_owner()
        await log.raw(topics.RETRIES[1], b"nonsense", partition=2)
        await log.raw(topics.RETRIES[1], codec.encode(make_delivery()), partition=2)
        deliveries = failed(group, 1)
        await group.put(*deliveries)
        await finished(owner, group.clock.now_ms + 5_000)
        assert await group.counted() == once(deliveries)
        assert {each.code for each in await log.quarantined_come(2)} == {"record.unreadable", "record.unexpected"}
        await owner.die()


async def test_a_reader_that_raises_again_for_one_record_holds_each_once(kafka_connection: Connection):
    """The engine hands a batch that raised over again, a record at a time; what it held already is not held twice."""
    async with log_of(kafka_connection, TWO) as log, waiters_of(log) as group:
        owner = await group.next_owner()
        deliveries = failed(group, 2)
        await group.put(deliveries[0])
        await log.raw(topics.RETRIES[1], b"nonsense", partition=2)
        owner.producer.dies_of = RuntimeError("a bug of ours")
        with pytest.raises(RuntimeError):
            await owner.hand_over()
        assert owner.waiting == 0
        await owner.die()
