"""
An app with a table, through kills and rebalances.

The model: three workers count records per key in a table of ours whose rows remember the last offset they applied;
workers are stopped with SIGTERM and SIGKILL and start again while records come. Claims:

1. every record is processed by some worker (Faust's recovery commits over records on its own consumer);
2. every row's count is the number of records of its key, however often some were read again.
"""

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.connection import Connection
from tests.waiting import eventually

WORKER = Path(__file__).parent / "workers" / "counting.py"
PARTITIONS = 4
SEED = 20261122


async def make_topics(connection: Connection) -> tuple[str, str]:
    source, changelog = f"{connection.prefix}source", f"{connection.prefix}counter-counts-changelog"
    admin = AIOKafkaAdminClient(bootstrap_servers=connection.bootstrap)
    await admin.start()
    compacted = NewTopic(changelog, PARTITIONS, 1, topic_configs={"cleanup.policy": "compact"})
    await admin.create_topics([NewTopic(source, PARTITIONS, 1), compacted])
    await admin.close()
    return source, changelog


async def rows(connection: Connection, changelog: str) -> dict[bytes, int]:
    """The table as its changelog has it: key to count."""
    reader = AIOKafkaConsumer(bootstrap_servers=connection.bootstrap, auto_offset_reset="earliest")
    await reader.start()
    try:
        partitions = [TopicPartition(changelog, number) for number in range(PARTITIONS)]
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        found: dict[bytes, int] = {}
        for partition in partitions:
            while await reader.position(partition) < ends[partition]:
                for records in (await reader.getmany(timeout_ms=200)).values():
                    found.update({record.key: int(record.value.split()[0]) for record in records})
        return found
    finally:
        await reader.stop()


@pytest.mark.kafka
async def test_nothing_is_lost_and_every_row_is_exact(kafka_connection: Connection, tmp_path: Path):
    chance = random.Random(SEED)
    source, changelog = await make_topics(kafka_connection)
    journal = tmp_path / "journal"
    journal.touch()

    def start() -> subprocess.Popen[bytes]:
        arguments = [kafka_connection.bootstrap, kafka_connection.prefix, source, str(journal)]
        with (tmp_path / "workers.log").open("ab") as log:
            return subprocess.Popen([sys.executable, str(WORKER), *arguments], stdout=log, stderr=log)

    truth: Counter[bytes] = Counter()
    is_over = asyncio.Event()

    async def feed() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka_connection.bootstrap, acks="all")
        await producer.start()
        while not is_over.is_set():
            key = b"key-%d" % chance.randrange(50)
            await producer.send_and_wait(source, b"%d" % truth.total(), key=key)
            truth[key] += 1
            await asyncio.sleep(0.005)
        await producer.stop()

    workers = [start() for _ in range(3)]
    feeding = asyncio.create_task(feed())
    try:
        await eventually(lambda: journal.stat().st_size > 0, 30)
        for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            before = journal.stat().st_size
            victim = chance.randrange(3)
            workers[victim].send_signal(how)
            await asyncio.to_thread(workers[victim].wait, 30)
            workers[victim] = start()
            await eventually(lambda before=before: journal.stat().st_size > before + 500, 40)
        is_over.set()
        await feeding
        await eventually(lambda: len(set(journal.read_text().split())) == truth.total(), 40)
        for worker in workers:
            worker.terminate()
        codes = [await asyncio.to_thread(worker.wait, 30) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()

    assert set(journal.read_text().split()) == {str(number) for number in range(truth.total())}
    assert await rows(kafka_connection, changelog) == dict(truth)
    # The last one to be started may still have been importing.
    assert set(codes) <= {0, -signal.SIGTERM}
