"""Which record wins an event id, and what a takeover makes of what it reads."""

import pytest

from services.dispatcher import event_ids
from services.dispatcher.appended import Floor
from services.dispatcher.event_ids import FROM_THE_BEGINNING, KEPT_MS, VALID_MS, EventIds, IdsFloor, key_of
from streams.records import Event, FanOutReceipt, WonIds
from tests.logs import make_event

HOUR_MS = 3_600_000
FIRST_MS = 1_700_000_000_000


def event(record: str, at_ms: int = 0, event_id: str = "order-1", **changes) -> Event:
    fields = {"record_id": record, "event_id": event_id, "id_supplied": True, "accepted_at_ms": FIRST_MS + at_ms}
    return make_event(**fields | changes)


def receipt(of: Event, repeat_of: str | None = None, generation: int = 1) -> FanOutReceipt:
    return FanOutReceipt(
        record_id=of.record_id,
        app=of.app,
        event_id=of.event_id,
        type=of.type,
        config_offset=0,
        integrations=[],
        accepted_at_ms=of.accepted_at_ms,
        source_partition=0,
        source_offset=0,
        source_generation=generation,
        id_space=of.id_space if of.id_supplied else None,
        repeat_of=repeat_of,
    )


def saved(ids: EventIds, until: int, generation: int = 1) -> list[WonIds]:
    return list(ids.to_save(0, generation, until))


def test_the_first_record_wins_and_another_is_its_repeat():
    ids = EventIds()
    assert ids.decide(event("rec_a")) is None
    assert ids.decide(event("rec_b", 5)) == "rec_a"
    assert ids.decide(event("rec_c", 9)) == "rec_a"


def test_the_same_record_once_more_is_fanned_out_again():
    ids = EventIds()
    ids.decide(event("rec_a"))
    assert ids.decide(event("rec_a")) is None


def test_a_page_cannot_shadow_a_servers_id_nor_one_app_anothers():
    ids = EventIds()
    assert ids.decide(event("rec_a", id_space="public")) is None
    assert ids.decide(event("rec_b", id_space="secret")) is None
    assert ids.decide(event("rec_c", app="other")) is None


def test_parts_of_a_key_cannot_be_moved_from_one_to_the_next():
    assert key_of("a", "secret", "b") != key_of("ase", "cret", "b")


@pytest.mark.parametrize(("later_ms", "repeats"), [(VALID_MS - 1, "rec_a"), (VALID_MS, None)])
def test_an_id_is_valid_for_a_day_of_the_records_time(later_ms, repeats):
    ids = EventIds()
    ids.decide(event("rec_a"))
    assert ids.decide(event("rec_b", later_ms)) == repeats


def test_whoever_comes_after_a_day_wins_the_next_one():
    ids = EventIds()
    ids.decide(event("rec_a"))
    ids.decide(event("rec_b", VALID_MS))
    assert ids.decide(event("rec_c", VALID_MS + 1)) == "rec_b"


def test_an_event_from_a_process_whose_clock_is_behind_is_a_repeat_all_the_same():
    ids = EventIds()
    ids.decide(event("rec_a", 2 * HOUR_MS))
    assert ids.decide(event("rec_b", 0)) == "rec_a"


def test_what_is_no_longer_valid_is_forgotten():
    ids = EventIds()
    for hour in range(100):
        ids.decide(event(f"rec_{hour}", hour * HOUR_MS, event_id=f"order-{hour}"))
    assert len(ids) <= KEPT_MS // HOUR_MS + 2
    assert ids.decide(event("rec_x", 99 * HOUR_MS, event_id="order-76")) == "rec_76"


@pytest.mark.parametrize("record", ["rec_" + "f" * 32, "r", "rec_" + "long" * 30])
def test_a_record_id_of_any_length_is_recognised(record):
    """Also after a takeover; of one longer than ours, a hash is told instead."""
    ids = EventIds()
    ids.decide(event(record))
    after = EventIds()
    for each in saved(ids, 7):
        after.see_saved(0, each)
    for table in (ids, after):
        assert table.decide(event(record)) is None
        told = table.decide(event("rec_b"))
        assert told == record if len(record) <= 36 else len(told) == 36


def test_a_takeover_reads_what_was_saved_and_the_receipts_behind_it():
    first = EventIds()
    first.decide(event("rec_a", event_id="a"))
    [record] = saved(first, until=10)
    after = EventIds()
    after.see_marker(1)
    after.see_saved(3, record)
    assert after.receipts_from == 10
    after.see_receipt(9, receipt(event("rec_late", event_id="early")))
    after.see_receipt(10, receipt(event("rec_b", event_id="b")))
    after.see_receipt(11, receipt(event("rec_c", event_id="a"), repeat_of="rec_a"))
    after.taken_over(4)

    assert [after.decide(event("rec_x", event_id=name)) for name in "ab"] == ["rec_a", "rec_b"]
    assert after.decide(event("rec_y", event_id="early")) is None, "below what was saved; it is not read twice"
    assert after.floor == IdsFloor(3, 10, 1)


