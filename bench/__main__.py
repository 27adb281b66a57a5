"""
Runs a measurement and prints it with its spread: `python -m bench NAME`.

Each starts what it needs, an Apache Kafka of its own among it, and ends it again.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from bench import (
    agent_cost,
    api,
    history,
    idle,
    ingest,
    isolation,
    kills,
    pipeline,
    retries,
    scale,
    sizes,
    spans_off,
    tracing,
)

#: Memory and collector as Kafka's own script gives them. With the 128 MB that `up` begins with, its serial collector
#: stops it for 60 to 85 ms each 20 s at 500 deliveries/s, which is the p99 of everything; and with 1 GB for 25 to 45 ms
#: each 9 s at 1,200/s, which is half of it. This one: 20 ms at most, as a rule.
JVM: Final = (
    *("-Xms1g", "-Xmx1g", "-XX:+AlwaysPreTouch", "-XX:-UseSerialGC", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
    *("-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"),
)


@contextmanager
def kafka(given: str | None) -> Iterator[str]:
    """Address of the given broker, else of one that lives as long as this."""
    if given:
        yield given
        return
    from services.cli.brokers.kafka import KafkaBroker

    with tempfile.TemporaryDirectory(prefix="tenterhook-bench-") as folder:
        broker = KafkaBroker(Path(folder), jvm=JVM)
        asyncio.run(broker.start())
        try:
            yield broker.bootstrap
        finally:
            asyncio.run(broker.stop())


def spread(values: list[float], form: str) -> str:
    """Median, least and greatest."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def run_agent_cost(options: argparse.Namespace) -> list[dict[str, dict[str, float]]]:
    with kafka(options.broker) as bootstrap:
        found = agent_cost.measure(bootstrap, rounds=options.rounds)
    if not options.json:
        print(f"CPU of a worker for each record of 1 KiB, {options.rounds} rounds, median (least to greatest):")
        for kind in ("stock", "ours"):
            cpu = spread([each[kind]["cpu_us"] for each in found], ".1f")
            rate = spread([each[kind]["per_s"] for each in found], ",.0f")
            print(f"  {kind:6} {cpu} µs, {rate} records/s")
        print(f"  ratio  {spread([each['stock']['cpu_us'] / each['ours']['cpu_us'] for each in found], '.1f')}")
    return found


def run_pipeline(options: argparse.Namespace) -> list[dict[str, dict[str, object]]]:
    found = pipeline.measure(options.broker or "kafka", rounds=options.rounds, say=None if options.json else print)
    if not options.json:
        for line in pipeline.summary(found, spread):
            print(line)
    return found


def run_senders(options: argparse.Namespace) -> None:
    # In a process of its own, whose CPU time is what it measures.
    subprocess.run([sys.executable, "-m", "bench.senders"], check=True)


def run_isolation(options: argparse.Namespace) -> list[dict[str, object]]:
    names = options.only or list(isolation.SCENARIOS)
    with kafka(options.broker) as bootstrap:
        sizes = {
            "hang": {"seconds": options.hang_s},
            "unwell": {"seconds": options.unwell_s},
            "behind": {"events": options.backlog},
            "slow": {"seconds": options.slow_s, "count": options.slow_count},
        }
        try:
            return [isolation.measure(bootstrap, names, print, sizes) for _ in range(options.rounds)]
        except isolation.Missing as error:
            sys.exit(f"bench: {error}")


def run_kills(options: argparse.Namespace) -> list[dict[str, dict[str, object]]]:
    say = (lambda _: None) if options.json else print
    results = []
    with kafka(options.broker) as bootstrap, tempfile.TemporaryDirectory(prefix="tenterhook-kills-") as folder:
        for number in range(options.rounds):
            at, seed = Path(folder) / str(number), options.seed + number
            say(f"round {number + 1}, seed {seed}")
            results.append(asyncio.run(kills.measure(bootstrap, at, seed, options.kills, say)))
            say("\n".join(kills.summary(results[-1])))
    return results


def run_ingest(options: argparse.Namespace) -> list[dict[str, dict[str, float]]]:
    say = (lambda _: None) if options.json else print
    with ingest.a_core_apart() as core, kafka(options.broker) as bootstrap:
        found = ingest.measure(bootstrap, core, events=options.events, rounds=options.rounds, say=say)
    if not options.json:
        print(f"One ingest process on one core, {options.rounds} rounds, median (least to greatest):")
        for name in ingest.LOADS:
            rate = spread([each[name]["accepted_per_s"] for each in found], ",.0f")
            cpu = spread([each[name]["cpu_us"] for each in found], ".0f")
            print(f"  {name:18} {rate} accepted/s, {cpu} µs of CPU an event")
    return found


def run_retries(options: argparse.Namespace) -> dict[str, object]:
    say = (lambda _: None) if options.json else print
    with kafka(options.broker) as bootstrap:
        found = retries.measure(
            bootstrap, retries=options.retries, due=options.due, integrations=1_000, per_s=options.per_s, say=say
        )
    if not options.json:
        for line in retries.summary(found):
            print(line)
    return found


