"""Replays by a dispatcher in this process, on real brokers and real HTTP."""

import asyncio
import time
from typing import Any

from services.dispatcher.dry_run import dry_run
from services.dispatcher.replaying import MAX_AT_ONCE, MAX_OPEN
from streams import codec, topics
from streams.connection import Connection
from streams.delivery_ids import delivery_id
from tests.dispatching import dispatching
from tests.logs import Log, log_of, make_event
from tests.receiving import after, receiver
from tests.records import make_delivery, make_integration, make_replay
from tests.replays import HEADER, asking, replayed
from tests.waiting import eventually


def past(count: int, began_ms: int, **changes: Any) -> list[Any]:
    """Events accepted a millisecond apart; two of five are of the type `call_started`."""
    return [
        make_event(
            number,
            accepted_at_ms=began_ms + number,
            type="call_started" if number % 5 < 2 else "call_ended",
            **changes,
        )
        for number in range(count)
    ]


async def fanned_out(log: Log, count: int) -> None:
    await eventually(lambda: len(log.receipts) >= count, 60)


async def test_a_range_goes_to_a_new_integration_in_order_while_live_events_go_on(connection: Connection):
    """200 of 1,000 events, by time and type."""
    began_ms = time.time_ns() // 1_000_000 - 10_000
    async with log_of(connection) as log, receiver() as to, asking(log) as replays:
        events = past(1_000, began_ms)
        await log.integration(to.integration("int_old", events=["call_started"], ordering="none", max_in_flight=50))
        async with dispatching(connection):
            await log.events(*events)
            await fanned_out(log, 1_000)
            await to.wait_for("int_old", 400)
            await log.integration(to.integration("int_1", events=["live"]))
            await replays.start(types=["call_started"], from_ms=began_ms + 300, until_ms=began_ms + 800, rate=100)
            waits_s = []
            while replays.rows.progress("rpl_1") is None or replays.rows.get("rpl_1").state == "running":
                sent_s, number = time.time(), 10_000 + len(waits_s)
                await log.events(make_event(number, type="live"))
                await eventually(lambda number=number: number in to.seen["int_1"], 20)
                waits_s.append(time.time() - sent_s)
                await asyncio.sleep(0.1)
            row = await replays.ended()
            await eventually(lambda: sum(each.cause == "replay" for each in log.results) == 200)

        wanted = [event for event in events[300:800] if event.type == "call_started"]
        arrived = replayed(to, "int_1")
        assert len(wanted) == 200
        assert [each.event_id for each in arrived] == [event.event_id for event in wanted]
        assert {each.request.header("X-ApifyCloud-Delivery") for each in arrived} == {"int_1:1"}
        assert len(to.numbers("int_1")) == 200 + len(waits_s)
        assert not replayed(to, "int_old")
        assert (row.state, row.outcomes, row.events_next) == ("done", {"delivered": 200}, row.events_until)
        made = replays.deliveries()
        assert [each.record_id for each in made] == [event.record_id for event in wanted]
        assert {(each.cause, each.of, each.attempt) for each in made} == {("replay", None, 1)}
        results = [each for each in log.results if each.cause == "replay"]
        assert [each.outcome for each in results] == ["delivered"] * 200
        assert results[0].request_headers[HEADER] == "rpl_1"
        assert len(waits_s) > 5
        waits_s.sort()
        print(f"live beside a replay: median {waits_s[len(waits_s) // 2]:.3f} s, longest {waits_s[-1]:.3f} s")  # noqa: T201


async def test_one_that_had_the_events_gets_them_again_and_the_old_deliveries_are_named(connection: Connection):
    """A repeat of an id is left out, though it stands on the log; what fails has one attempt."""
    async with log_of(connection) as log, receiver() as to, asking(log) as replays:
        await log.integration(to.integration("int_1", signing=False))
        first = make_event(1, event_id="own", id_supplied=True)
        repeat, other = make_event(2, event_id="own", id_supplied=True), make_event(3)
        async with dispatching(connection):
            await log.events(first, repeat, other)
            await to.wait_for("int_1", 2)
            to.policies["int_1"] = after(0, 503)
            await replays.start()
            row = await replays.ended()

    assert to.numbers("int_1") == [1, 3, 1, 3]
    assert row.outcomes == {"exhausted": 2}
    assert [each.of for each in replays.deliveries()] == [
        delivery_id(event.record_id, "int_1", "0") for event in (first, other)
    ]


async def test_a_cancelled_one_sends_nothing_more(connection: Connection):
    async with log_of(connection) as log, receiver() as to, asking(log) as replays:
        await log.integration(to.integration("int_1"))
        async with dispatching(connection):
            asked = await replays.start(rate=50, from_ms=0)
            assert (await replays.ended()).outcomes == {}
            await log.events(*(make_event(number, type="call_started") for number in range(500)))
            await fanned_out(log, 500)
            to.policies["int_1"] = after(0.2)
            asked = await replays.start("rpl_2", types=["call_started"], rate=50)
            await eventually(lambda: len(replayed(to, "int_1", "rpl_2")) >= 10, 30)
            await replays.cancel(asked)
            row = await replays.ended("rpl_2")
            arrived, appended = len(replayed(to, "int_1", "rpl_2")), len(replays.deliveries("rpl_2"))
            last = make_event(9_999)
            await log.events(last)
            # In the same line, behind all that the replay has in it.
            await eventually(lambda: any(each.event_id == last.event_id for each in log.results), 30)

    assert row.state == "cancelled"
    assert 10 <= arrived < 100
    # One was under way; what stood in line is recorded.
    assert len(replayed(to, "int_1", "rpl_2")) <= arrived + 1
    assert len(replays.deliveries("rpl_2")) == appended
    ends = [each for each in log.results if each.cause == "replay"]
    assert len(ends) == appended
    assert {each.reason for each in ends} <= {"status_200", "replay_cancelled"}
    assert sum(each.reason == "replay_cancelled" for each in ends) <= MAX_OPEN


