"""
What a delivery leaves on each topic: bytes as they stand on the broker's disk, and how many records share a batch.

Runs of `tenterhook bench` on a Kafka of one node, whose segments are read afterwards. Nothing is compressed, as
configured; what compression would save is shown on records of made-up content, since those of the runs are all alike.
Also what each process used for it, until all of it is in the history and every offset is committed.
"""

import hashlib
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import Any, Final

import msgspec

from bench.history import result
from schemas.profiles import Ordering
from services.cli.bench.outcome import Plan
from services.cli.bench.processes import command_line, cpu_ms, machine_ms
from services.cli.bench.run import run
from services.cli.bench.stack import Stack, own_stack
from services.cli.bench.wire import events_path, request_parts
from streams import codec
from streams.records import Delivery, IntegrationConfig, Secret, SigningSecret
from streams.views import Integrations

#: After the last arrival: offsets are committed each 0.25 s, the breaker's numbers published each second, and the
#: history folds what it had no time for.
SETTLE_S: Final = 10.0

PAYLOAD_BYTES: Final = 1_024
INTEGRATIONS: Final = 3
WARM_UP: Final = 500

#: Loads by name: events, events a second (None: as fast as they go), ordering.
LOADS: Final[dict[str, tuple[int, float | None, Ordering]]] = {
    "none": (10_000, None, "none"),
    "in order": (5_000, None, "integration"),
    "100/s in order": (2_000, 100.0, "integration"),
}

#: Of a batch on disk, version 2: the bytes behind these twelve, and after 57 bytes how many records it has. Source:
#: https://kafka.apache.org/documentation/#recordbatch
_LENGTH: Final = Struct(">i")
_LENGTH_AT: Final = 8
_HEAD_BYTES: Final = 12
_RECORDS_AT: Final = 57

_PREFIX: Final = "tenterhook."


class Weight(msgspec.Struct):
    """What a topic holds, on all its partitions."""

    bytes: int = 0
    batches: int = 0
    records: int = 0


def measure(say: Callable[[str], object]) -> dict[str, Any]:
    """All of it, as JSON: `loads` by name, `gzip` and `memory`."""
    return {
        "loads": {name: _load(name, say) for name in LOADS},
        "requestBytes": request_bytes(),
        "gzip": {str(each): compressed(each) for each in (1, 10, 100)},
        "bytesAnIntegration": integration_bytes(),
    }


def _load(name: str, say: Callable[[str], object]) -> dict[str, Any]:
    events, rate, ordering = LOADS[name]
    plan = Plan(
        events=events,
        integrations=INTEGRATIONS,
        payload_bytes=PAYLOAD_BYTES,
        connections=32,
        rate_per_s=rate,
        profile="integration",
        ordering=ordering,
        max_in_flight=100 if ordering == "none" else 1,
        warm_up=WARM_UP,
        receiver=None,
        topic_prefix=_PREFIX,
        stages=False,
    )
    say(f"{name}: {events:,} events to {INTEGRATIONS}")
    with own_stack("kafka") as stack:
        processes = stack.processes()
        began_s, busy_ms = time.monotonic(), machine_ms()
        before = {each.pid: cpu_ms(each.pid) for each in processes}
        found = run(plan, stack, lambda *_: None).findings
        time.sleep(SETTLE_S)
        used: Counter[str] = Counter()
        for each in processes:
            used[each.name] += cpu_ms(each.pid) - before[each.pid]
        took_s = time.monotonic() - began_s
        others_ms = machine_ms() - busy_ms - sum(used.values())
        weights = {topic: each for topic, each in weigh(log_folder(stack)).items() if each.records}
    deliveries = (events + WARM_UP) * INTEGRATIONS
    return {
        "deliveries": deliveries,
        "deliveriesPerS": round(found.deliveries_per_s, 1),
        "lost": found.lost,
        "repeated": found.repeated,
        "cpuMsPerDelivery": {name: round(ms / deliveries, 4) for name, ms in used.items()},
        # Load and receiver are among them.
        "othersCores": round(others_ms / 1_000 / took_s, 2),
        "topics": {
            topic: {
                "bytesPerDelivery": round(each.bytes / deliveries, 1),
                "recordsPerDelivery": round(each.records / deliveries, 3),
                "recordsPerBatch": round(each.records / each.batches, 1),
            }
            for topic, each in sorted(weights.items(), key=lambda item: -item[1].bytes)
        },
    }


def log_folder(stack: Stack) -> Path:
    """Where the stack's Kafka has its segments: beside the properties that it was started with."""
    [properties] = [
        Path(argv[-1])
        for each in stack.processes()
        if each.name == "broker" and (argv := command_line(each.pid)) and argv[-1].endswith("server.properties")
    ]
    return properties.parent / "log"


def weigh(folder: Path) -> dict[str, Weight]:
    """By topic, without the prefix, what the partitions' segments hold; their indexes are not counted."""
    found: dict[str, Weight] = {}
    for segment in folder.glob("*-*/*.log"):
        topic = segment.parent.name.rpartition("-")[0].removeprefix(_PREFIX)
        weight = found.setdefault(topic, Weight())
        for size, records in batches(segment.read_bytes()):
            weight.bytes += size
            weight.batches += 1
            weight.records += records
    return found


def batches(segment: bytes) -> Iterator[tuple[int, int]]:
    """Bytes and records of each batch of a segment. One that is being written is left out."""
    at = 0
    while at + _RECORDS_AT + _LENGTH.size <= len(segment):
        [length] = _LENGTH.unpack_from(segment, at + _LENGTH_AT)
        [records] = _LENGTH.unpack_from(segment, at + _RECORDS_AT)
        end = at + _HEAD_BYTES + length
        if length <= 0 or end > len(segment):
            return
        yield end - at, records
        at = end