def run_api(options: argparse.Namespace) -> list[dict[str, object]]:
    say = (lambda _: None) if options.json else print
    with kafka(options.broker) as bootstrap:
        found = [api.measure(bootstrap, options.integrations, say) for _ in range(options.rounds)]
    if not options.json:
        for each in found:
            pages = each.pop("pages_ms")
            print(each)
            for name, took in pages.items():
                print(f"  page: {name:22} {took}")
    return found


def run_history(options: argparse.Namespace) -> dict[str, object]:
    found = history.measure(options.results, 1_000, (lambda _: None) if options.json else print)
    if not options.json:
        for line in history.summary(found):
            print(line)
    return found


def run_idle(options: argparse.Namespace) -> list[dict[str, object]]:
    say = (lambda _: None) if options.json else print
    found = []
    for kind in [options.kind] if options.kind else idle.KINDS:
        found.append(idle.measure(kind, options.seconds, say))
        if not options.json:
            print("\n".join(idle.summary(found[-1])))
    return found


def run_sizes(options: argparse.Namespace) -> dict[str, object]:
    found = sizes.measure((lambda _: None) if options.json else print)
    if not options.json:
        print("\n".join(sizes.summary(found)))
    return found


def run_scale(options: argparse.Namespace) -> dict[str, list[str]]:
    found = scale.tables()
    if not options.json:
        for heading, lines in found.items():
            print("\n".join(("", f"## {heading}", "", *lines)))
    return found


def run_tracing(options: argparse.Namespace) -> list[dict[str, dict[str, object]]]:
    say = (lambda _: None) if options.json else print
    found = tracing.measure(options.rounds, options.events, options.broker or "kafka", say)
    if not options.json:
        for line in tracing.summary(found, spread):
            print(line)
    return found


def run_spans_off(options: argparse.Namespace) -> list[float]:
    found = spans_off.measure(options.rounds)
    if not options.json:
        print(f"CPU of a delivery for tracing that is off, {options.rounds} rounds: {spread(found, '.2f')} µs")
    return found


NAMES = {
    "scale": run_scale,
    "idle": run_idle,
    "sizes": run_sizes,
    "ingest": run_ingest,
    "api": run_api,
    "isolation": run_isolation,
    "kills": run_kills,
    "senders": run_senders,
    "agent_cost": run_agent_cost,
    "pipeline": run_pipeline,
    "retries": run_retries,
    "history": run_history,
    "tracing": run_tracing,
    "spans_off": run_spans_off,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measurements; see bench/README.md.")
    parser.add_argument(
        "name", nargs="?", choices=NAMES, default="pipeline", help="What to measure (default: pipeline)."
    )
    parser.add_argument("--broker", help="HOST:PORT of a Kafka broker; otherwise one is started for the run.")
    parser.add_argument("--rounds", type=int, default=3, help="How often, for the spread (default: 3).")
    parser.add_argument("--json", action="store_true", help="Print every round as JSON.")
    parser.add_argument("--only", action="append", choices=isolation.SCENARIOS, help="Of isolation: this scenario.")
    parser.add_argument("--hang-s", type=float, default=60, help="Of isolation: how long the endpoint hangs.")
    parser.add_argument("--unwell-s", type=float, default=45, help="Of isolation: seconds measured of each of unwell.")
    parser.add_argument("--slow-s", type=float, default=60, help="Of isolation: seconds of traffic beside the slow.")
    parser.add_argument("--slow-count", type=int, default=1_000, help="Of isolation: how many are slow.")
    parser.add_argument("--backlog", type=int, default=40_000, help="Of isolation: events that one is behind.")
    parser.add_argument("--kills", type=int, default=6, help="Of kills: how many workers are killed.")
    parser.add_argument("--seed", type=int, default=202, help="Of kills: when, and which workers.")
    parser.add_argument("--events", type=int, default=20_000, help="Of ingest and tracing: how many events a load has.")
    parser.add_argument("--retries", type=int, default=1_000_000, help="Of retries: how many wait.")
    parser.add_argument("--due", type=int, default=300_000, help="Of retries: how many come back within the run.")
    parser.add_argument("--per-s", type=float, default=700, help="Of retries: how many are due a second.")
    parser.add_argument("--integrations", type=int, default=10_000, help="Of api: how many there are.")
    parser.add_argument("--results", type=int, default=1_000_000, help="Of history: how many are folded in.")
    parser.add_argument("--kind", choices=idle.KINDS, help="Of idle: this broker; otherwise both, one by one.")
    parser.add_argument("--seconds", type=float, default=60, help="Of idle: how long is looked.")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.name == "senders" and (options.json or options.broker):
        parser.error("senders needs no broker and prints text only")
    found = NAMES[options.name](options)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
