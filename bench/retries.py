"""
What waiting retries cost, and how exactly they come back.

A dispatcher of its own process, idle; then so many retry records over so many integrations are written to the long
retry topics, as the lanes write them: the first of them due one after another in the near future, the others hours
later. In the middle of their coming back the dispatcher is killed with `kill -9` and started anew. Their integrations
are not configured, so a lane ends each (`discarded`) without a request: the lines are measured, not an endpoint.
"""

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.stage import PARTITIONS, Stage, stage
from services.dispatcher.put_back import HEADER
from streams import codec, topics
from streams.delay_lines import PLACES
from streams.records import Delivery, Result

Say = Callable[[str], None]

#: Lines whose waits are longer than a run: what stands there leaves when it is due.
LINES: Final = tuple(place for place in PLACES if place.line in topics.RETRIES[-3:])

#: Records that are on their way to the broker at once while the run is prepared.
_UNDER_WAY: Final = 5_000

#: After the restarted worker is ready: what is due later than this was not held up by the kill.
_RECOVERED_MS: Final = 2_000

#: When the others are due: after any run.
_LATER_MS: Final = 4 * 3_600_000

_PAYLOAD_BYTES: Final = 400


def measure(bootstrap: str, *, retries: int, due: int, integrations: int, per_s: float, say: Say) -> dict[str, Any]:
    """One run; *due*: how many of the retries come back within it."""
    with tempfile.TemporaryDirectory(prefix="tenterhook-bench-") as folder:
        return asyncio.run(_measure(bootstrap, Path(folder), retries, min(due, retries), integrations, per_s, say))


async def _measure(
    bootstrap: str, folder: Path, retries: int, due: int, integrations: int, per_s: float, say: Say
) -> dict[str, Any]:
    async with stage(bootstrap, folder / "retries") as run:
        worker = await run.dispatcher()
        await run.ready()
        await asyncio.sleep(5)
        idle_mb = run.rss_mb(worker)
        # Writing takes a while, and nothing is due before it is over.
        first_due_ms = _now_ms() + 15_000 + retries // 8
        span_ms = int(due / per_s * 1_000)
        wrote_s = await _write(run, retries, due, integrations, first_due_ms, span_ms)
        say(f"{retries:,} retries written in {wrote_s:.0f} s")
        back = _Back()
        reading = asyncio.create_task(back.read(run))
        await asyncio.sleep(max(5.0, (first_due_ms - _now_ms()) / 1_000 - 2))
        waiting_mb = run.rss_mb(worker)
        say(f"idle {idle_mb:.0f} MB, all waiting {waiting_mb:.0f} MB")
        if _now_ms() > first_due_ms:
            say("writing took longer than planned: the first ones were due before all were written")

        cpu_s, began_s = run.cpu_s(worker), time.monotonic()
        most_mb = await _watch(run, worker, first_due_ms + span_ms // 2)
        cores = (run.cpu_s(worker) - cpu_s) / (time.monotonic() - began_s)
        load = os.getloadavg()[0]
        say(f"the dispatcher used {cores:.2f} cores, the machine's load is {load:.1f}")
        worker.kill()
        worker.wait()
        run.ports.pop(0)
        killed_ms = _now_ms()
        worker = await run.dispatcher()
        await run.ready()
        ready_ms = _now_ms()
        say(f"killed, and ready again after {(ready_ms - killed_ms) / 1_000:.1f} s")
        most_again_mb = await _watch(run, worker, first_due_ms + span_ms + 3_000)
        while len(back.errors) < due and _now_ms() < first_due_ms + span_ms + 120_000:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        await asyncio.sleep(2)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    recovered_ms = ready_ms + _RECOVERED_MS
    errors = back.errors
    return {
        "retries": retries,
        "due": due,
        "integrations": integrations,
        "perS": per_s,
        "idleMb": idle_mb,
        "waitingMb": waiting_mb,
        "mostMb": max(most_mb, most_again_mb),
        "cores": cores,
        "load": load,
        "readyAgainS": (ready_ms - killed_ms) / 1_000,
        "before": _figures([error for due, error in errors.values() if due < killed_ms - 1_000]),
        "kill": _figures([error for due, error in errors.values() if killed_ms - 1_000 <= due < recovered_ms]),
        "after": _figures([error for due, error in errors.values() if due >= recovered_ms]),
        "toLane": _figures([late for id_, late in back.starts.items() if errors[id_][0] < killed_ms - 1_000]),
        "lost": due - len(errors),
        "repeated": sum(count - 1 for count in back.origins.values()),
    }


def summary(found: dict[str, Any]) -> list[str]:
    """For people."""
    idle_mb, waiting_mb, most_mb = found["idleMb"], found["waitingMb"], found["mostMb"]
    lines = [
        (
            f"{found['retries']:,} retries of {found['integrations']:,} integrations, {found['due']:,} of them due at"
            f" {found['perS']:,.0f} a second"
        ),
        f"  idle {idle_mb:.0f} MB, all waiting +{waiting_mb - idle_mb:.0f} MB, most +{most_mb - idle_mb:.0f} MB",
    ]
    for name, what in (("before", "before the kill"), ("kill", "around it"), ("after", "after it")):
        one = found[name]
        lines.append(
            f"  {what:16} earliest {one['earliestMs']:,} ms, p50 {one['p50Ms']:,}, p99 {one['p99Ms']:,},"
            f" latest {one['latestMs']:,} ms of {one['count']:,}"
        )
    lane = found["toLane"]
    lines.append(
        f"  a request would start p50 {lane['p50Ms']:,} ms, p99 {lane['p99Ms']:,} ms after due (before the kill)"
    )
    lines.append(
        f"  ready {found['readyAgainS']:.1f} s after kill -9; {found['lost']} lost, {found['repeated']} repeated"
    )
    return lines


class _Back:
    """What came back onto `deliveries`."""

    def __init__(self) -> None:
        #: By delivery: when it was due, and how much later it stood there, by the first time.
        self.errors: dict[str, tuple[int, int]] = {}
        #: How often each retry record was put back.
        self.origins: Counter[bytes] = Counter()
        #: By delivery: how much later than due the lane had it, where a request would start.
        self.starts: dict[str, int] = {}

    async def read(self, run: Stage) -> None:
        partitions = [
            TopicPartition(run.connection.topic(topic), number)
            for topic in (topics.DELIVERIES, topics.RESULTS)
            for number in range(PARTITIONS.by_integration)
        ]
        reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
            bootstrap_servers=run.connection.bootstrap, auto_offset_reset="earliest"
        )
        await reader.start()
        try:
            reader.assign(partitions)
            while True:
                for records in (await reader.getmany(timeout_ms=500, max_records=2_000)).values():
                    for record in records:
                        self._see(record)
        finally:
            await reader.stop()

    def _see(self, record: Any) -> None:
        if record.topic.endswith(topics.RESULTS.name):
            result = codec.decode(record.value)
            if isinstance(result, Result) and result.delivery_id in self.errors:
                self.starts.setdefault(result.delivery_id, result.started_at_ms - self.errors[result.delivery_id][0])
            return
        origin = dict(record.headers).get(HEADER)
        if origin is None:
            return
        self.origins[origin.rpartition(b"/")[0]] += 1
        delivery = codec.decode_as(Delivery, record.value)
        due_ms = delivery.due_at_ms or 0
        self.errors.setdefault(delivery.delivery_id, (due_ms, record.timestamp - due_ms))


