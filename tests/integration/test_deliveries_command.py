"""`tenterhook deliveries` and `trace` over a log on a real broker."""

import asyncio
import json
import time
from typing import Any

import pytest

from services.cli.deliveries import ASK_ABOVE, list_, retry
from services.cli.errors import Failed, WrongUsage
from services.cli.log_access import LogOptions
from services.cli.trace import trace
from streams import codec, topics
from streams.connection import Connection
from streams.delivery_ids import delivery_id
from streams.records import Quarantined
from tests.logs import Log, log_of, make_event
from tests.reconciling import deliver_all, delivery_of, make_receipt, result_of
from tests.records import make_integration
from tests.waiting import eventually


async def asked(command: Any, connection: Connection, capsys: Any, *args: Any, **options: Any) -> Any:
    """What it prints as JSON."""
    log = LogOptions(broker=connection.bootstrap, topic_prefix=connection.prefix)
    capsys.readouterr()
    await asyncio.to_thread(command, *args, log=log, as_json=True, **options)
    return json.loads(capsys.readouterr().out)


async def failed(log: Log, *results: dict[str, Any], integration: str = "int_a") -> Any:
    """An event with a delivery that went so."""
    event = make_event()
    [at] = await log.events(event)
    receipt = make_receipt(event, at.partition, at.offset, integrations=[integration])
    delivery = delivery_of(event, receipt, integration)
    await log.raw(topics.FAN_OUT, codec.encode(receipt), b"demo", at.partition)
    standing = await log.raw(topics.DELIVERIES, codec.encode(delivery), integration.encode())
    for each in results:
        await log.raw(topics.RESULTS, codec.encode(result_of(delivery, standing, **each)), integration.encode())
    return event, delivery


FAILED = {"outcome": None, "attempt": 1, "reason": "status_503", "status": 503, "next_attempt": 2}
EXHAUSTED = {"outcome": "exhausted", "attempt": 2, "reason": "timeout", "status": None}


async def test_a_delivery_is_one_row_with_its_outcome_and_the_newest_is_last(connection, capsys):
    async with log_of(connection) as log:
        await deliver_all(log, 3)
        now_ms = time.time_ns() // 1_000_000
        _, exhausted = await failed(log, FAILED, EXHAUSTED | {"finished_at_ms": now_ms + 60_000})
        _, waiting = await failed(log, FAILED | {"finished_at_ms": now_ms + 90_000}, integration="int_b")
        everything = (await asked(list_, connection, capsys))["items"]
        ended = (await asked(list_, connection, capsys, outcome="exhausted"))["items"]
        still = (await asked(list_, connection, capsys, outcome="open"))["items"]
        one = await asked(list_, connection, capsys, integration="int_b", limit=1)
        none = (await asked(list_, connection, capsys, type="call_started"))["items"]
        later = (await asked(list_, connection, capsys, since="2099-01-01T00:00:00Z"))["items"]

    assert len(everything) == 8
    assert [each["id"] for each in everything[-2:]] == [exhausted.delivery_id, waiting.delivery_id]
    assert [(each["id"], each["attempt"], each["reason"]) for each in ended] == [(exhausted.delivery_id, 2, "timeout")]
    assert [(each["id"], each["outcome"]) for each in still] == [(waiting.delivery_id, None)]
    assert [each["id"] for each in one["items"]] == [waiting.delivery_id]
    assert one["leftOut"] == 3
    assert none == later == []


async def test_what_has_ended_is_sent_again_as_a_delivery_of_its_own(connection, capsys):
    async with log_of(connection) as log:
        config_offset = await log.integration(make_integration("int_a"))
        event, ended = await failed(log, FAILED, EXHAUSTED)
        said = await asked(retry, connection, capsys, ended.delivery_id)
        again = await eventually(lambda: next((each for each in log.deliveries if each.cause == "retry"), None))
        first, second = [each for each in log.deliveries if each.integration == "int_a"]

        assert said == {
            "sent": [{"of": ended.delivery_id, "id": again.delivery_id, "attempt": 3}],
            "refused": [],
        }
        assert (first, second) == (ended, again)
        assert again.delivery_id == delivery_id(event.record_id, "int_a", again.run) != ended.delivery_id
        assert (again.of, again.attempt, again.payload, again.event_id) == (
            ended.delivery_id,
            3,
            event.payload,
            event.event_id,
        )
        assert (again.source_partition, again.source_offset) == (ended.source_partition, ended.source_offset)
        assert again.config_offset == config_offset + 1

        # What came of that one leads back to the first.
        at = next(each.raw for each in log.seen[topics.DELIVERIES] if each.record == again)
        await log.raw(topics.RESULTS, codec.encode(result_of(again, at, outcome="exhausted", attempt=3)), b"int_a")
        said = await asked(retry, connection, capsys, again.delivery_id)
        third = await eventually(lambda: next((each for each in log.deliveries if each.attempt == 4), None))
        assert (third.of, third.run != again.run) == (ended.delivery_id, True)


