"""The breaker on a real broker: what it publishes, appends and remembers."""

import asyncio
import json
import sys
import time
from typing import Any

import pytest

from services.breaker.rebuild import Rebuilt, rebuild
from services.cli.breaker import breaker as breaker_command
from services.cli.errors import WrongUsage
from streams import codec, topics
from streams.connection import Connection
from streams.records import BreakerRow, Event, HandOver, IntegrationState, Marker
from tests.breaking import (
    breaker_at,
    delivered,
    environment_of,
    everything_on,
    integration_of,
    make_result,
    put_results,
    records_on,
    state_on,
)
from tests.logs import PARTITIONS, Log, log_of
from tests.records import make_integration
from tests.waiting import eventually


def failures(count: int, start: int = 0, **changes: Any):
    return [make_result(number, **changes) for number in range(start, start + count)]


async def is_at(connection: Connection, integration: str = "int_1", **wanted: Any) -> IntegrationState:
    """The integration's state as soon as it has these fields."""

    async def state() -> IntegrationState | None:
        found = await state_on(connection, integration)
        return found if found and all(getattr(found, name) == value for name, value in wanted.items()) else None

    found: IntegrationState = await eventually(state, 15)
    return found


async def rebuilt(connection: Connection) -> dict[str, Rebuilt]:
    found = await rebuild(connection, PARTITIONS, lambda _done, _todo: None)
    return {each.integration: each for each in found}


async def rows_on(connection: Connection) -> dict[bytes, bytes]:
    """The newest row of each integration that has one."""
    newest = {key: value for key, value, _ in await everything_on(connection, topics.BREAKER_ROWS)}
    return {key: value for key, value in newest.items() if value is not None}


async def overwrite(log: Log, state: IntegrationState) -> int:
    written = await log.raw(topics.INTEGRATION_STATE, codec.encode(state), state.integration.encode())
    return int(written.offset)


@pytest.mark.alone
async def test_twenty_failures_pause_at_once_and_are_told(connection: Connection):
    async with log_of(connection) as log:
        await log.integration(make_integration())
        async with breaker_at(connection):
            await put_results(log, delivered(0), *failures(19, 1))
            assert (await is_at(connection, consecutive_failures=19)).state == "active"

            started_at = time.monotonic()
            [offset] = await put_results(log, make_result(20))
            state = await is_at(connection, state="paused")
            took_s = time.monotonic() - started_at

        assert took_s < 1
        assert (state.tripped_by_delivery, state.tripped_by_attempt, state.tripped_by_offset) == (
            "dlv_int_1_20", 1, offset,
        )  # fmt: skip
        events = [each for each in await records_on(connection, topics.EVENTS) if isinstance(each, Event)]
        assert [(each.type, each.app) for each in events] == [("tenterhook.integration.paused", "demo")]


async def test_a_booking_is_failing_first(embedded_connection: Connection):
    async with log_of(embedded_connection) as log:
        await log.integration(make_integration("sub_1", profile="booking"))
        async with breaker_at(embedded_connection):
            await put_results(log, *failures(3, integration="sub_1"))
            await is_at(embedded_connection, "sub_1", state="failing")
            await put_results(log, delivered(3, integration="sub_1"), *failures(20, 4, integration="sub_1"))
            await is_at(embedded_connection, "sub_1", state="paused")

        events = [each for each in await records_on(embedded_connection, topics.EVENTS) if isinstance(each, Event)]
        assert [each.type.rpartition(".")[2] for each in events] == ["failing", "paused"]


async def test_an_activation_races_with_the_twentieth_failure(embedded_connection: Connection):
    """The activation is met before the failure of the epoch that it ends; and the one after it starts clean."""
    async with log_of(embedded_connection) as log:
        await log.integration(make_integration())
        async with breaker_at(embedded_connection):
            await put_results(log, *failures(19))
            await is_at(embedded_connection, consecutive_failures=19)
            await log.integration(make_integration(epoch=2, version=2))
            await is_at(embedded_connection, epoch=2, consecutive_failures=0)
            await put_results(log, make_result(19), make_result(20, epoch=2))
            state = await is_at(embedded_connection, applied_offset=20)

        assert (state.state, state.epoch, state.consecutive_failures) == ("active", 2, 1)
        assert not [each for each in await records_on(embedded_connection, topics.EVENTS) if isinstance(each, Event)]


