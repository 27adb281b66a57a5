"""
Breakers that are killed, frozen and joined by others, while results come.

The model: two breakers count the results of some integrations; they are killed, start again, and one sleeps longer than
its session lasts. Claims:

1. in the end every state is the fold of all its results, and every row on the changelog too;
2. what a breaker writes that froze and woke is never newer in any follower than what its successor wrote.
"""

import asyncio
import random
import signal
from pathlib import Path

import pytest

from services.breaker.fold import fold, rules_of, state_of
from streams import codec, topics
from streams.connection import Connection
from streams.records import BreakerRow, IntegrationState, Result
from tests.breaking import BreakerProcess, delivered, everything_on, make_result, put_results, records_on, states_on
from tests.logs import Log, log_of
from tests.records import make_integration
from tests.waiting import eventually

SEED = 20261122
CONFIGS = {f"int_{number}": make_integration(f"int_{number}") for number in range(12)}


class Feeding:
    """Results, a few at a time, until told to stop; some integrations fail for long."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._chance = random.Random(SEED)
        self._is_over = asyncio.Event()
        self.count = 0
        self._task = asyncio.create_task(self._feed())

    async def _feed(self) -> None:
        while not self._is_over.is_set():
            await put_results(self._log, *(self._next() for _ in range(self._chance.randrange(1, 6))))
            await asyncio.sleep(0.02)

    def _next(self) -> Result:
        self.count += 1
        name = self._chance.choice(list(CONFIGS))
        is_sick = int(name[4:]) % 3 == 0
        ended = self._chance.choice([None, "exhausted", "rejected"])
        return (
            make_result(self.count, name, outcome=ended)
            if is_sick or self._chance.random() < 0.5
            else delivered(self.count, name)
        )

    async def end(self) -> None:
        self._is_over.set()
        await self._task


async def truth_of(connection: Connection) -> dict[str, IntegrationState]:
    """The fold of everything that is on `delivery-results`."""
    rows: dict[str, BreakerRow] = {}
    for _, value, offset in await everything_on(connection, topics.RESULTS):
        result = codec.decode(value)
        if isinstance(result, Result):
            rows[result.integration] = fold(
                rows.get(result.integration), result, offset, rules_of(CONFIGS[result.integration])
            )
    return {name: state_of(row, CONFIGS[name]) for name, row in rows.items()}


async def all_is_folded(connection: Connection) -> bool:
    states = await states_on(connection)
    return {state.integration: state for state in states.all()} == await truth_of(connection)


async def rows_on(connection: Connection) -> dict[str, IntegrationState]:
    newest = {}
    for row in await records_on(connection, topics.BREAKER_ROWS):
        if isinstance(row, BreakerRow):
            newest[row.integration] = state_of(row, CONFIGS[row.integration])
    return newest


async def progress(connection: Connection) -> int:
    """Results that are in some state."""
    return sum(state.applied_offset for state in (await states_on(connection)).all())


async def goes_on(connection: Connection, by: int, within_s: float = 40.0) -> None:
    before = await progress(connection)

    async def has_gone_on() -> bool:
        return await progress(connection) > before + by

    await eventually(has_gone_on, within_s)


async def configured(log: Log) -> None:
    for config in CONFIGS.values():
        await log.integration(config)


@pytest.mark.kafka
async def test_states_are_the_fold_of_their_results_through_kills(kafka_connection: Connection, tmp_path: Path):
    chance = random.Random(SEED)
    async with log_of(kafka_connection) as log:
        await configured(log)
        breakers = [BreakerProcess(kafka_connection, tmp_path / "breakers.log") for _ in range(2)]
        for each in breakers:
            each.start()
        feeding = Feeding(log)
        try:
            await goes_on(kafka_connection, 20)
            for _ in range(4):
                victim = chance.choice(breakers)
                await asyncio.sleep(chance.random())
                victim.kill()
                victim.start()
                await goes_on(kafka_connection, 100)
            await feeding.end()

            async def is_folded() -> bool:
                return await all_is_folded(kafka_connection)

            await eventually(is_folded, 40)
            assert await rows_on(kafka_connection) == await truth_of(kafka_connection)
            for each in breakers:
                each.process.send_signal(signal.SIGTERM)
            codes = [await asyncio.to_thread(each.process.wait, 30) for each in breakers]
        finally:
            await feeding.end()
            for each in breakers:
                each.kill()
    assert {state.state for state in (await states_on(kafka_connection)).all()} == {"active", "paused"}
    assert codes == [0, 0]


@pytest.mark.kafka
async def test_a_breaker_that_froze_overwrites_nothing(kafka_connection: Connection, tmp_path: Path):
    async with log_of(kafka_connection) as log:
        await configured(log)
        frozen, other = (BreakerProcess(kafka_connection, tmp_path / f"{name}.log") for name in ("frozen", "other"))
        frozen.start()
        feeding = Feeding(log)
        try:
            await goes_on(kafka_connection, 50)
            frozen.process.send_signal(signal.SIGSTOP)
            other.start()
            await goes_on(kafka_connection, 200)
            frozen.process.send_signal(signal.SIGCONT)
            await goes_on(kafka_connection, 200)
            await feeding.end()

            async def is_folded() -> bool:
                return await all_is_folded(kafka_connection)

            await eventually(is_folded, 40)
            last = {state.integration: state for state in await records_on(kafka_connection, topics.INTEGRATION_STATE)}
            assert last == await truth_of(kafka_connection), "the last record of each is the furthest one"
            assert await rows_on(kafka_connection) == await truth_of(kafka_connection)
        finally:
            await feeding.end()
            for each in (frozen, other):
                if each.process.poll() is None:
                    each.process.send_signal(signal.SIGCONT)
                each.kill()
