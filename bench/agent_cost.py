"""
What Faust costs a record: its own consumer and agents, and ours in batches, side by side.

Each round fills a topic, then lets a worker process of each kind consume it, on the same broker, one after the
other; the worker reports its own CPU time from the first record to the last.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
import uuid
from typing import Any

import faust
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

PARTITIONS = 4
VALUE = b"v" * 1_024


async def fill(bootstrap: str, topic: str, records: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    await producer.start()
    for start in range(0, records, 2_000):
        numbers = range(start, min(start + 2_000, records))
        sent = [await producer.send(topic, VALUE, partition=number % PARTITIONS) for number in numbers]
        await asyncio.gather(*sent)
    await producer.stop()


class Meter:
    """CPU and wall time from the first record to the last."""

    def __init__(self, records: int) -> None:
        self._left = records
        self._records = records
        self._started: tuple[float, float] | None = None
        self.done = asyncio.Event()
        self.report: dict[str, float] = {}

    def count(self, records: int) -> None:
        if self._started is None:
            self._started = time.process_time(), time.perf_counter()
        self._left -= records
        if self._left <= 0 and not self.done.is_set():
            cpu, wall = time.process_time() - self._started[0], time.perf_counter() - self._started[1]
            self.report = {"cpu_us": cpu / self._records * 1e6, "per_s": self._records / wall}
            self.done.set()


async def consume(kind: str, bootstrap: str, topic: str, records: int) -> dict[str, float]:
    meter = Meter(records)
    app = stock(bootstrap, topic, meter) if kind == "stock" else ours(bootstrap, topic, meter)
    await app.start()
    await meter.done.wait()
    await app.stop()
    return meter.report


def stock(bootstrap: str, topic: str, meter: Meter) -> Any:
    app = faust.App(
        f"bench-{uuid.uuid4().hex}", broker=f"kafka://{bootstrap}", topic_disable_leader=True,
        topic_allow_declare=False, web_enabled=False, autodiscover=False, consumer_auto_offset_reset="earliest",
        datadir=tempfile.mkdtemp(),
    )  # fmt: skip

    @app.agent(app.topic(topic, value_type=bytes, value_serializer="raw"), name="bench")
    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            meter.count(1)
            event.ack()

    return app


def ours(bootstrap: str, topic: str, meter: Meter) -> Any:
    from streams.connection import Connection
    from streams.engine.app import SafeApp

    class Counting:
        async def take_over(self, assignment: Any) -> None: ...
        async def settle(self, timeout_s: float) -> None: ...

        def floor(self, partition: int) -> str:
            return ""

        async def process(self, batch: Any) -> None:
            meter.count(len(batch.records))
            for record in batch.records:
                batch.finish(record.offset)

    async def put_aside(*_: Any) -> None:
        raise AssertionError("nothing raises here")

    app = SafeApp("bench", Connection(bootstrap, f"{uuid.uuid4().hex}."), put_aside=put_aside)
    app.add_processor(topic, Counting(), name="bench")
    return app


def run_round(bootstrap: str, records: int) -> dict[str, dict[str, float]]:
    topic = f"bench-{uuid.uuid4().hex}"
    asyncio.run(fill(bootstrap, topic, records))
    found = {}
    for kind in ("stock", "ours"):
        command = [sys.executable, "-m", "bench.agent_cost", kind, bootstrap, topic, str(records)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[kind] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(bootstrap: str, rounds: int = 3, records: int = 20_000) -> list[dict[str, dict[str, float]]]:
    return [run_round(bootstrap, records) for _ in range(rounds)]


if __name__ == "__main__":
    kind, bootstrap, topic, records = sys.argv[1:]
    import uvloop

    runner = uvloop.run if kind == "ours" else asyncio.run
    print(json.dumps(runner(consume(kind, bootstrap, topic, int(records)))))
