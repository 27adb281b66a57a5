"""
Ids that clients supply, on a real broker: one record wins, wherever an owner dies, and also on a new machine.

The model is that of `test_takeover.py`: owners that a test lets die after any number of records.
"""

import pytest

from services.dispatcher import event_ids
from streams import codec, topics
from streams.connection import Connection
from streams.records import WonIds
from tests.handing import group_of
from tests.logs import Log, log_of, make_event
from tests.records import make_integration
from tests.waiting import eventually

ONE = topics.Partitions(by_app=1, by_integration=1)


def repeats(log: Log) -> dict[str, str | None]:
    return {each.record_id: each.repeat_of for each in log.receipts}


async def seen(log: Log) -> None:
    await eventually(log.is_read_to_the_end)


async def test_a_repeat_is_not_fanned_out_and_has_a_receipt_that_names_the_winner(connection: Connection):
    async with log_of(connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_a"))
        first, second, same = (make_event(event_id="order-1", id_supplied=True) for _ in range(3))
        page = make_event(event_id="order-1", id_supplied=True, id_space="public")
        made = [make_event(event_id="evt_minted") for _ in range(2)]
        owner = await group.next_owner()
        await log.events(page, first, second, first, *made)
        await owner.hand_over_all(topics.EVENTS)
        await log.events(same)
        await owner.hand_over_all(topics.EVENTS)
        await owner.die()
        await eventually(lambda: len(log.receipts) >= 7 and len(log.deliveries) >= 5)

        assert repeats(log) == {
            page.record_id: None,
            first.record_id: None,
            second.record_id: first.record_id,
            same.record_id: first.record_id,
            **{each.record_id: None for each in made},
        }
        assert [each.record_id for each in log.deliveries] == [
            each.record_id for each in (page, first, first, *made)
        ], "the same record again is a replay"
        assert [each.integrations for each in log.receipts if each.repeat_of] == [[], []]


async def test_an_owner_may_die_between_any_two_records(kafka_connection: Connection):
    """Four events, three of one id, for one integration, are six records; a successor knows nothing but the log."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_a"))
        for dies_after in range(7):
            events = [make_event(event_id=f"{name}-{dies_after}", id_supplied=True) for name in "aaba"]
            owner = await group.next_owner()
            await log.events(*events)
            owner.producers.of_deliveries.left = dies_after
            await owner.hand_over_all(topics.EVENTS)
            owner.commit()
            await owner.die()

            successor = await group.next_owner()
            late = make_event(event_id=f"a-{dies_after}", id_supplied=True)
            await log.events(late)
            await successor.hand_over_all(topics.EVENTS)
            successor.commit()
            await successor.die()
            await seen(log)

            told = repeats(log)
            a, again, b, third = (each.record_id for each in events)
            assert (told[a], told[again], told[b], told[third]) == (None, a, None, a), dies_after
            assert told[late.record_id] == a
            ours = [each.record_id for each in log.deliveries if each.event_id.endswith(f"-{dies_after}")]
            assert ours == [a, b], dies_after


async def test_a_frozen_owners_late_win_does_not_count(kafka_connection: Connection):
    """It decides for an event, freezes before the receipt, and appends that when another has decided otherwise."""
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        await log.integration(make_integration("int_a"))
        frozen = await group.next_owner()
        first, second = (make_event(event_id="a", id_supplied=True) for _ in range(2))
        await log.events(first)
        frozen.producers.of_deliveries.left = 0
        await frozen.hand_over_all(topics.EVENTS)
        successor = await group.next_owner()
        await frozen.producers.thaw()
        await frozen.die()
        third_owner = await group.next_owner()
        await successor.die()
        await log.events(second)
        await third_owner.hand_over_all(topics.EVENTS)
        await third_owner.die()
        await seen(log)

        counted = {each.record_id: each for each in log.receipts if each.source_generation > frozen.generation}
        assert {name: each.repeat_of for name, each in counted.items()} == {
            first.record_id: None,
            second.record_id: first.record_id,
        }


async def test_a_takeover_starts_at_what_was_saved(kafka_connection: Connection, monkeypatch: pytest.MonkeyPatch):
    """Then few receipts are read, and the ids of all of them are known; also where no floor was stored."""
    monkeypatch.setattr(event_ids, "SAVE_EVERY", 4)
    async with log_of(kafka_connection, ONE) as log, group_of(log) as group:
        winners = [make_event(event_id=f"e{number}", id_supplied=True) for number in range(10)]
        owner = await group.next_owner()
        for event in winners:
            await log.events(event)
            await owner.hand_over_all(topics.EVENTS)
        owner.commit()
        floor = owner.fan_out.floor(0)
        await owner.die()
        [partition] = owner.partitions(topics.EVENT_IDS)
        records = await group.read(partition, 0, await group.end(partition))

        assert len([each for each in records if isinstance(codec.decode(each.value), WonIds)]) == 2
        # A marker, then ten receipts: eight of them saved.
        assert floor.endswith(f";1.9.{owner.generation}"), floor
        for forgets_floors in (False, True):
            if forgets_floors:
                group.stored = {each: (offset, "") for each, (offset, _) in group.stored.items()}
            successor = await group.next_owner()
            again = [make_event(event_id=event.event_id, id_supplied=True) for event in winners]
            await log.events(*again)
            await successor.hand_over_all(topics.EVENTS)
            successor.commit()
            await successor.die()
            await seen(log)
            assert [repeats(log)[each.record_id] for each in again] == [each.record_id for each in winners]
