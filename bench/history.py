"""
The delivery history: how fast results are folded in, how long questions take with many in it, and what they weigh.

Results are made and encoded beforehand, a slice at a time, and not counted. The first page of each list, and one
delivery, are asked once with nothing of the file in memory, and then many times over, each time about something else.
"""

import hashlib
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from services.history import query
from services.history.follow import BATCH
from services.history.query import Wanted
from services.history.store import Raw, Store
from streams import codec
from streams.records import Result

PARTITIONS = 16
SLICE = 20_000
APPS = 10
TYPES = ("call_started", "call_ended", "lead_created", "message_sent", "widget_opened")
START_MS = 1_767_355_200_000
#: Of a thousand deliveries: how they go.
KINDS = (
    (900, [("delivered", 1)]),
    (950, [(None, 1), ("delivered", 2)]),
    (985, [("rejected", 1)]),
    (995, [(None, 1), (None, 2), ("exhausted", 3)]),
    (999, [("blocked", 0)]),
    (1_000, [(None, 1)]),
)


def event_id(number: int) -> str:
    """In the order of time, as ingest mints them."""
    return f"evt_{START_MS + number:012x}7{hexed('event', number)[13:]}"


def hexed(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def result(number: int, integration: int, outcome: Any, attempt: int) -> Result:
    """As a dispatcher writes it for a receiver that answers with 200 bytes: about 1.1 KB encoded."""
    id_ = f"int_{hexed('integration', integration)}"
    at_ms = START_MS + number * 2 + attempt * 5_000
    status = {"delivered": 200, "rejected": 404}.get(outcome, 503)
    return Result(
        delivery_id=f"dlv_{hexed('delivery', number)}",
        integration=id_,
        app=f"app-{integration % APPS}",
        record_id=f"rec_{hexed('record', number)}",
        event_id=event_id(number // 2),
        type=TYPES[number % len(TYPES)],
        cause="live" if number % 500 else "replay",
        attempt=attempt,
        outcome=outcome,
        reason=f"status_{status}",
        epoch=1,
        config_version=3,
        url=f"https://crm-{integration}.example/hooks/***",
        request_headers={
            "Host": f"crm-{integration}.example",
            "Content-Type": "application/json",
            "User-Agent": "tenterhook/0.1.0",
            "X-ApifyCloud-Event": TYPES[number % len(TYPES)],
            "X-ApifyCloud-Delivery": f"{id_}:{attempt}",
            "X-ApifyCloud-Timestamp": f"2026-01-02T12:{number % 60:02}:05.678Z",
            "X-ApifyCloud-Signature": f"sha256={hexed('a', number)}{hexed('b', number)}",
            "webhook-id": event_id(number // 2),
            "webhook-timestamp": str(at_ms // 1_000),
            "webhook-signature": f"v1,{hexed('c', number)}{hexed('d', number)[:12]}",
            "Authorization": "Bearer ***",
            "Content-Length": "512",
        },
        status=status,
        response_headers={
            "Content-Type": "application/json",
            "Date": f"Fri, 02 Jan 2026 12:00:{number % 60:02} GMT",
            "Server": "nginx/1.24.0",
            "Content-Length": "200",
            "Connection": "keep-alive",
        },
        response_body=f'{{"ok":true,"id":"{hexed("e", number)}","took":{number % 977},"note":"{"n" * 120}"}}'.encode(),
        response_truncated=False,
        started_at_ms=at_ms,
        finished_at_ms=at_ms + 40,
        wait_us=30_000 + number % 1_000,
        read_us=100,
        next_attempt=None if outcome else attempt + 1,
        next_due_at_ms=None if outcome else at_ms + 5_000,
        accepted_at_ms=at_ms - 5,
        source_partition=integration % PARTITIONS,
        source_offset=number,
        source_generation=4,
    )


def slices(results: int, integrations: int, rng: random.Random) -> Iterator[list[Raw]]:
    """So many results, and what belongs to the last delivery, as they stand on the log."""
    at = [0] * PARTITIONS
    made = number = 0
    while made < results:
        part: list[Raw] = []
        while len(part) < min(SLICE, results - made):
            integration = rng.randrange(integrations)
            partition = integration % PARTITIONS
            draw = rng.randrange(1_000)
            kind = next(kind for limit, kind in KINDS if draw < limit)
            for outcome, attempt in kind:
                part.append((partition, at[partition], codec.encode(result(number, integration, outcome, attempt))))
                at[partition] += 1
            number += 1
        made += len(part)
        yield part


def fold(store: Store, results: int, integrations: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Fold them in, and what that took; the last tenth alone too, since the file is large by then."""
    took: list[tuple[int, float, float]] = []
    encoded = 0
    for part in slices(results, integrations, random.Random(1)):
        wall, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(part), BATCH):
            batch = part[start : start + BATCH]
            store.fold(batch, {partition: offset + 1 for partition, offset, _ in batch})
        took.append((len(part), time.perf_counter() - wall, time.process_time() - cpu))
        encoded += sum(len(value or b"") for _, _, value in part)
        if len(took) % 10 == 0:
            say(f"  {sum(count for count, _, _ in took):,} results")
    last = took[-max(1, len(took) // 10) :]
    total = sum(count for count, _, _ in took)
    return {
        "results": total,
        "per_s": total / sum(wall for _, wall, _ in took),
        "cpu_us": sum(cpu for _, _, cpu in took) / total * 1e6,
        "last_tenth_cpu_us": sum(cpu for _, _, cpu in last) / sum(count for count, _, _ in last) * 1e6,
        "wire_mb": encoded / 1e6,
        "file_mb": sum(file.stat().st_size for file in store.path.parent.iterdir()) / 1e6,
    }


def questions(deliveries: int, integrations: int, rng: random.Random) -> dict[str, Callable[[sqlite3.Connection], Any]]:
    """A question of each kind, about something else each time it is asked."""

    def listed(**filters: Callable[[], Any]) -> Callable[[sqlite3.Connection], Any]:
        def ask(file: sqlite3.Connection) -> Any:
            integration = rng.randrange(integrations)
            chosen: dict[str, Any] = {name: value() for name, value in filters.items()}
            if chosen.pop("one", False):
                chosen["integration"] = f"int_{hexed('integration', integration)}"
            return query.page(file, Wanted(app=f"app-{integration % APPS}", **chosen), limit=50)

        return ask

    def app_and_event(file: sqlite3.Connection) -> Any:
        event = event_id(rng.randrange(deliveries) // 2)
        return [query.page(file, Wanted(app=f"app-{app}", event=event), limit=50) for app in range(APPS)]

    def delivery(file: sqlite3.Connection) -> Any:
        id_ = f"dlv_{hexed('delivery', rng.randrange(deliveries))}"
        return [query.delivery(file, f"app-{app}", id_) for app in range(APPS)]

    middle_ms = START_MS + deliveries
    return {
        "10 times one delivery with its attempts": delivery,
        "10 times an event's deliveries": app_and_event,
        "first page of an app": listed(),
        "of an integration": listed(one=lambda: True),
        "of an integration, exhausted": listed(one=lambda: True, outcome=lambda: "exhausted"),
        "of an app, delivered": listed(outcome=lambda: "delivered"),
        "of an app, open": listed(outcome=lambda: "open"),
        "of an app, a type": listed(type=lambda: rng.choice(TYPES)),
        "of an app, replayed": listed(cause=lambda: "replay"),
        "of an app, rejected, a type": listed(outcome=lambda: "rejected", type=lambda: rng.choice(TYPES)),
        "of an app, in the middle of time": listed(until_ms=lambda: middle_ms + rng.randrange(-1_000, 1_000)),
        "none fits: of an integration, discarded, a type": listed(
            one=lambda: True, outcome=lambda: "discarded", type=lambda: TYPES[0]
        ),
        "few fit: of an integration, replayed, blocked": listed(
            one=lambda: True, cause=lambda: "replay", outcome=lambda: "blocked"
        ),
        "24 hours of 100 integrations": lambda file: [
            query.rates(
                file, f"app-{app}", [f"int_{hexed('integration', app + APPS * each)}" for each in range(100)],
                now_ms=START_MS + 2 * deliveries,
            )
            for app in [rng.randrange(APPS)]
        ],
    }  # fmt: skip


def forget(store: Store) -> None:
    """Let the operating system forget the file's pages, as after a restart of the machine."""
    store._file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    descriptor = os.open(store.path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def timed(file: sqlite3.Connection, ask: Callable[[sqlite3.Connection], Any], times: int) -> list[float]:
    """Milliseconds, sorted."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        ask(file)
        took.append((time.perf_counter() - started) * 1_000)
    return sorted(took)


def measure(results: int, integrations: int, say: Callable[[str], None], directory: Path | None = None) -> Any:
    with tempfile.TemporaryDirectory(prefix="tenterhook-bench-") as folder:
        store = Store(directory or Path(folder))
        found = {"fold": fold(store, results, integrations, say), "ask": {}}
        [(deliveries,)] = store._file.execute("SELECT count(*) FROM deliveries").fetchall()
        for kind, ask in questions(deliveries, integrations, random.Random(2)).items():
            file = sqlite3.connect(f"{store.path.as_uri()}?mode=ro", uri=True)
            forget(store)
            [first_ms] = timed(file, ask, 1)
            took = timed(file, ask, 200)
            file.close()
            found["ask"][kind] = {"first_ms": first_ms, "p50_ms": took[100], "p99_ms": took[198]}
        started = time.perf_counter()
        after: int | None = -1
        while after is not None:
            after = store.sweep(START_MS + 400_000, after)
        [(left,)] = store._file.execute("SELECT count(*) FROM deliveries").fetchall()
        found["sweep"] = {"deleted": deliveries - left, "per_s": (deliveries - left) / (time.perf_counter() - started)}
        store.close()
    return found


def summary(found: Any) -> Iterator[str]:
    folded = found["fold"]
    yield (
        f"folded {folded['results']:,} results at {folded['per_s']:,.0f}/s, {folded['cpu_us']:.0f} µs of CPU each "
        f"({folded['last_tenth_cpu_us']:.0f} in the last tenth); {folded['wire_mb']:,.0f} MB on the wire, "
        f"{folded['file_mb']:,.0f} MB in the file"
    )
    for kind, took in found["ask"].items():
        yield f"  {kind:50} p50 {took['p50_ms']:6.2f}  p99 {took['p99_ms']:6.2f}  first {took['first_ms']:6.2f} ms"
    yield f"deleted {found['sweep']['deleted']:,} deliveries at {found['sweep']['per_s']:,.0f}/s"