async def test_while_the_integration_is_paused_it_waits_and_where_that_is_deleted_it_fails(
    embedded_connection: Connection,
):
    async with log_of(embedded_connection) as log, receiver() as to, asking(log) as replays:
        config = to.integration("int_1", status="paused", while_paused="discard")
        await log.integration(config)
        async with dispatching(embedded_connection):
            await log.events(*(make_event(number, type="call_started") for number in range(20)))
            await fanned_out(log, 20)
            await replays.start(types=["call_started"])
            await eventually(lambda: replays.rows.progress("rpl_1") is not None, 30)
            await asyncio.sleep(1)
            assert (replays.deliveries(), to.count) == ([], 0)
            await log.integration(to.integration("int_1", version=2, epoch=2))
            await to.wait_for("int_1", 5)
            await log.delete("int_1")
            row = await replays.ended()

    assert (row.state, row.reason) == ("failed", "integration_deleted")
    assert 5 <= len(to.numbers("int_1")) < 20
    assert to.numbers("int_1") == list(range(len(to.numbers("int_1"))))


async def test_those_that_cannot_go_on_let_others_have_their_turn(embedded_connection: Connection):
    async with log_of(embedded_connection) as log, receiver() as to, asking(log) as replays:
        await log.integration(to.integration("int_paused", status="paused"))
        await log.integration(to.integration("int_1"))
        async with dispatching(embedded_connection):
            await log.events(*(make_event(number, type="call_started") for number in range(5)))
            await fanned_out(log, 5)
            for number in range(MAX_AT_ONCE):
                await replays.start(f"rpl_{number}", types=["call_started"], integration="int_paused")
            await replays.start("rpl_last", types=["call_started"])
            assert (await replays.ended("rpl_last")).outcomes == {"delivered": 5}
            assert list(to.arrivals) == ["int_1"]
            await log.integration(to.integration("int_paused", version=2, epoch=2))
            for number in range(MAX_AT_ONCE):
                assert (await replays.ended(f"rpl_{number}")).outcomes == {"delivered": 5}

    assert len(to.arrivals["int_paused"]) == 5 * MAX_AT_ONCE


async def test_what_a_replaced_worker_appends_late_is_set_aside_and_what_ended_long_ago_is_forgotten(
    embedded_connection: Connection,
):
    async with log_of(embedded_connection) as log, receiver() as to, asking(log) as replays:
        await log.integration(to.integration("int_1"))
        long_ended = {"state": "done", "updated_at_ms": 1}
        for row in (make_replay("rpl_old"), make_replay("rpl_old", generation=1, **long_ended)):
            await replays.write(row)
        await replays.write(make_replay("rpl_kept", state="cancelled", updated_at_ms=time.time_ns() // 1_000_000))
        async with dispatching(embedded_connection):
            await eventually(lambda: [each.id for each in replays.rows.all()] == ["rpl_kept"])
            assert replays.rows.progress("rpl_old") is None
            fields = {"cause": "replay", "run": "rpl_1", "config_offset": 0}
            for generation, number in ((-1, 1), (2**31 - 1, 2)):
                late = make_delivery(
                    delivery_id=f"dlv_{number}", source_generation=generation, payload=b'{"n": %d}' % number, **fields
                )
                await log.raw(topics.DELIVERIES, codec.encode(late), b"int_1")
            await to.wait_for("int_1", 1)

    assert to.numbers("int_1") == [2]


async def test_a_dry_run_counts_and_shows_and_writes_nothing(connection: Connection):
    began_ms = time.time_ns() // 1_000_000 - 10_000
    async with log_of(connection) as log, receiver() as to:
        await log.integration(to.integration("int_1", events=["call_ended"]))
        async with dispatching(connection):
            events = past(100, began_ms)
            await log.events(*events, make_event(1, type="call_ended", event_id="own", id_supplied=True))
            await log.events(make_event(2, type="call_ended", event_id="own", id_supplied=True))
            await fanned_out(log, 102)
            await to.wait_for("int_1", 61)
        before = len(log.deliveries)
        asked = make_replay(from_ms=began_ms + 50, types=["call_ended", "call_started"])
        # Of an integration that is stored nowhere.
        found = await dry_run(
            connection,
            log.partitions.by_app,
            asked,
            make_integration("int_new", url="https://new.example/x"),
            brand="X-ApifyCloud",
            version="1",
            now_ms=0,
            allow_http=False,
            sample=2,
        )
        # Behind whatever it had written for that integration.
        last = make_delivery(delivery_id="dlv_last", integration="int_new")
        await log.raw(topics.DELIVERIES, codec.encode(last), b"int_new")
        await eventually(lambda: last in log.deliveries)

    assert (found.by_type, found.count, found.repeats) == ({"call_ended": 31, "call_started": 20}, 51, 1)
    assert [each.event_id for each in found.sample] == [event.event_id for event in events[50:52]]
    assert {each.url for each in found.sample} == {"https://new.example/x"}
    assert len(log.deliveries) == before + 1
