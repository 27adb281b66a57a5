"""
What waiting retries cost, and how exactly they come back.

A dispatcher of its own process, idle; then so many retry records over so many integrations are written to the long
retry topics, as the lanes write them: the first of them due one after another in the near future, the others hours
later. Each that comes back is a request to an endpoint that answers at once. In the middle of it the dispatcher is
killed with `kill -9` and started anew, under the name that it had in its group, as a pod or a unit of systemd would be.
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

#: What the worker is called in its group.
_INSTANCE: Final = "bench-0"

#: What `summary` shows of a run, and how it says it.
_SHOWN: Final = (
    ("before", "back, due before the kill"),
    ("kill", "back, due around it"),
    ("after", "back, due after it"),
    ("all", "back, all"),
    ("requestsBefore", "request started, due before it"),
    ("requestsAfter", "request started, due after it"),
    ("requestsAll", "request started, all"),
)


def measure(bootstrap: str, *, retries: int, due: int, integrations: int, per_s: float, say: Say) -> dict[str, Any]:
    """One run; *due*: how many of the retries come back within it."""
    with tempfile.TemporaryDirectory(prefix="tenterhook-bench-") as folder:
        return asyncio.run(_measure(bootstrap, Path(folder), retries, min(due, retries), integrations, per_s, say))


async def _measure(
    bootstrap: str, folder: Path, retries: int, due: int, integrations: int, per_s: float, say: Say
) -> dict[str, Any]:
    async with stage(bootstrap, folder / "retries") as run:
        for number in range(integrations):
            await run.integration(_name(number, integrations), "fast", auto_pause=False)
        worker = await run.dispatcher(instance_id=_INSTANCE)
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
        worker = await run.dispatcher(instance_id=_INSTANCE)
        await run.ready()
        ready_ms = _now_ms()
        say(f"killed, and ready again after {(ready_ms - killed_ms) / 1_000:.1f} s")
        most_again_mb = await _watch(run, worker, first_due_ms + span_ms + 3_000)
        while len(back.started_ms) < due and _now_ms() < first_due_ms + span_ms + 120_000:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        await asyncio.sleep(2)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    recovered_ms = ready_ms + _RECOVERED_MS
    errors, requests = back.errors, back.requests()
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
        "all": _figures([error for _, error in errors.values()]),
        "requestsBefore": _figures([late for due, late in requests if due < killed_ms - 1_000]),
        "requestsAfter": _figures([late for due, late in requests if due >= recovered_ms]),
        "requestsAll": _figures([late for _, late in requests]),
        "lost": due - len(requests),
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
    for name, what in _SHOWN:
        one = found[name]
        lines.append(
            f"  {what:32} earliest {one['earliestMs']:,} ms, p50 {one['p50Ms']:,}, p99 {one['p99Ms']:,},"
            f" latest {one['latestMs']:,} ms of {one['count']:,}"
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
        #: By delivery: when its request started, by the first time.
        self.started_ms: dict[str, int] = {}

    def requests(self) -> list[tuple[int, int]]:
        """Of each whose request has started: when it was due, and how much later that was."""
        dues = ((id_, self.errors[id_][0]) for id_ in self.started_ms.keys() & self.errors.keys())
        return [(due_ms, self.started_ms[id_] - due_ms) for id_, due_ms in dues]

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
            if isinstance(result, Result):
                self.started_ms.setdefault(result.delivery_id, result.started_at_ms)
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
            integration=_name(number, integrations),
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


def _name(number: int, integrations: int) -> str:
    """Of the integration that retry of this number belongs to."""
    return f"int_{number % integrations:032x}"


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
