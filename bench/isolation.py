"""
What one unwell endpoint costs the others: each scenario beside a run without it, in one round on one broker.

- `hang`: one of ten endpoints hangs, once with auto-pause off and once on.
- `stock`: the same with a stock Faust app, which posts one delivery after another.
- `unwell`: one of ten endpoints drips its answers, resets its connections, floods its answers. Fails when anything for
  the nine is missing.
- `behind`: one integration is thousands of events behind and catches up, in order and without.
- `slow`: many slow integrations, each behind by its own amount, beside healthy ones.
- `trip`: an endpoint fails until the breaker pauses it: what is in flight then, and when does the last request start?
"""

import asyncio
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count as versions
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.stage import PARTITIONS, Arrival, Stage, stage
from bench.stock import AS_OURS, Stock
from schemas.profiles import PAUSED_AFTER, Ordering
from streams import codec, topics
from streams.records import IntegrationState, Result

Say = Callable[[str], None]

#: Shares of sorted latencies.
_P50: Final = 0.50
_P99: Final = 0.99
#: How long the run without a fault is at most, seconds.
_HEALTHY_S: Final = 180
#: How long what was sent may take to come after the last of it was sent, seconds.
_COMES_S: Final = 30

#: Numbers of the events that warm up.
_WARM: Final = range(-300, 0)

#: What the tenth endpoint of `unwell` does, one after the other. See `endpoints.py`.
UNWELL: Final = ("drip", "reset", "flood")
#: Requests that it has at once: it is to have the means to harm.
_UNWELL_IN_FLIGHT: Final = 50
#: Latency counts from so many seconds on: the first record of each partition of a retry topic costs the broker 45 to
#: 190 ms, once.
_UNWELL_AFTER_S: Final = 30

#: How long the others of `behind` are watched while it waits, and as long while it catches up, at most: their p99 is
#: that of 1 in 100 events, and in 20 s a single pause of the machine makes it.
_WATCHED_S: Final = 60
#: In so many parts of each, by turns: the machine is faster at one time than at another, by more than what is looked
#: for. A part begins so long after it was paused or activated.
_PARTS: Final = 4
_SETTLES_S: Final = 1.5
#: What a line starts a second beside others, and more.
_CATCHES_UP_PER_S: Final = 1_200

#: The backlogs of `slow`: groups of events, how many are in each, and how many in the last.
_GROUPS: Final = 40
_IN_GROUP: Final = 10
_IN_LAST_GROUP: Final = 40
#: Events a second to those that are well, beside slow ones.
_BESIDE_SLOW_PER_S: Final = 2
#: How many of the slow are paused or activated at once, and how long it takes until all do as they do in that state:
#: requests under way end; what waits is read again for each.
_CHANGED_AT_ONCE: Final = 50
_SLOW_SETTLE_S: Final = {"paused": 8, "active": 25}


class Missing(Exception):
    """Not everything came to the endpoints that were well."""


def at(latencies: list[float], share: float) -> float:
    """That percentile of sorted values."""
    return latencies[min(int(len(latencies) * share), len(latencies) - 1)] if latencies else float("nan")


def figures(latencies: list[float]) -> dict[str, float]:
    return {"p50Ms": at(latencies, _P50), "p99Ms": at(latencies, _P99), "count": len(latencies)}


def missing(arrivals: Iterable[Arrival], names: Iterable[str], numbers: Iterable[int]) -> dict[str, int]:
    """How many of these events have not come to each of these integrations; who has all of them is left out."""
    wanted, came = set(numbers), defaultdict[str, set[int]](set)
    for each in arrivals:
        came[each.integration].add(each.number)
    left = {name: len(wanted - came[name]) for name in names}
    return {name: count for name, count in left.items() if count}


async def settle(run: Stage) -> None:
    """Warm up: connections, caches, Java."""
    await run.at_a_pace(_WARM, 100, "warm")


