"""A record that kills its process, and a release that raises for every second record: neither drains the log."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.connection import Connection
from tests.integration.test_engine import Aside, Working, committed, running
from tests.waiting import eventually

WORKER = Path(__file__).parent / "workers" / "poisoned.py"
PARTITIONS = 2


async def made(connection: Connection, records: dict[int, list[bytes]]) -> str:
    """The topic of that many partitions, with these records."""
    name = f"{connection.prefix}work"
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=connection.bootstrap, acks="all")
    await producer.start()
    for partition, values in records.items():
        for value in values:
            await producer.send(name, value, partition=partition)
    await producer.stop()
    return name


@pytest.mark.kafka
async def test_a_record_that_kills_is_tried_alone_then_put_aside_and_the_rest_goes_on(
    kafka_connection: Connection, tmp_path: Path
):
    good = [b"%d" % number for number in range(40)]
    await made(kafka_connection, {0: [*good[:10], b"poison", *good[10:20]], 1: good[20:]})
    output = tmp_path / "said"
    output.touch()

    def said() -> list[str]:
        return output.read_text().splitlines()

    deaths = 0
    while not any(line.startswith("aside") for line in said()) and deaths < 9:
        worker = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, str(WORKER), kafka_connection.bootstrap, kafka_connection.prefix, str(output)],
            cwd=Path(__file__).parents[2],
        )
        try:
            await eventually(
                lambda worker=worker: worker.poll() is not None or any(line.startswith("aside") for line in said()), 60
            )
            if worker.poll() is None:
                await eventually(lambda: {f"done {each.decode()}" for each in good} <= set(said()), 30)
                await asyncio.sleep(0.5)  # some commit intervals
            else:
                deaths += 1
        finally:
            worker.kill()
            worker.wait()
    told = said()

    assert [line for line in told if line.startswith("aside")] == [
        "aside poison record.fatal 5 workers ended while it was the first of its partition, the last 3 with it alone"
    ]
    assert {f"done {each.decode()}" for each in good} <= set(told)
    # Five die with it first; before that, one may have died with records before it not committed yet, and two more
    # with those first.
    assert 5 <= deaths <= 7, told
    last = len(told) - told[::-1].index("died") - 1
    assert told[last - 1] == "batch 0 1", "alone"


@pytest.mark.kafka
async def test_a_release_that_raises_for_every_second_record_stops_the_partition(kafka_connection: Connection):
    topic = await made(kafka_connection, {0: [b"%d" % number for number in range(200)], 1: [b"1000"]})

    def work(value: bytes) -> None:
        if int(value) % 2:
            raise ZeroDivisionError

    bad, aside = Working(lambda value: work(value) if int(value) < 1_000 else None), Aside()
    async with running(kafka_connection, bad, aside) as app:
        await eventually(lambda: app.stopped)
        await eventually(lambda: b"1000" in bad.seen)
        assert app.stopped == f"too many records raise, so nothing is done on partitions {topic} 0"
        await asyncio.sleep(0.3)
        done = len(bad.seen)
    offset, metadata = await committed(kafka_connection, topic)

    assert aside.records == []
    assert done <= 12
    assert (offset, metadata) == (1, "floor of 0"), "the first that raised is kept, and all behind it"

    better = Working()
    async with running(kafka_connection, better):
        await eventually(lambda: len(better.seen) >= 199)
    assert better.seen[0] == b"1"


@pytest.mark.kafka
async def test_a_worker_that_settles_leaves_no_mark_and_one_that_works_does(kafka_connection: Connection):
    topic = await made(kafka_connection, {0: [b"a", b"b"]})
    first = Working(finishes=False)
    async with running(kafka_connection, first):
        await eventually(lambda: len(first.open) == 2)
        at_work = await committed(kafka_connection, topic)
        first.open[0][0].finish(0)
        await eventually(lambda: first.open[0][0].unfinished()[0].offset == 1)
        await asyncio.sleep(0.3)
        progressed = await committed(kafka_connection, topic)
    settled = await committed(kafka_connection, topic)

    assert [at_work, progressed, settled] == [(0, "u0|floor of 0"), (1, "u0|floor of 0"), (1, "floor of 0")]
    assert TopicPartition(topic, 0)