async def test_what_cannot_be_sent_again_is_refused_with_the_reason(embedded_connection, capsys):
    async with log_of(embedded_connection) as log:
        _, waiting = await failed(log, FAILED)
        event = make_event()
        gone = delivery_of(event, make_receipt(event, 0, 0), "int_a")
        was_at = result_of(gone, outcome="exhausted", source_partition=1, source_offset=999)
        await log.raw(topics.RESULTS, codec.encode(was_at), b"int_a")
        said = await asked(retry, embedded_connection, capsys, waiting.delivery_id, gone.delivery_id, "dlv_" + "0" * 32)

    assert said["sent"] == []
    assert {each["id"]: each["why"] for each in said["refused"]} == {
        waiting.delivery_id: "it is still being tried",
        gone.delivery_id: "its payload has fallen out of retention (deliveries are kept for 7 days)",
        "dlv_" + "0" * 32: "there is no result of it that is kept",
    }


async def test_many_are_sent_again_only_when_somebody_agrees(embedded_connection, capsys):
    async with log_of(embedded_connection) as log:
        for _ in range(ASK_ABOVE + 1):
            await failed(log, EXHAUSTED)
        await failed(log, EXHAUSTED, integration="int_b")
        with pytest.raises(Failed, match="--yes"):
            await asked(retry, embedded_connection, capsys, outcome="exhausted")
        one = await asked(retry, embedded_connection, capsys, outcome="exhausted", integration="int_b")
        all_ = await asked(retry, embedded_connection, capsys, outcome="exhausted", yes=True)

    assert (len(one["sent"]), len(all_["sent"])) == (1, ASK_ABOVE + 2)


@pytest.mark.parametrize("given", [{}, {"outcome": "open"}])
def test_what_is_sent_again_has_to_be_said(given):
    with pytest.raises(WrongUsage):
        retry(**given)


async def test_a_trace_is_the_whole_life_of_the_event_and_of_no_other(connection, capsys):
    async with log_of(connection) as log:
        await deliver_all(log, 2)
        event, delivery = await failed(log)
        due_at_ms = event.accepted_at_ms + 5_000
        first = result_of(delivery, **FAILED, next_due_at_ms=due_at_ms)
        waiting = delivery_of(event, receipt_of(delivery), "int_a", attempt=2, due_at_ms=due_at_ms)
        back = delivery_of(event, receipt_of(delivery), "int_a", attempt=2, due_at_ms=due_at_ms, retry_line="retry.5s")
        await log.raw(topics.RESULTS, codec.encode(first), b"int_a")
        await log.raw(topics.RETRIES[1], codec.encode(waiting), None, 2)
        await log.raw(topics.DELIVERIES, codec.encode(back), b"int_a")
        await log.raw(topics.RESULTS, codec.encode(result_of(delivery, attempt=2)), b"int_a")
        aside = Quarantined(
            topic=connection.topic(topics.DELIVERIES),
            partition=0,
            offset=0,
            value=codec.encode(delivery),
            headers=[],
            code="agent.raised",
            reason="x",
            agent="lane",
            at_ms=0,
        )
        await log.raw(topics.QUARANTINE, codec.encode(aside))
        moments = await asked(trace, connection, capsys, event.event_id)
        by_record = await asked(trace, connection, capsys, event.record_id)
        with pytest.raises(Failed, match="no event"):
            await asked(trace, connection, capsys, event.event_id, app="other")

    assert [each["what"] for each in moments] == [
        "accepted",
        "receipt",
        "delivery",
        "attempt",
        "waiting",
        "put back",
        "outcome",
        "quarantined",
    ]
    assert by_record == moments
    assert {each["delivery"] for each in moments[2:]} == {delivery.delivery_id}
    assert moments[3]["details"]["due"] == moments[4]["details"]["due"] == moments[5]["details"]["due"]
    assert (moments[4]["topic"], moments[4]["partition"]) == ("retry.5s", 2)
    assert moments[-1]["details"]["code"] == "agent.raised"


def receipt_of(delivery):
    event = make_event()
    return make_receipt(event, delivery.source_partition, delivery.source_offset)


async def test_people_read_tables(embedded_connection, capsys):
    async with log_of(embedded_connection) as log:
        event, delivery = await failed(log, EXHAUSTED)
        options = LogOptions(broker=embedded_connection.bootstrap, topic_prefix=embedded_connection.prefix)
        await asyncio.to_thread(list_, log=options)
        await asyncio.to_thread(trace, event.event_id, log=options)
        assert await asyncio.to_thread(retry, delivery.delivery_id, log=options) == 0

    said = capsys.readouterr().out
    assert "exhausted" in said
    assert "receipt" in said
    assert f"{delivery.delivery_id} is sent again as dlv_" in said