async def hang(bootstrap: str, folder: Path, say: Say, *, seconds: float = 60, per_s: float = 50) -> dict[str, Any]:
    """Ten integrations, all healthy; then the tenth hangs with auto-pause off; then on."""
    found: dict[str, Any] = {}
    for name, behaviour, auto_pause in (("healthy", "fast", False), ("hangs", "hang", False), ("paused", "hang", True)):
        async with stage(bootstrap, folder / f"hang-{name}") as run:
            names = [f"int_{number}" for number in range(9)]
            for each in names:
                await run.integration(each, "fast")
            await run.integration("int_ill", behaviour, is_apart=True, auto_pause=auto_pause)
            worker = await run.dispatcher()
            await run.breaker()
            await run.ready()
            await settle(run)
            before_mb, before_s = run.rss_mb(worker), run.cpu_s(worker)
            # Without a fault a few minutes say what its percentiles are.
            numbers = range(int((min(seconds, _HEALTHY_S) if name == "healthy" else seconds) * per_s))
            await run.at_a_pace(numbers, per_s)
            await run.come({each: len(numbers) + 300 for each in names}, 30)
            found[name] = figures(run.latencies_ms(names, numbers)) | {
                "grownMb": run.rss_mb(worker) - before_mb,
                "cpuS": run.cpu_s(worker) - before_s,
                "sentToIll": sum(each.integration == "int_ill" for each in run.arrivals()),
            }
            say(f"hang, {name}: {found[name]}")
    for name in ("hangs", "paused"):
        found[name]["ratioP99"] = found[name]["p99Ms"] / found["healthy"]["p99Ms"]
    return found


async def stock(bootstrap: str, folder: Path, say: Say, *, seconds: float = 60, per_s: float = 50) -> dict[str, Any]:
    """Ten endpoints of a stock Faust app with tenterhook's timeouts, all healthy; then the tenth hangs."""
    found: dict[str, Any] = {}
    for name, behaviour in (("healthy", "fast"), ("hangs", "hang")):
        async with stage(bootstrap, folder / f"stock-{name}") as run:
            names = [f"int_{number}" for number in range(9)]
            urls = {each: f"{run.endpoints}/fast/{each}" for each in names}
            app = Stock(run, urls | {"int_ill": f"{run.endpoints_apart}/{behaviour}/int_ill"}, AS_OURS, table=False)
            await app.make_topics()
            await app.start(0)
            await run.send(_WARM.start)
            await run.come(dict.fromkeys(names, 1), 2 * _COMES_S)
            numbers = range(int(seconds * per_s))
            await run.at_a_pace(numbers, per_s)
            await asyncio.sleep(_COMES_S)
            arrivals = run.arrivals()
            found[name] = figures(run.latencies_ms(names, numbers)) | {
                "sent": len(names) * len(numbers),
                "missing": missing(arrivals, names, numbers),
                "sentToIll": sum(each.integration == "int_ill" for each in arrivals),
            }
            say(f"stock, {name}: {found[name]}")
    return found


async def unwell(bootstrap: str, folder: Path, say: Say, *, seconds: float = 45, per_s: float = 50) -> dict[str, Any]:
    """
    Ten integrations, all healthy; then the tenth drips, then resets, then floods. It is never paused.

    Args:
        seconds: of each that latency is taken of; it begins `_UNWELL_AFTER_S` earlier.

    Raises:
        Missing: an event had not come to each of the nine half a minute after the last one was sent. All is measured
            and said before that.
    """
    found: dict[str, Any] = {}
    names = [f"int_{number}" for number in range(9)]
    numbers = range(int((_UNWELL_AFTER_S + seconds) * per_s))
    for name, behaviour in (("healthy", "fast"), *((each, each) for each in UNWELL)):
        async with stage(bootstrap, folder / f"unwell-{name}") as run:
            for each in names:
                await run.integration(each, "fast")
            await run.integration(
                "int_ill",
                behaviour,
                is_apart=True,
                ordering="none",
                max_in_flight=_UNWELL_IN_FLIGHT,
                auto_pause=False,
            )
            worker = await run.dispatcher()
            await run.breaker()
            await run.ready()
            await settle(run)
            before_mb, before_s, began = run.rss_mb(worker), run.cpu_s(worker), time.monotonic()
            most = await most_mb(run, worker, _send_and_wait(run, numbers, per_s, names))
            cores = (run.cpu_s(worker) - before_s) / (time.monotonic() - began)
            grown = run.rss_mb(worker) - before_mb
            reasons = Counter(
                each.reason
                for _, each in await everything(run, topics.RESULTS)
                if isinstance(each, Result) and each.integration == "int_ill"
            )
            found[name] = figures(run.latencies_ms(names, numbers[int(_UNWELL_AFTER_S * per_s) :])) | {
                "grownMb": grown,
                "mostMb": max(most - before_mb, grown),
                "cores": cores,
                "sent": len(names) * (len(_WARM) + len(numbers)),
                "missing": missing(run.arrivals(), names, range(_WARM.start, numbers.stop)),
                "requestsToIll": sum(each.integration == "int_ill" for each in run.arrivals()),
                "reasonsOfIll": dict(reasons.most_common()),
            }
            say(f"unwell, {name}: {found[name]}")
    for line in unwell_lines(found):
        say(line)
    all_came(found)
    return found