async def _write(run: Stage, retries: int, due: int, integrations: int, first_due_ms: int, span_ms: int) -> float:
    """As `Retries.put` does it, each partition in the order of due times."""
    began = time.monotonic()
    like = Delivery(
        delivery_id="", integration="", app="bench", record_id="rec_0", event_id="evt_0", type="call_ended",
        payload=b'{"fill": "%s"}' % (b"x" * _PAYLOAD_BYTES), occurred_at_ms=0, accepted_at_ms=0, attempt=2,
        config_offset=-1, source_partition=0, source_offset=0, source_generation=1,
    )  # fmt: skip
    under_way: list[Any] = []
    for number in range(retries):
        place = LINES[number % len(LINES)]
        delivery = msgspec.structs.replace(
            like,
            delivery_id=f"dlv_{number:032x}",
            integration=f"int_{number % integrations:032x}",
            source_offset=number,
            due_at_ms=first_due_ms + (number * span_ms // due if number < due else _LATER_MS + number),
        )
        topic, key = run.connection.topic(place.line), b"%d" % place.partition
        under_way.append(await run.producer.send(topic, codec.encode(delivery), key=key, partition=place.partition))
        if len(under_way) == _UNDER_WAY:
            await asyncio.gather(*under_way)
            under_way.clear()
    await asyncio.gather(*under_way)
    return time.monotonic() - began


async def _watch(run: Stage, worker: Any, until_ms: int) -> float:
    """The most memory until then."""
    most_mb = run.rss_mb(worker)
    while _now_ms() < until_ms:
        await asyncio.sleep(0.5)
        most_mb = max(most_mb, run.rss_mb(worker))
    return most_mb


def _figures(errors_ms: list[int]) -> dict[str, int]:
    errors_ms.sort()
    if not errors_ms:
        return {"count": 0, "earliestMs": 0, "p50Ms": 0, "p99Ms": 0, "latestMs": 0}
    count = len(errors_ms)
    return {
        "count": count,
        "earliestMs": errors_ms[0],
        "p50Ms": errors_ms[count // 2],
        "p99Ms": errors_ms[min(count * 99 // 100, count - 1)],
        "latestMs": errors_ms[-1],
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
