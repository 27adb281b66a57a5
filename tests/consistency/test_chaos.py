"""
All services as processes on Apache Kafka under load, while they are killed, stopped, frozen and joined by others.

The claims are those of `tests/chaos/claims.py`, on what both ends and the log recorded; `make chaos` is the same for
half an hour. `CHAOS_SEED` takes another schedule than the fixed one.
"""

import os
from pathlib import Path

import pytest

from services.cli.brokers.kafka import KafkaBroker
from streams.connection import Connection
from tests.chaos.bounds import missed
from tests.chaos.claims import check, silences
from tests.chaos.observed import Observed
from tests.chaos.report import lines
from tests.chaos.run import Run, Scenario, each_once, mixed

pytestmark = [pytest.mark.kafka, pytest.mark.alone, pytest.mark.timeout(420)]

SEED = int(os.environ.get("CHAOS_SEED", "20261122"))

#: A session of 6 s, a start, a takeover; faults come faster than one of them is over, and the machine may be busy.
SILENT_S = 60.0


async def observed(broker: KafkaBroker, connection: Connection, folder: Path, scenario: Scenario) -> Observed:
    """What was recorded of the run; the broker is in service again, however it ended."""
    try:
        return await Run(broker, connection, folder, scenario, SEED, print).run()
    finally:
        await broker.start()


def assert_all_claims_hold(seen: Observed, scenario: Scenario) -> None:
    checked = check(seen)
    print("\n".join(lines(seen, checked, scenario.steady)))  # noqa: T201
    assert {each.number: each.violations for each in checked if each.violations} == {}
    assert missed(scenario.bounds, seen, scenario.steady) == []
    assert max(each.seconds for each in silences(seen, scenario.steady)) < SILENT_S
    assert {(each.kind, each.target.partition("-")[0]) for each in seen.faults} >= scenario.plan.counts.keys()


async def test_all_claims_hold_through_one_fault_of_every_kind(
    kafka_broker: KafkaBroker, kafka_connection: Connection, tmp_path: Path
):
    """Three dispatchers, one node; each service is killed and stopped, two freeze, one joins, the broker restarts."""
    scenario = each_once(75.0)
    assert_all_claims_hold(await observed(kafka_broker, kafka_connection, tmp_path, scenario), scenario)


@pytest.mark.long
async def test_all_claims_hold_through_faults_that_come_before_the_last_is_over(
    kafka_broker: KafkaBroker, kafka_connection: Connection, tmp_path: Path
):
    """Sixteen in half the time."""
    scenario = mixed(45.0)
    assert_all_claims_hold(await observed(kafka_broker, kafka_connection, tmp_path, scenario), scenario)


@pytest.mark.long
async def test_all_claims_hold_while_each_of_three_nodes_is_killed(
    kafka_cluster: KafkaBroker, cluster_connection: Connection, tmp_path: Path
):
    scenario = mixed(40.0, nodes=3, per_second=20.0)
    assert_all_claims_hold(await observed(kafka_cluster, cluster_connection, tmp_path, scenario), scenario)