@pytest.mark.kafka
async def test_an_activation_shows_at_once_and_a_late_failure_does_not_undo_it(kafka_connection: Connection):
    async with log_of(kafka_connection) as log:
        await log.integration(make_integration())
        async with breaker_at(kafka_connection):
            await put_results(log, *failures(20))
            await is_at(kafka_connection, state="paused", epoch=1)
            await log.integration(make_integration(epoch=2, version=2))
            await is_at(kafka_connection, state="active", epoch=2)
            await put_results(log, make_result(20), make_result(21))
            state = await is_at(kafka_connection, applied_offset=21)

        assert (state.state, state.epoch, state.consecutive_failures) == ("active", 2, 0)
        assert (await rebuilt(kafka_connection))["int_1"].verdict == "equal"


@pytest.mark.kafka
async def test_a_deleted_integration_leaves_no_row_and_no_state(kafka_connection: Connection):
    async with log_of(kafka_connection) as log:
        await log.integration(make_integration())
        await log.integration(make_integration("int_2"))
        async with breaker_at(kafka_connection):
            await put_results(log, *failures(2), *failures(2, integration="int_2"))
            await is_at(kafka_connection, consecutive_failures=2)
            await is_at(kafka_connection, "int_2", consecutive_failures=2)
            await log.delete("int_1")

            async def is_gone() -> bool:
                return await state_on(kafka_connection, "int_1") is None and set(await rows_on(kafka_connection)) == {
                    b"int_2"
                }

            await eventually(is_gone)
            await put_results(log, make_result(2, outcome="discarded"), make_result(3, integration="int_2"))
            await is_at(kafka_connection, "int_2", consecutive_failures=3)
            assert await is_gone()


async def test_what_is_no_result_is_passed_over(embedded_connection: Connection):
    async with log_of(embedded_connection) as log:
        await log.integration(make_integration())
        marker = Marker(source_topic="deliveries", source_partition=0, generation=3, owner="other", at_ms=0)
        hand_over = HandOver(
            delivery_id="dlv_1", integration="int_1", attempt=1, source_partition=0, source_offset=0,
            source_generation=1, until_ms=0,
        )  # fmt: skip
        broken = codec.encode(make_result())[:40]
        unknown = b"\x00\x7f\xff\xff\x00whatever"
        async with breaker_at(embedded_connection) as probe:
            for value in (codec.encode(marker), codec.encode(hand_over), broken, unknown, b"", b"no avro at all", None):
                await log.raw(topics.RESULTS, value, b"int_1")
            await put_results(log, make_result(0), make_result(1))
            state = await is_at(embedded_connection, consecutive_failures=2)

            assert state.applied_offset == 8
            assert await probe.number("unreadable_total") == 5
            assert await probe.number("results_total") == 2
        assert await everything_on(embedded_connection, topics.QUARANTINE) == []


async def test_numbers_are_published_together_and_come_to_the_end(embedded_connection: Connection):
    async with log_of(embedded_connection) as log:
        await log.integration(make_integration())
        async with breaker_at(embedded_connection):
            for start in range(0, 1_000, 50):
                await put_results(log, *(delivered(number) for number in range(start, start + 50)))
            state = await is_at(embedded_connection, delivered=1_000)
            written = await everything_on(embedded_connection, topics.INTEGRATION_STATE)

        assert (state.ended, state.last_delivery_id, state.applied_offset) == (1_000, "dlv_int_1_999", 999)
        assert len(written) < 20


async def test_a_restart_finds_its_rows_and_counts_on(connection: Connection):
    async with log_of(connection) as log:
        await log.integration(make_integration())
        async with breaker_at(connection):
            await put_results(log, *failures(19))
            await is_at(connection, consecutive_failures=19)
        async with breaker_at(connection):
            await put_results(log, make_result(19))
            state = await is_at(connection, state="paused")

        assert state.consecutive_failures == 20
        assert (await rebuilt(connection))["int_1"].verdict == "equal"


@pytest.mark.kafka
async def test_what_a_frozen_breaker_overwrote_is_published_again(kafka_connection: Connection):
    """An old state is appended behind the newer one: followers keep the newer, and it is written again behind it."""
    async with log_of(kafka_connection) as log:
        await log.integration(make_integration())
        async with breaker_at(kafka_connection):
            await put_results(log, *failures(5))
            old = await is_at(kafka_connection, consecutive_failures=5)
            await put_results(log, *failures(15, 5))
            new = await is_at(kafka_connection, state="paused")
            at = await overwrite(log, old)

            async def is_written_again() -> bool:
                behind = [
                    each for each in await everything_on(kafka_connection, topics.INTEGRATION_STATE) if each[2] > at
                ]
                return bool(behind) and behind[-1][1] == codec.encode(new)

            assert await state_on(kafka_connection, "int_1") == new
            await eventually(is_written_again)


