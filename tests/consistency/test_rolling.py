"""
All services as processes on Apache Kafka under load, while each is replaced by another release, and while they are
joined by others and leave.

The claims are those of `tests/chaos/claims.py`; as nothing crashes, no request may be repeated. The other release is
one that does not exist yet: this one, whose records have a field more, under schemas that this one does not have; and,
where the history is here, a real one: the last commit that lacks the newest schema.
"""

from pathlib import Path

import pytest

from services.cli.brokers.kafka import KafkaBroker
from streams import codec, topics
from streams.connection import Connection
from tests.chaos.bounds import missed
from tests.chaos.claims import check, repeats, silences
from tests.chaos.observed import Observed
from tests.chaos.releases import NEXT, before_the_newest_schema, of_commit
from tests.chaos.report import lines
from tests.chaos.run import Run, Scenario, scale, upgrade
from tests.later import FIRST_ID

pytestmark = [pytest.mark.kafka, pytest.mark.alone, pytest.mark.timeout(420)]

SEED = 20261122

#: A stop and a start, each with a rebalance, on a busy machine.
SILENT_S = 30.0


def assert_all_claims_hold_and_nothing_is_repeated(seen: Observed, scenario: Scenario) -> None:
    checked = check(seen)
    print("\n".join(lines(seen, checked, scenario.steady)))  # noqa: T201
    assert {each.number: each.violations for each in checked if each.violations} == {}
    assert missed(scenario.bounds, seen, scenario.steady) == []
    assert repeats(seen) == 0
    assert max(each.seconds for each in silences(seen, scenario.steady)) < SILENT_S
    done = [(each.kind, each.target.partition("-")[0]) for each in seen.faults]
    assert sorted(done) == sorted((each.kind, each.target.partition("-")[0]) for each in scenario.script)


async def test_every_process_is_replaced_by_the_next_release_and_back_without_a_schema_registry(
    kafka_broker: KafkaBroker, kafka_connection: Connection, tmp_path: Path
):
    scenario = upgrade(times=2, every_s=3.0, is_patient=False)
    run = Run(kafka_broker, kafka_connection, tmp_path, scenario, SEED, print, newer=NEXT)
    seen = await run.run()

    assert_all_claims_hold_and_nothing_is_repeated(seen, scenario)
    for topic in (topics.EVENTS, topics.FAN_OUT, topics.DELIVERIES, topics.RESULTS, topics.INTEGRATION_CONFIG):
        ids = seen.schema_ids[topic.name]
        assert min(ids) < FIRST_ID <= max(ids), f"{topic.name} is written by one of the releases alone"


@pytest.mark.long
async def test_every_process_of_an_earlier_commit_is_replaced_by_this_one_and_back(
    kafka_broker: KafkaBroker, kafka_connection: Connection, tmp_path: Path
):
    try:
        older = of_commit(before_the_newest_schema(), tmp_path / "older")
    except LookupError as why:
        pytest.skip(str(why))
    known = {int(file.name.partition("-")[0]) for file in (older.folder / "schemas" / "released").glob("*.avsc")}
    added = codec.released().keys() - known
    scenario = upgrade(times=2, every_s=3.0, is_patient=False)
    seen = await Run(kafka_broker, kafka_connection, tmp_path, scenario, SEED, print, older=older).run()

    assert_all_claims_hold_and_nothing_is_repeated(seen, scenario)
    assert added
    names = {codec.released()[number][0] for number in added}
    for topic in (each for each in topics.TOPICS if each.values[0] in names and each.name in seen.schema_ids):
        ids = seen.schema_ids[topic.name]
        assert ids & added, f"{topic.name} is written by the older release alone"
        assert ids & known, f"{topic.name} is written by this one alone"


@pytest.mark.long
async def test_processes_of_every_service_join_and_leave(
    kafka_broker: KafkaBroker, kafka_connection: Connection, tmp_path: Path
):
    scenario = scale()
    seen = await Run(kafka_broker, kafka_connection, tmp_path, scenario, SEED, print).run()

    assert_all_claims_hold_and_nothing_is_repeated(seen, scenario)
