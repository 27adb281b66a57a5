"""The command over logs on real brokers: whole ones are proven, and what is left out is found."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from services.admin.again import again
from services.cli.log_access import LogOptions
from services.cli.reconcile import reconcile
from streams import codec, topics
from streams.connection import Connection
from streams.lane_rows import row_key
from streams.records import LaneRow, Marker, Quarantined
from tests.dispatching import dispatching
from tests.logs import PARTITIONS, log_of, make_event
from tests.receiving import receiver
from tests.reconciling import commit_all, deliver_all, delivery_of, make_receipt, result_of
from tests.waiting import eventually


async def reconciled(connection: Connection, capsys: Any, **options: Any) -> tuple[int, dict[str, Any]]:
    """Exit code and report."""
    log = LogOptions(broker=connection.bootstrap, topic_prefix=connection.prefix)
    capsys.readouterr()
    code = await asyncio.to_thread(reconcile, log=log, as_json=True, **options)
    # What services of this process say may come before it.
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def kinds(report: dict[str, Any]) -> list[tuple[str, str | None]]:
    return sorted((each["kind"], each["integration"]) for each in report["findings"])


async def test_a_whole_log_is_proven_and_without_commits_all_that_has_no_outcome_is_open(connection, capsys):
    async with log_of(connection) as log:
        await deliver_all(log, 30)
        await log.events(make_event(99))
        code, report = await reconciled(connection, capsys)

    assert (code, report["proven"], report["findings"]) == (0, True, [])
    assert report["events"] == {"accepted": 31, "fannedOut": 30, "repeats": 0, "waiting": 1, "quarantined": 0}
    assert report["pairs"] == {
        "selected": 60,
        "outcomes": {"delivered": 60},
        "open": 0,
        "quarantined": 0,
        "missing": 0,
    }


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ("receipt", [("no_receipt", None), ("stray_outcome", "int_a"), ("stray_outcome", "int_b")]),
        ("delivery", [("no_delivery", "int_a")]),
        ("result", [("no_outcome", "int_a")]),
    ],
)
async def test_what_is_left_out_is_found(embedded_connection, capsys, without, expected):
    async with log_of(embedded_connection) as log:
        await deliver_all(log, 8, without=(without, 3))
        await commit_all(embedded_connection, PARTITIONS)
        code, report = await reconciled(embedded_connection, capsys)

    assert (code, report["proven"], kinds(report)) == (1, False, expected)


async def test_what_waits_on_a_retry_topic_is_held_in_a_row_or_was_put_aside_is_accounted_for(
    embedded_connection, capsys
):
    async with log_of(embedded_connection) as log:
        event, poison = make_event(), make_event(1)
        [at, poison_at] = await log.events(event, poison)
        names = ["int_held", "int_retrying", "int_broken", "int_done", "int_lost"]
        receipt = make_receipt(event, at.partition, at.offset, integrations=names)
        await log.raw(topics.FAN_OUT, codec.encode(receipt), b"demo", at.partition)
        made = {name: delivery_of(event, receipt, name) for name in names}
        for name, delivery in made.items():
            await log.raw(topics.DELIVERIES, codec.encode(delivery), name.encode())
        await log.raw(topics.RESULTS, codec.encode(result_of(made["int_done"])), b"int_done")
        row = LaneRow(integration="int_held", app="demo", generation=1, reason="paused", frontier=0, open=[], held=1)
        partition = log.partition_of(topics.DELIVERIES, "int_held")
        await log.raw(topics.LANE_ROWS, codec.encode(row), row_key("int_held", 1), partition)
        aside = Quarantined(
            topic=embedded_connection.topic(topics.DELIVERIES),
            partition=0,
            offset=0,
            value=codec.encode(made["int_broken"]),
            headers=[],
            code="agent.raised",
            reason="x",
            agent="lane",
            at_ms=0,
        )
        await log.raw(topics.QUARANTINE, codec.encode(aside))
        # It ended workers behind its receipt.
        receipt = make_receipt(poison, poison_at.partition, poison_at.offset, integrations=["int_held"])
        await log.raw(topics.FAN_OUT, codec.encode(receipt), b"demo", poison_at.partition)
        place = {"topic": poison_at.topic, "partition": poison_at.partition, "offset": poison_at.offset}
        event_aside = msgspec.structs.replace(aside, **place, value=codec.encode(poison), code="record.fatal")
        await log.raw(topics.QUARANTINE, codec.encode(event_aside))
        await commit_all(embedded_connection, PARTITIONS)
        code, report = await reconciled(embedded_connection, capsys)
        assert (code, kinds(report)) == (1, [("no_outcome", "int_lost"), ("no_outcome", "int_retrying")])
        assert (report["pairs"]["open"], report["pairs"]["quarantined"], report["pairs"]["missing"]) == (1, 2, 2)
        assert (report["events"]["fannedOut"], report["events"]["quarantined"]) == (1, 1)


async def test_only_the_range_asked_for_is_counted(embedded_connection, capsys):
    async with log_of(embedded_connection) as log:
        await log.events(*(make_event(accepted_at_ms=second * 1_000) for second in range(10)))
        _, report = await reconciled(
            embedded_connection, capsys, since="1970-01-01T00:00:03Z", until="1970-01-01T00:00:07Z"
        )

    assert report["events"]["accepted"] == 4


async def test_people_read_the_sum_and_each_finding(embedded_connection, capsys):
    async with log_of(embedded_connection) as log:
        await deliver_all(log, 4, without=("result", 1))
        await commit_all(embedded_connection, PARTITIONS)
        options = LogOptions(broker=embedded_connection.bootstrap, topic_prefix=embedded_connection.prefix)
        assert await asyncio.to_thread(reconcile, log=options) == 1

    said = capsys.readouterr().out
    assert "8 events x integrations = 7 outcomes + 0 open + 0 quarantined + 1 missing" in said
    assert "1 x no_outcome" in said
    assert "dlv_" in said


async def test_an_outcome_that_came_late_is_shown_apart_with_both_results(embedded_connection, capsys):
    async with log_of(embedded_connection) as log:
        [event, *_] = await deliver_all(log, 2)
        await commit_all(embedded_connection, PARTITIONS)
        partition = log.partition_of(topics.RESULTS, "int_a")
        taken = Marker(source_topic="", source_partition=partition, generation=2, owner="w", at_ms=0)
        await log.raw(topics.RESULTS, codec.encode(taken), None, partition)
        late = result_of(delivery_of(event, make_receipt(event, 0, 0), "int_a"), outcome="rejected", started_at_ms=9)
        at = await log.raw(topics.RESULTS, codec.encode(late), b"int_a")
        code, report = await reconciled(embedded_connection, capsys)
        options = LogOptions(broker=embedded_connection.bootstrap, topic_prefix=embedded_connection.prefix)
        assert await asyncio.to_thread(reconcile, log=options) == 0

    assert (code, report["proven"], report["findings"], report["late"]["count"]) == (0, True, [], 1)
    [found] = report["late"]["outcomes"]
    assert (found["delivery"], found["integration"]) == (late.delivery_id, "int_a")
    assert found["late"] == {
        "partition": at.partition,
        "offset": at.offset,
        "attempt": 1,
        "outcome": "rejected",
        "generation": 1,
    }
    assert (found["other"]["offset"] < at.offset, found["other"]["outcome"]) == (True, "delivered")
    said = capsys.readouterr().out
    assert f"{at.partition}@{at.offset}: attempt 1 rejected" in " ".join(said.split())
    assert "nothing has two outcomes but those" in said


@pytest.mark.kafka
async def test_what_dispatchers_have_done_is_proven_and_what_is_sent_again_is_not_counted(kafka_connection, capsys):
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.integration(to.integration("int_a"))
        await log.integration(to.integration("int_b"))
        async with dispatching(kafka_connection):
            await log.events(*(make_event(number) for number in range(40)))
            results = await log.results_come(80)
            [ended] = [each for each in log.deliveries if each.delivery_id == results[0].delivery_id]
            asked = again(ended, last_attempt=results[0].attempt, run="cmd_1", config_offset=0)
            await log.raw(topics.DELIVERIES, codec.encode(asked), asked.integration.encode())
            repeated = (await log.results_come(81))[-1]
            await eventually(log.all_is_committed)
            code, report = await reconciled(kafka_connection, capsys)

    assert (repeated.cause, repeated.of, repeated.outcome, repeated.attempt) == (
        "retry",
        results[0].delivery_id,
        "delivered",
        results[0].attempt + 1,
    )
    assert (code, report["proven"]) == (0, True)
    assert report["pairs"]["outcomes"] == {"delivered": 80}
    assert report["pairs"]["open"] == 0