def all_came(found: Mapping[str, Mapping[str, Any]]) -> None:
    """
    Whether everything came to those that are well in each of these runs.

    Raises:
        Missing: it did not.
    """
    if lost := {name: each["missing"] for name, each in found.items() if each["missing"]}:
        raise Missing(f"not everything came to those that are well: {lost}")


def unwell_lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What `unwell` has found, as a table: ratios are to the healthy run."""
    healthy = found["healthy"]
    lines = [
        "| the tenth | p50 of the nine | p99 | ratio of p50, p99 | memory: end, most | CPU | missing | its requests |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in found.items():
        ratios = (
            "" if each is healthy else f"{each['p50Ms'] / healthy['p50Ms']:.2f}, {each['p99Ms'] / healthy['p99Ms']:.2f}"
        )
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in each["reasonsOfIll"].items())
        lines.append(
            f"| {name} | {each['p50Ms']:.0f} ms | {each['p99Ms']:.0f} ms | {ratios}"
            f" | {each['grownMb']:+.0f}, {each['mostMb']:+.0f} MB | {each['cores']:.2f} cores"
            f" | {sum(each['missing'].values())} of {each['sent']:,}"
            f" | {each['requestsToIll']:,}: {reasons} |"
        )
    return lines


async def _send_and_wait(run: Stage, numbers: range, per_s: float, names: list[str]) -> None:
    """Until all has come, those that warmed up included, or half a minute is over."""
    await run.at_a_pace(numbers, per_s)
    with suppress(TimeoutError):
        await run.come({each: len(_WARM) + len(numbers) for each in names}, _COMES_S)


async def most_mb(run: Stage, worker: subprocess.Popen[bytes], meanwhile: Awaitable[None]) -> float:
    """The most memory that the process has while this lasts, looked at twice a second."""
    lasting, most = asyncio.ensure_future(meanwhile), run.rss_mb(worker)
    while not lasting.done():
        await asyncio.wait((lasting,), timeout=0.5)
        most = max(most, run.rss_mb(worker))
    await lasting
    return most


async def behind(
    bootstrap: str,
    folder: Path,
    say: Say,
    *,
    events: int = 40_000,
    per_s: float = 20,
    orderings: Iterable[Ordering] = ("integration", "none"),
) -> dict[str, Any]:
    """
    One is so many events behind while nine others have a steady load; it is activated, and catches up.

    Paused again, and activated again, a few times; then it is left alone with what is left.

    Raises:
        ValueError: so few that there would be nothing to watch.
    """
    seconds = min(_WATCHED_S, events / _CATCHES_UP_PER_S - _PARTS * _SETTLES_S)
    if (part := int(seconds * per_s / _PARTS)) < 1:
        raise ValueError(f"{events} events are caught up with before anything is seen: --backlog of 10000 or more")
    found: dict[str, Any] = {}
    for ordering in orderings:
        wanted: dict[str, Any] = {"ordering": ordering, "max_in_flight": 50, "events": ["backlog"]}
        async with stage(bootstrap, folder / f"behind-{ordering}") as run:
            names = [f"int_{number}" for number in range(9)]
            for each in names:
                await run.integration(each, "fast", events=["live", "warm"])
            changes = versions(1)

            async def turn(
                status: str, run: Stage = run, wanted: dict[str, Any] = wanted, changes: Iterator[int] = changes
            ) -> int:
                """When it was so, nanoseconds since 1970."""
                number = next(changes)
                change = {"status": status, "version": number, "epoch": number}
                await run.integration("int_late", "fast", is_apart=True, **wanted, **change)
                return time.time_ns()

            await turn("paused")
            await run.dispatcher()
            await run.ready()
            await settle(run)
            sending = [run.send(number, "backlog") for number in range(1_000_000, 1_000_000 + events)]
            for start in range(0, events, 2_000):
                await asyncio.gather(*sending[start : start + 2_000])
            await asyncio.sleep(5)
            watched: dict[str, list[int]] = {"paused": [], "active": []}
            spans_ns = []
            for number in range(2 * _PARTS):
                status, numbers = ("paused", "active")[number % 2], range(number * part, (number + 1) * part)
                await turn(status)
                await asyncio.sleep(_SETTLES_S)
                began_ns = time.time_ns()
                await run.at_a_pace(numbers, per_s, "live")
                watched[status] += numbers
                if status == "active":
                    spans_ns.append((began_ns, time.time_ns()))
            alone_ns = await turn("active")
            await run.come({"int_late": events}, events / 50 + 60, say)
            arrivals = [each for each in run.arrivals() if each.integration == "int_late"]
            order = list(dict.fromkeys(each.number for each in arrivals))
            beside = sum(began_ns <= each.at_ns < ended_ns for each in arrivals for began_ns, ended_ns in spans_ns)
            left = sum(each.at_ns >= alone_ns for each in arrivals)
            others = {status: figures(run.latencies_ms(names, numbers)) for status, numbers in watched.items()}
            found[ordering] = {
                "perS": beside / (sum(ended_ns - began_ns for began_ns, ended_ns in spans_ns) / 1e9),
                "perSAlone": left / ((arrivals[-1].at_ns - alone_ns) / 1e9),
                "left": left,
                "repeated": len(arrivals) - events,
                "outOfOrder": sum(a > b for a, b in pairwise(order)),
                "othersBefore": others["paused"],
                "othersMeanwhile": others["active"],
                "ratioP99": others["active"]["p99Ms"] / others["paused"]["p99Ms"],
            }
            say(f"behind, {ordering}: {found[ordering]}")
    return found


async def slow(
    bootstrap: str, folder: Path, say: Say, *, count: int = 1_000, healthy: int = 100, seconds: float = 60
) -> dict[str, Any]:
    """
    Slow integrations, each with a backlog of its own size, so that their cursors are spread over the log.

    First without any of them; then with all of them, paused and active by turns, for so many seconds of each.

    Events of type `g0` to `g39` make the backlogs: integration n wants those of group n % 40 and up, so that cursors
    begin at forty places, at most a few of them in one chunk of a partition.

    The events are sent as fast as they go, and carry the time of that. How far cursors are apart is a matter of offsets
    alone: a line reads again from an offset (`catch_up.py`), and has fallen behind by the worker's own clock
    (`detaching.py`). Of times the dispatcher asks when a delivery came onto `deliveries`, which is when it was fanned
    out, whatever its event says, and that only for what is about to fall out after 7 days; and when its event was
    accepted for metrics, event ids that a client made, and an activation `from` a time. So the hour stands here as what
    it leaves on the log: 235,000 deliveries to 1,000 integrations are an hour at 65 a second.
    """
    found: dict[str, Any] = {}
    names = [f"int_{number}" for number in range(healthy)]
    part = int(seconds * _BESIDE_SLOW_PER_S / _PARTS)
    async with _beside_slow(bootstrap, folder / "slow-none", names, 0) as (run, worker):
        took = Took(run, worker)
        await _watch_beside_slow(run, took, range(_PARTS * part))
        found["none"] = await _came_beside_slow(run, names, took)
        say(f"slow, none: {found['none']}")
    async with _beside_slow(bootstrap, folder / "slow", names, count) as (run, worker):
        turns = {"paused": Took(run, worker), "active": Took(run, worker)}
        for number in range(2 * _PARTS):
            status = ("paused", "active")[number % 2]
            await _turn_slow(run, count, number + 2, status)
            await asyncio.sleep(_SLOW_SETTLE_S[status])
            await _watch_beside_slow(run, turns[status], range(number * part, (number + 1) * part))
            say(f"slow: part {number + 1} of {2 * _PARTS}")
        for status, took in turns.items():
            found[status] = await _came_beside_slow(run, names, took)
            say(f"slow, {status}: {found[status]}")
    for other in ("none", "paused"):
        found["active"][f"ratioP99To{other.capitalize()}"] = found["active"]["p99Ms"] / found[other]["p99Ms"]
    say(f"slow: {found['active']}")
    return found


class Took:
    """What was sent beside the slow ones in one of their states, and what the dispatcher took for it."""

    def __init__(self, run: Stage, worker: subprocess.Popen[bytes]) -> None:
        self._run = run
        self._worker = worker
        self.numbers: list[int] = []
        self.most_mb = 0.0
        self._cpu_s = self._s = 0.0
        self._slow = 0

    @contextmanager
    def part(self, numbers: range) -> Iterator[None]:
        """Around the time in which these events are sent."""
        cpu_s, at_s, slow = self._run.cpu_s(self._worker), time.monotonic(), self._slow_arrivals()
        yield
        self.numbers += numbers
        self._cpu_s += self._run.cpu_s(self._worker) - cpu_s
        self._s += time.monotonic() - at_s
        self._slow += self._slow_arrivals() - slow
        self.most_mb = max(self.most_mb, self._run.rss_mb(self._worker))

    def _slow_arrivals(self) -> int:
        return sum(each.integration.startswith("int_slow") for each in self._run.arrivals())

    def figures(self) -> dict[str, float]:
        return {"cores": self._cpu_s / self._s, "slowPerS": self._slow / self._s, "rssMb": self.most_mb}


@asynccontextmanager
async def _beside_slow(
    bootstrap: str, folder: Path, names: list[str], count: int
) -> AsyncIterator[tuple[Stage, subprocess.Popen[bytes]]]:
    """Integrations of these names that are well, and so many slow ones, each behind; and the worker of all."""
    async with stage(bootstrap, folder) as run:
        for each in names:
            await run.integration(each, "fast", events=["live", "warm"])
        await _turn_slow(run, count, 1, "active")
        worker = await run.dispatcher()
        await run.ready()
        await settle(run)
        for group in range(_GROUPS if count else 0):
            sent = _IN_GROUP if group < _GROUPS - 1 else _IN_LAST_GROUP
            await asyncio.gather(*(run.send(1_000_000 + group * 100 + n, f"g{group}") for n in range(sent)))
        await fanned_out(run)
        await asyncio.sleep(30)  # lines fall behind, and are detached
        yield run, worker


async def _turn_slow(run: Stage, count: int, version: int, status: str) -> None:
    for start in range(0, count, _CHANGED_AT_ONCE):
        changes = {"is_apart": True, "auto_pause": False, "version": version, "epoch": version, "status": status}
        await asyncio.gather(
            *(
                run.integration(
                    f"int_slow_{number}",
                    "slow-4000",
                    events=[f"g{group}" for group in range(number % _GROUPS, _GROUPS)],
                    **changes,
                )
                for number in range(start, min(start + _CHANGED_AT_ONCE, count))
            )
        )


async def _watch_beside_slow(run: Stage, took: Took, numbers: range) -> None:
    with took.part(numbers):
        await run.at_a_pace(numbers, _BESIDE_SLOW_PER_S, "live")
        await asyncio.sleep(1)


async def _came_beside_slow(run: Stage, names: list[str], took: Took) -> dict[str, float]:
    wanted = max(took.numbers) + 1 + len(_WARM)
    await run.come(dict.fromkeys(names, wanted), _COMES_S)
    return figures(run.latencies_ms(names, took.numbers)) | took.figures()


async def fanned_out(run: Stage) -> None:
    """Until no delivery has come onto its topic for a while: an event for 1,000 integrations takes 0.2 s."""
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(bootstrap_servers=run.connection.bootstrap)
    await reader.start()
    try:
        count = topics.partition_count(topics.DELIVERIES, PARTITIONS)
        partitions = [TopicPartition(run.connection.topic(topics.DELIVERIES), number) for number in range(count)]
        before: dict[TopicPartition, int] = {}
        while (ends := await reader.end_offsets(partitions)) != before:
            before = ends
            await asyncio.sleep(3)
    finally:
        await reader.stop()


async def trip(bootstrap: str, folder: Path, say: Say) -> dict[str, Any]:
    """When requests start after the result of the twentieth failure in a row, and when the pause is published."""
    async with stage(bootstrap, folder / "trip") as run:
        await run.integration("int_ill", "fail", ordering="none", max_in_flight=5, max_attempts=1)
        await run.dispatcher()
        await run.breaker()
        await run.ready()
        await run.at_a_pace(range(400), 100)
        await asyncio.sleep(3)
        results = [each for _, each in await everything(run, topics.RESULTS) if isinstance(each, Result)]
        states = [
            (at_ms, each)
            for at_ms, each in await everything(run, topics.INTEGRATION_STATE)
            if isinstance(each, IntegrationState) and each.state == "paused"
        ]
        found = {"requests": len(run.arrivals())} | tripped(results, states[0][0] if states else None)
        say(f"trip: {found}")
    return found


def tripped(results: list[Result], paused_ms: int | None) -> dict[str, Any]:
    """
    What was in flight when the twentieth of these failures had ended, and what started later.

    Args:
        results: of one integration, in the order of the log.
        paused_ms: when the pause was published; None: it was not.
    """
    sent = [each for each in results if each.attempt]
    twentieth_ms = sent[PAUSED_AFTER - 1].finished_at_ms
    later = [each.started_at_ms for each in sent if each.started_at_ms > twentieth_ms]
    return {
        "inFlight": sum(each.started_at_ms <= twentieth_ms < each.finished_at_ms for each in sent),
        "startedLater": len(later),
        "startedAfterPause": 0 if paused_ms is None else sum(each > paused_ms for each in later),
        "lastStartAfterMs": max(each.started_at_ms for each in sent) - twentieth_ms,
        "pausedAfterMs": None if paused_ms is None else paused_ms - twentieth_ms,
    }


async def everything(run: Stage, topic: topics.Topic) -> list[tuple[int, Any]]:
    """All records of the topic, each partition in order, with the broker's time."""
    reader: AIOKafkaConsumer[Any, Any] = AIOKafkaConsumer(
        bootstrap_servers=run.connection.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await reader.start()
    try:
        count = topics.partition_count(topic, PARTITIONS)
        partitions = [TopicPartition(run.connection.topic(topic), number) for number in range(count)]
        reader.assign(partitions)
        ends = await reader.end_offsets(partitions)
        found: list[tuple[int, Any]] = []
        while any([await reader.position(each) < ends[each] for each in partitions]):
            for records in (await reader.getmany(timeout_ms=500)).values():
                found += [(record.timestamp, codec.decode(record.value)) for record in records if record.value]
        return found
    finally:
        await reader.stop()


SCENARIOS: Final = {"hang": hang, "stock": stock, "unwell": unwell, "behind": behind, "slow": slow, "trip": trip}


def measure(bootstrap: str, names: list[str], say: Say, sizes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """
    Each of these scenarios once, with the sizes that are given for it.

    Raises:
        Missing: see `unwell`.
    """
    with tempfile.TemporaryDirectory(prefix="tenterhook-isolation-") as folder:
        return {
            name: asyncio.run(SCENARIOS[name](bootstrap, Path(folder), say, **sizes.get(name, {}))) for name in names
        }