def request_bytes() -> int:
    """Of one event's request to ingest, with the headers of the load; a browser or a proxy adds to them."""
    parts = request_parts(
        host="127.0.0.1:8080",
        path=events_path("demo"),
        key="sk_" + "0" * 43,
        profile="integration",
        payload_bytes=PAYLOAD_BYTES,
    )
    return len(parts.request(0, time.time_ns()))


def compressed(records: int) -> dict[str, float]:
    """Share of their bytes that batches of so many made-up records have left after gzip at its first level."""
    made = {
        "deliveries": [codec.encode(delivery(number)) for number in range(records)],
        "delivery-results": [codec.encode(result(number, 7, "delivered", 1)) for number in range(records)],
    }
    return {
        topic: round(len(zlib.compress(b"".join(each), 1)) / sum(map(len, each)), 2) for topic, each in made.items()
    }


def delivery(number: int) -> Delivery:
    """One of a call that has ended: names, ids, times and a summary of words, 1 KiB of payload."""
    ended = result(number, 7, "delivered", 1)
    payload = {
        "callId": _hexed(number, 16),
        "agent": {"id": _hexed(number // 50, 8), "name": _words(number // 50, 2), "language": "en-GB"},
        "caller": {"id": _hexed(number + 7, 8), "number": f"+44{number * 7_919 % 10**10:010}", "country": "GB"},
        "startedAt": f"2026-01-02T12:{number % 60:02}:05.678Z",
        "durationS": number * 37 % 1_800,
        "recordingUrl": f"https://media.example/recordings/{_hexed(number, 16)}.mp3?sig={_hexed(number + 3, 32)}",
        "summary": "",
    }
    payload["summary"] = _words(number, 200)[: PAYLOAD_BYTES - len(msgspec.json.encode(payload))]
    return Delivery(
        delivery_id=ended.delivery_id,
        integration=ended.integration,
        app=ended.app,
        record_id=ended.record_id,
        event_id=ended.event_id,
        type="call_ended",
        payload=msgspec.json.encode(payload),
        occurred_at_ms=ended.accepted_at_ms,
        accepted_at_ms=ended.accepted_at_ms,
        config_offset=17,
        source_partition=3,
        source_offset=number,
        source_generation=4,
    )


_TEXT: Final = (
    "the a caller asked about for her booking on Friday and wants to move it to next week order was late refund is due "
    "agent promised call back tomorrow morning price of two rooms with breakfast said yes no card details were checked "
    "address has changed please send new invoice by mail thanked happy problem solved not sure manager will look at it"
)


def _words(seed: int, count: int) -> str:
    known = _TEXT.split()
    return " ".join(known[each % len(known)] for each in hashlib.shake_128(f"words {seed}".encode()).digest(count))


def _hexed(seed: int, size: int) -> str:
    return hashlib.shake_128(f"id {seed}".encode()).hexdigest(size)


def integration_bytes(count: int = 2_000) -> int:
    """Memory that an integration takes in a process that follows the configuration."""
    view = Integrations()
    records = [(config.id.encode(), codec.encode(config)) for config in map(_integration, range(count))]
    tracemalloc.start()
    try:
        for offset, (key, value) in enumerate(records):
            view.apply(key, value, offset)
        return tracemalloc.get_traced_memory()[0] // count
    finally:
        tracemalloc.stop()


def _integration(number: int) -> IntegrationConfig:
    """One of an app of its own, with two sealed headers, two secrets and a signing secret."""
    sealed = bytes(96)
    return IntegrationConfig(
        id=f"int_{_hexed(number, 16)}",
        app=f"app-{number}",
        profile="integration",
        name=f"CRM {number}",
        url=f"https://crm-{number}.example/hooks/{{secret.path}}",
        events=["call_started", "call_ended"],
        headers={"Authorization": sealed, "X-Env": sealed},
        secrets={name: Secret(version=1, sealed=sealed, created_at_ms=1) for name in ("path", "token")},
        signing_secrets=[SigningSecret(version=1, sealed=sealed, created_at_ms=1)],
        signing=True,
        timeout_ms=5_000,
        retry_policy="transient",
        max_attempts=3,
        delays_ms=[5_000, 20_000],
        retry_on_429=False,
        ordering="integration",
        max_in_flight=1,
        while_paused="hold",
        auto_pause=True,
        status="active",
        version=3,
        epoch=1,
        skip_before=0,
        created_at_ms=1,
        updated_at_ms=2,
        updated_by="admin",
    )


def summary(found: dict[str, Any]) -> list[str]:
    """For people."""
    lines = []
    for name, load in found["loads"].items():
        lines.append(
            f"{name}: {load['deliveries']:,} deliveries at {load['deliveriesPerS']:,.0f}/s, lost {load['lost']}, "
            f"repeated {load['repeated']}, others {load['othersCores']} cores, load and receiver included"
        )
        for topic, each in load["topics"].items():
            lines.append(
                f"  {topic:28} {each['bytesPerDelivery']:9,.1f} bytes {each['recordsPerDelivery']:7.3f} records "
                f"a delivery, {each['recordsPerBatch']:6.1f} in a batch"
            )
        lines.append(
            "  CPU ms a delivery: " + ", ".join(f"{each} {ms}" for each, ms in load["cpuMsPerDelivery"].items())
        )
    lines.append(f"a request to ingest: {found['requestBytes']:,} bytes")
    for records, shares in found["gzip"].items():
        left = ", ".join(f"{topic} {share:.0%}" for topic, share in shares.items())
        lines.append(f"gzip, {records} in a batch, leaves of {left}")
    lines.append(f"memory of an integration that is followed: {found['bytesAnIntegration']:,} bytes")
    return lines