@pytest.mark.kafka
async def test_a_row_that_was_overwritten_is_outlived(kafka_connection: Connection):
    """Of two rows on the changelog the furthest counts, and one that lost results has them folded again."""
    async with log_of(kafka_connection) as log:
        await log.integration(make_integration())
        async with breaker_at(kafka_connection):
            await put_results(log, *failures(5))
            await is_at(kafka_connection, consecutive_failures=5)
            old = (await rows_on(kafka_connection))[b"int_1"]
            await put_results(log, *failures(14, 5))
            await is_at(kafka_connection, consecutive_failures=19)
        partition = log.partition_of(topics.RESULTS, "int_1")
        await log.raw(topics.BREAKER_ROWS, old, b"int_1", partition)
        async with breaker_at(kafka_connection):
            await put_results(log, make_result(19))
            state = await is_at(kafka_connection, state="paused")
        assert (state.consecutive_failures, state.applied_offset) == (20, 19)

        # As after a compaction: the newer row is gone.
        await log.raw(topics.BREAKER_ROWS, None, b"int_1", partition)
        await log.raw(topics.BREAKER_ROWS, old, b"int_1", partition)
        async with breaker_at(kafka_connection):
            await put_results(log, delivered(20))
            state = await is_at(kafka_connection, applied_offset=20)
            assert (state.state, state.tripped_by_offset, state.ended) == ("paused", 19, 1)
            row = codec.decode_as(BreakerRow, (await rows_on(kafka_connection))[b"int_1"])
        assert row.applied_offset == 20


async def verified(connection: Connection) -> tuple[int | None, dict[str, Any]]:
    """Exit code of the command, and what it told, also by integration."""
    command = ("-m", "services.cli", "breaker", "--rebuild", "--verify", "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=environment_of(connection), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    told = json.loads(out)
    return process.returncode, told | {each["integration"]: each for each in told["integrations"]}


async def test_rebuilding_shows_what_is_equal_what_differs_and_what_tripped(embedded_connection: Connection):
    one, other = integration_of(0), integration_of(1)
    async with log_of(embedded_connection) as log:
        for name in (one, other):
            await log.integration(make_integration(name))
            old = make_integration(name, version=0, auto_pause=False)
            await log.raw(topics.CONFIG_HISTORY, codec.encode(old), name.encode())
        async with breaker_at(embedded_connection):
            await put_results(log, *failures(21, integration=one), *failures(2, integration=other))
            tripped = await is_at(embedded_connection, one, consecutive_failures=21)
            paused = await is_at(embedded_connection, other, consecutive_failures=2)
        code, told = await verified(embedded_connection)
        assert (code, told["equal"]) == (0, True)
        assert told[one]["trippedBy"] == {
            "delivery": f"dlv_{one}_19", "attempt": 1, "offset": 19, "at": "2026-01-02T12:00:19.000Z",
        }  # fmt: skip
        assert told[other]["trippedBy"] is None

        await put_results(log, make_result(2, integration=other))
        assert (await verified(embedded_connection))[1][other]["behind"] == 1

        await overwrite(log, IntegrationState(**{**_fields(paused), "consecutive_failures": 7}))
        code, told = await verified(embedded_connection)
        assert (code, told["equal"], told[one]["verdict"], told[other]["verdict"]) == (1, False, "equal", "differs")
        assert told[other]["differences"] == ["consecutive_failures is 7, and the results say 2"]

        await overwrite(log, paused)
        never_armed = {"state": "active", "reason": None, "since_ms": None, "armed_from": None}
        trip = dict.fromkeys(("tripped_by_delivery", "tripped_by_attempt", "tripped_by_offset"))
        await overwrite(log, IntegrationState(**_fields(tripped) | never_armed | trip))
        code, told = await verified(embedded_connection)
        assert (code, told[one]["verdict"], told[other]["verdict"]) == (1, "differs", "equal")
        assert told[one]["differences"][0] == "state is 'active', and the results say 'paused'"


def _fields(state: IntegrationState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__struct_fields__}


def test_verifying_goes_with_rebuilding():
    with pytest.raises(WrongUsage, match="--rebuild"):
        breaker_command(verify=True)
