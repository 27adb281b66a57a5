"""`tenterhook deliveries list` and `trace` over a log on a real broker."""

import asyncio
import json
import time
from typing import Any

import pytest

from services.cli.deliveries import list_
from services.cli.errors import Failed
from services.cli.log_access import LogOptions
from services.cli.trace import trace
from streams import codec, topics
from streams.connection import Connection
from streams.records import Quarantined
from tests.logs import Log, log_of, make_event
from tests.reconciling import deliver_all, delivery_of, make_receipt, result_of


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
    assert [(each["id"], each["outcome"]) for each in still] == [(waiting.delivery_id, "open")]
    assert [each["id"] for each in one["items"]] == [waiting.delivery_id]
    assert one["leftOut"] == 3
    assert none == later == []


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
        await asyncio.to_thread(trace, event.event_id, log=options, table=True)
        await asyncio.to_thread(trace, event.event_id, log=options)

    said = capsys.readouterr().out
    assert "exhausted" in said
    assert "receipt" in said
    assert f"int_a  exhausted  (live, {delivery.delivery_id})" in said