def test_what_was_only_read_on_receipts_is_saved_with_the_next():
    after = EventIds()
    after.see_receipt(0, receipt(event("rec_a")))
    [record] = saved(after, until=1)
    third = EventIds()
    third.see_saved(0, record)
    assert third.decide(event("rec_b")) == "rec_a"


def test_events_whose_ids_ingest_made_are_not_kept():
    after = EventIds()
    after.see_receipt(0, receipt(event("rec_a", id_supplied=False)))
    assert len(after) == 0


def test_a_frozen_predecessors_late_receipts_and_late_saves_do_not_count():
    late = EventIds()
    late.decide(event("rec_late", event_id="a"))
    [late_record] = saved(late, until=20, generation=1)
    after = EventIds()
    after.see_marker(2)
    after.see_saved(5, late_record)
    after.see_owner(7, 2)
    after.see_receipt(8, receipt(event("rec_late", event_id="b"), generation=1))
    after.see_receipt(9, receipt(event("rec_won", event_id="b"), generation=2))

    assert after.receipts_from == 0
    assert after.decide(event("rec_x", event_id="a")) is None
    assert after.decide(event("rec_x", event_id="b")) == "rec_won"


def test_a_late_save_is_late_also_where_reading_begins_behind_the_marker():
    """What stands first there is of the owner that counts, or of a later one."""
    first, late = EventIds(), EventIds()
    first.decide(event("rec_a", event_id="a"))
    late.decide(event("rec_late", event_id="b"))
    after = EventIds(IdsFloor(6, 0, 0))
    after.see_saved(6, saved(first, 10, generation=2)[0])
    after.see_saved(7, saved(late, 12, generation=1)[0])

    assert after.receipts_from == 10
    assert after.decide(event("rec_x", event_id="b")) is None


def test_the_owner_whose_receipts_were_saved_is_the_one_before_the_rest():
    """Its marker stands below; a receipt of an older one behind it is late."""
    first = EventIds()
    after = EventIds()
    after.see_saved(0, saved(first, 10, generation=3)[0])
    after.see_receipt(10, receipt(event("rec_late"), generation=2))
    assert len(after) == 0


def test_a_group_that_was_deleted_counts_anew():
    first = EventIds()
    first.decide(event("rec_a"))
    after = EventIds()
    after.see_marker(57)
    after.see_marker(1)
    after.see_saved(2, saved(first, 3, generation=1)[0])
    assert after.decide(event("rec_b")) == "rec_a"


def test_many_ids_are_saved_in_several_records_and_only_the_last_says_how_far(monkeypatch):
    """Whoever finds only some of them reads the receipts again."""
    monkeypatch.setattr(event_ids, "_IDS_PER_RECORD", 2)
    ids = EventIds()
    for number in range(5):
        ids.decide(event(f"rec_{number}", event_id=f"e{number}"))
    records = saved(ids, until=40)

    assert [record.receipts_until for record in records] == [None, None, 40]
    after = EventIds()
    after.see_saved(0, records[0])
    after.see_saved(1, records[1])
    assert (after.receipts_from, len(after)) == (0, 4)


def test_it_is_time_to_save_after_so_many_receipts_with_or_without_ids():
    ids = EventIds()
    ids.count(event_ids.SAVE_EVERY - 1)
    assert not ids.is_due
    ids.count(1)
    assert ids.is_due
    [record] = saved(ids, until=9)
    ids.saved(4, record)
    assert not ids.is_due
    assert (record.ids, record.receipts_until) == (b"", 9)
    assert ids.floor.receipts == 9


def test_a_successor_starts_at_the_oldest_record_that_is_still_valid():
    ids = EventIds()
    for day in range(4):
        ids.decide(event(f"rec_{day}", day * VALID_MS, event_id=f"e{day}"))
        for record in saved(ids, until=day):
            ids.saved(10 + day, record)
    assert ids.floor == IdsFloor(12, 3, 1)


def test_a_floor_is_stored_and_read_again():
    floor = Floor(3, 14, (1, 2), IdsFloor(5, 6, 7))
    assert Floor.parse(str(floor), 2) == floor
    assert Floor.parse("3;14;1,2", 2).ids == FROM_THE_BEGINNING
    assert Floor.parse("3;14;1,2;5.6", 2).ids == FROM_THE_BEGINNING
