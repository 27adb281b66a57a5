"""`python -m tests.chaos`: run for long, or one of the presets; exits with 1 where a claim or a bound does not hold."""

import argparse
import asyncio
import logging
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from services.cli.brokers.choose import kafka_lacks
from services.cli.brokers.kafka import KafkaBroker
from streams.connection import Connection
from streams.topics import ensure
from tests.chaos.bounds import missed, told
from tests.chaos.claims import check
from tests.chaos.fleet import Access, anybody
from tests.chaos.releases import NEXT, THIS, of_commit
from tests.chaos.report import lines
from tests.chaos.run import PARTITIONS, Run, Scenario, drawn_seed, kills, mixed, recovery, scale, upgrade
from tests.secured import BROKER, SecuredKafka

PREFIX = "chaos."
DONE, FAILED, WRONG_USAGE = 0, 1, 2


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)  # noqa: T201


def main() -> int:
    """The command."""
    asked = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    presets = ("mixed", "kills", "recovery", "scale", "upgrade")
    asked.add_argument("--preset", choices=presets, default="mixed")
    asked.add_argument("--from", dest="older", help="commit of the release to update from, for upgrade")
    asked.add_argument("--minutes", type=float, default=30.0, help="of load, for mixed")
    asked.add_argument("--seed", type=int, help="of a run to repeat; else a new one")
    asked.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="of the broker, for mixed")
    asked.add_argument("--secured", action="store_true", help="TLS both ways, SCRAM, and a user with ACLs a service")
    asked.add_argument("--rate", type=float, default=30.0, help="events a second, for mixed")
    asked.add_argument("--keep", type=Path, help="folder for the processes' logs, the broker's data and the record")
    given = asked.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the broker is away, since we killed it
    if (missing := kafka_lacks()) is not None:
        _say(missing)
        return WRONG_USAGE
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
        return asyncio.run(_run(given, given.keep))
    with tempfile.TemporaryDirectory(prefix="tenterhook-chaos-") as folder:
        return asyncio.run(_run(given, Path(folder)))


async def _let_in(broker: KafkaBroker) -> tuple[Connection, Access]:
    """How we are let in, and how the services are."""
    if not isinstance(broker, SecuredKafka):
        return Connection(broker.bootstrap, PREFIX), anybody
    connection = broker.connection(BROKER, PREFIX)
    await ensure(connection, PARTITIONS)
    await broker.allow(PREFIX)
    return connection, broker.environment


async def _run(given: argparse.Namespace, folder: Path) -> int:
    seed = drawn_seed() if given.seed is None else given.seed
    made: dict[str, Callable[[], Scenario]] = {
        "mixed": lambda: mixed(given.minutes * 60, given.nodes, given.rate),
        "kills": kills,
        "recovery": recovery,
        "scale": scale,
        "upgrade": upgrade,
    }
    scenario = made[given.preset]()
    older, newer = THIS, THIS
    if given.preset == "upgrade":
        # Without a release to come from: from this one to one that does not exist yet.
        older = of_commit(given.older, folder / "older") if given.older else THIS
        newer = THIS if given.older else NEXT
    nodes = scenario.plan.nodes
    broker = SecuredKafka(folder, nodes=nodes) if given.secured else KafkaBroker(folder / "kafka", nodes=nodes)
    await broker.start()
    try:
        connection, access = await _let_in(broker)
        run = Run(broker, connection, folder, scenario, seed, _say, access=access, older=older, newer=newer)
        seen = await run.run()
    finally:
        broker.kill()
    if given.keep is not None:
        (folder / "observed.pickle").write_bytes(pickle.dumps(seen))
    checked = check(seen)
    misses = missed(scenario.bounds, seen, scenario.steady)
    report = lines(seen, checked, scenario.steady) + told(scenario.bounds, seen, scenario.steady)
    print("\n".join([*report, *(f"NOT {each}" for each in misses)]))  # noqa: T201
    options = f"--preset {given.preset} --seed {seed}"
    if given.preset == "mixed":
        options += f" --minutes {given.minutes:g} --nodes {given.nodes} --rate {given.rate:g}"
    options += f" --from {given.older}" if given.older else ""
    options += " --secured" if given.secured else ""
    _say(f"again: python -m tests.chaos {options}")
    return FAILED if misses or any(each.violations for each in checked) else DONE


if __name__ == "__main__":
    sys.exit(main())
