"""Schedules of faults: the same for the same seed, and all that was asked for."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.run import each_once, kills, mixed, recovery, scale, upgrade
from tests.chaos.schedule import Plan, schedule

PLAN = Plan(60.0, {("kill", "dispatcher"): 4, ("freeze", "breaker"): 2, ("node", "node"): 3}, workers=3, nodes=3)


def test_the_same_seed_gives_the_same_schedule_and_another_one_another():
    assert schedule(7, PLAN) == schedule(7, PLAN)
    assert schedule(7, PLAN) != schedule(8, PLAN)


@given(st.integers(0, 10_000))
def test_everything_asked_for_happens_in_order_within_the_time(seed):
    faults = schedule(seed, PLAN)
    assert Counter(fault.kind for fault in faults) == {"kill": 4, "freeze": 2, "node": 3}
    times = [fault.at_s for fault in faults]
    assert times == sorted(times)
    assert min(times) >= 3
    assert max(times) <= 57
    assert {fault.target for fault in faults if fault.kind == "kill"} <= {f"dispatcher-{n}" for n in (1, 2, 3)}


@given(st.integers(0, 10_000))
def test_of_three_nodes_each_is_killed(seed):
    killed = [fault.target for fault in schedule(seed, PLAN) if fault.kind == "node"]
    assert sorted(killed) == ["node-1", "node-2", "node-3"]


def test_a_freeze_is_longer_than_a_session():
    assert all(fault.for_s > 6 for fault in schedule(1, PLAN) if fault.kind == "freeze")


def test_the_presets_are_what_they_are_called():
    assert len(schedule(1, kills().plan)) == 20
    assert kills().per_second == 150
    assert kills().plan.workers == 3
    of_kinds = Counter(fault.kind for fault in schedule(1, recovery().plan))
    assert of_kinds == {"kill": 5, "stop": 5}
    # Contract, recovery: what takes longer fails.
    assert recovery().bounds.silent_s == {"kill": 10.0, "stop": 3.0}
    assert recovery().steady == ("int_1", "int_2", "int_3")
    assert [mixed(45, per_second=20).bounds.least_judged, each_once(75).bounds.least_judged] == [20, 30]
    assert [mixed(1_800).bounds.least_pauses, mixed(45).bounds.least_pauses] == [105, 2]
    assert all(made().bounds.least_pauses > 1 for made in (scale, upgrade))
    # With three nodes, dispatchers have as many ways to go and come.
    assert {kind for kind, who in mixed(40, nodes=3).plan.counts if who == "dispatcher"} == {"kill", "stop", "freeze", "join"}  # fmt: skip # noqa: E501
    short = Counter((f.kind, f.target.partition("-")[0]) for f in schedule(1, mixed(45).plan))
    assert {"kill", "stop", "freeze", "join", "node"} == {kind for kind, _ in short}
    assert {"dispatcher", "breaker", "ingest", "admin", "node"} == {service for _, service in short}


def test_the_run_of_a_minute_has_every_fault_and_kills_and_stops_every_service():
    faults = [(f.kind, f.target.partition("-")[0]) for f in schedule(1, each_once(75).plan)]
    services = ("ingest", "dispatcher", "breaker", "admin")
    assert {(kind, service) for kind in ("kill", "stop") for service in services} < set(faults)
    assert {"kill", "stop", "freeze", "join", "node"} == {kind for kind, _ in faults}
    assert len(set(faults)) == len(faults) == 12


def test_scaling_joins_and_leaves_every_service_one_after_another():
    script = scale().script
    joined = [each.target for each in script if each.kind == "join"]
    left = [each.target.partition("-")[0] for each in script if each.kind == "leave"]

    assert Counter(joined) == Counter(left) == {"dispatcher": 2, "ingest": 1, "breaker": 1, "admin": 1}
    assert all(after.at_s - before.at_s >= 4 for before, after in pairwise(script))


def test_an_upgrade_replaces_every_process_there_and_back():
    steps = [(each.kind, each.target) for each in upgrade(times=2).script]
    others = ["dispatcher-1", "dispatcher-2", "breaker", "ingest"]

    assert [target for _, target in steps] == [*others, "admin", "admin", *others]
    assert [kind for kind, _ in steps] == ["update"] * 5 + ["back"] * 5


def test_an_upgrade_goes_in_the_order_of_the_documentation():
    page = (Path(__file__).parents[2] / "docs/operating.md").read_text(encoding="utf-8")
    [told] = re.findall(r"the next when it is ready: (.+?)\. On Kubernetes", page)

    assert re.findall(r"dispatchers|breakers|ingest|admin", told) == ["dispatchers", "breakers", "ingest", "admin"]
    assert "4. To go back: the same, the admin processes first." in page
