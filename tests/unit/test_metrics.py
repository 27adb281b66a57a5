"""Metrics: declared in one place, named as Prometheus wants it, set somewhere, and bounded whatever customers do."""

import ast
import re
from collections import Counter as Tally
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.breaker.gauges import by_state
from services.dispatcher.counted import Silent, count_result
from services.dispatcher.gauges import Gauges
from services.dispatcher.line import Reason
from services.dispatcher.queues import Queue, percentile, samples
from services.dispatcher.sender import FailureCode
from services.runtime import kinds, metrics
from services.runtime.metric import OTHER, Asked, Counter, Exposed, Histogram, Label
from streams import topics
from streams.producer import partition_of
from streams.records import Outcome
from streams.states import States
from tests.breaking import make_result
from tests.records import make_integration

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("services", "streams") for path in (ROOT / folder).rglob("*.py"))


def names_of_metrics():
    return {name for name, found in vars(metrics).items() if isinstance(found, metrics.Metric)}


@cache
def trees():
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES]


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


# -- one place -----------------------------------------------------------------------------------------------


def test_nothing_else_makes_a_metric():
    makers = {
        str(path.relative_to(ROOT))
        for path, tree in trees()
        for name in imported(tree)
        if name.startswith("prometheus_client")
    }

    assert makers == {"services/runtime/metric.py", "services/runtime/serving.py"}  # the latter shows them


def test_every_metric_is_set_somewhere():
    used = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "services.runtime.metrics":
                used.update(alias.name for alias in node.names)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "metrics":
                used.add(node.attr)
            elif isinstance(node, ast.Attribute) and node.attr == "of" and isinstance(node.value, ast.Name):
                used.add(node.value.id)

    assert names_of_metrics() - used == set()


@pytest.mark.parametrize("metric", metrics.DECLARED, ids=lambda metric: metric.name)
def test_names_follow_prometheus(metric):
    assert re.fullmatch(r"tenterhook(_[a-z]+)+", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert metric.unit not in {"seconds", "bytes"} or metric.name.endswith(f"_{metric.unit}")
    assert not re.search(r"_(ms|milliseconds|minutes|kb|count|sum|bucket)(_|$)", metric.name)
    assert metric.meaning.endswith(".")
    assert metric.services
    assert all(re.fullmatch("[a-z]+", label.name) and label.name not in {"le", "job"} for label in metric.labels)
    assert all(bool(label.values) != bool(label.at_most) for label in metric.labels)


def test_no_name_is_used_twice():
    assert [name for name, count in Tally(metric.name for metric in metrics.DECLARED).items() if count > 1] == []


def test_closed_labels_have_the_values_of_the_code():
    raised, put_aside = set(), set()
    for path, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if isinstance(node.func, ast.Name) and node.func.id == "Problem":
                if "ingest" in path.parts or path.name == "problems.py":
                    raised.add(getattr(kinds, node.args[0].attr).code)
            elif ast.unparse(node.func).endswith(("uarantine.put", "_put_aside")):
                put_aside.update(text for text in texts if re.fullmatch(r"[a-z]+\.[a-z]+", str(text)))

    assert set(metrics.REFUSAL.values) == raised
    assert set(metrics.PUT_ASIDE_CODE.values) == put_aside
    assert set(metrics.FAILURE.values) == set(get_args(FailureCode))
    assert set(metrics.DETACHED_FOR.values) == set(get_args(Reason))
    assert set(metrics.OUTCOME.values) == {*get_args(Outcome), "retry"}


# -- bounded -------------------------------------------------------------------------------------------------

odd = st.text() | st.sampled_from(["2xx", "delivered", "key_unknown", "retry.5s", 'a"b', "\n", "../..", "0" * 300])
CALLS = st.lists(
    st.tuples(st.sampled_from(metrics.DECLARED), st.lists(odd, min_size=2, max_size=2), st.floats(0, 1e9)), max_size=60
)


def fresh():
    """The declared metrics, with nothing counted yet."""
    made = {}
    for metric in metrics.DECLARED:
        own = {field: getattr(metric, field) for field in metric.__dataclass_fields__ if not field.startswith("_")}
        made[metric.name] = type(metric)(**own)
    return made


def series(exposed):
    """How many of each metric, the buckets of a histogram counted once."""
    found = Tally()
    for family in exposed.collect():
        for sample in family.samples:
            if family.type != "histogram" or sample.name.endswith("_sum"):
                found[sample.name.removesuffix("_sum")] += 1
    return found


@given(CALLS)
def test_labels_stay_bounded_whatever_is_counted(calls):
    made = fresh()
    exposed = Exposed(made.values())
    for service in metrics.ALL:
        exposed.begin(service)
    answers = []
    for declared, texts, value in calls:
        metric, labels = made[declared.name], texts[: len(declared.labels)]
        match metric:
            case Counter():
                metric.inc(*labels, by=value)
            case Histogram():
                metric.observe(value, *labels)
            case Asked():
                answers.append(metric.of(value, *labels))
    with exposed.answering(lambda: answers):
        shown = series(exposed)

    assert shown.keys() <= made.keys()
    assert {name: count for name, count in shown.items() if count > made[name].series} == {}
    # All that one process shows, of all services at once, its buckets apart.
    assert sum(metric.series for metric in made.values()) < 600


@given(st.dictionaries(st.text(), st.floats(0, 1e6), max_size=40))
def test_of_an_open_label_the_ten_largest_are_shown_and_others_are_gone(values):
    worst = Asked(name="worst", unit="seconds", meaning="Worst.", services=("ingest",), labels=(metrics.INTEGRATION,))
    exposed = Exposed([worst])
    exposed.begin("ingest")
    answers = [worst.of(1e9, "before")]
    with exposed.answering(lambda: answers):
        series(exposed)
        answers[:] = [worst.of(value, name) for name, value in values.items()]
        [family] = exposed.collect()

    assert sorted(each.value for each in family.samples) == sorted(values.values())[-10:]
    assert all(values[each.labels["integration"]] == each.value for each in family.samples)


@given(st.lists(st.floats(0, 20) | st.sampled_from(metrics.ATTEMPT_SECONDS.buckets)))
def test_a_histogram_is_as_the_client_library_makes_it(values):
    ours = fresh()[metrics.ATTEMPT_SECONDS.name]
    ours.begin("dispatcher")
    theirs = prometheus_client.Histogram(ours.name, ours.meaning, registry=None, buckets=ours.buckets)
    for value in values:
        ours.observe(value)
        theirs.observe(value)

    [expected] = theirs.collect()

    kept = [(each.name, each.labels, each.value) for each in expected.samples if not each.name.endswith("_created")]
    assert [(each.name, each.labels, each.value) for each in ours.family().samples] == kept


def test_a_process_shows_its_own_metrics_from_the_start_with_zeros():
    made = fresh()
    exposed = Exposed(made.values())
    exposed.begin("ingest")

    shown = series(exposed)

    assert shown["tenterhook_ingest_refused_total"] == len(metrics.REFUSAL.values)
    assert shown["tenterhook_http_requests_total"] == len(metrics.STATUS.values)
    assert not any("attempt" in name or "breaker" in name for name in shown)


def test_what_one_source_does_wrong_hides_no_other():
    number = Asked(name="number", unit="things", meaning="Some.", services=("ingest",))
    exposed = Exposed([number])
    exposed.begin("ingest")

    def wrong():
        raise ValueError

    with exposed.answering(wrong), exposed.answering(lambda: [number.of(7)]):
        assert [each.value for family in exposed.collect() for each in family.samples] == [7]
    assert series(exposed) == {}


@pytest.mark.parametrize(
    ("label", "value", "shown"),
    [(Label("a", ("x",), "A."), "x", "x"), (Label("a", ("x",), "A."), "y", OTHER), (Label("a", (), "", 3), "y", "y")],
)
def test_a_label_says_other_for_what_it_does_not_know(label, value, shown):
    assert label.bounded(value) == shown


# -- what is counted -----------------------------------------------------------------------------------------


@given(
    status=st.none() | st.integers(-5, 10_000),
    reason=st.text() | st.sampled_from(metrics.FAILURE.values),
    outcome=st.none() | st.sampled_from(get_args(Outcome)),
    attempt=st.integers(0, 9),
)
def test_every_result_counts_once_in_a_series_that_was_there_before(status, reason, outcome, attempt):
    before, unanswered = dict(metrics.ATTEMPTS._counted), sum(metrics.UNANSWERED._counted.values())

    count_result(make_result(status=status, reason=reason, outcome=outcome, attempt=attempt))

    assert sum(metrics.ATTEMPTS._counted.values()) == sum(before.values()) + 1
    assert len(metrics.ATTEMPTS._counted) <= metrics.ATTEMPTS.series
    is_unanswered = attempt > 0 and reason in metrics.FAILURE.values
    assert sum(metrics.UNANSWERED._counted.values()) == unanswered + is_unanswered


def test_an_integration_is_without_an_answer_until_it_answers_or_is_not_asked_any_more():
    silent = Silent()
    for integration, reason, at_ms in (
        ("int_dead", "timeout", 0),
        ("int_later", "dns_failed", 500_000),
        ("int_mended", "reset", 0),
        ("int_mended", "status_500", 1),
        ("int_private", "address_refused", 0),
    ):
        silent.take(make_result(integration=integration, reason=reason, finished_at_ms=at_ms))

    assert silent.count(900_000, _any) == 2
    assert silent.count(900_001, _any) == 1
    assert silent.count(2_000_000, _any) == 0


def test_an_integration_without_an_answer_is_counted_by_the_worker_that_has_its_partition_and_forgotten_by_others():
    number = partition_of(b"int_dead", list(range(16)), [])
    owned = {number, (number + 1) % 16}
    gauges = Gauges(
        app=SimpleNamespace(assigned=lambda topic: owned if topic == topics.DELIVERIES else set()),
        partitions=topics.Partitions(by_integration=16),
        **dict.fromkeys(("lanes", "readers", "replaying", "integrations", "apps", "states", "now_ms")),
    )
    silent = Silent()
    for integration in ("int_dead", _on_another_than(owned)):
        silent.take(make_result(integration=integration, reason="timeout", finished_at_ms=0))

    assert silent.count(1, _any) == 2
    assert silent.count(1, gauges._is_ours()) == 1
    owned = None  # while the group assigns them anew
    assert silent.count(1, gauges._is_ours()) == 1
    owned = {(number + 1) % 16}
    assert silent.count(1, gauges._is_ours()) == 0
    owned = {number}  # somebody else has tried it meanwhile
    assert silent.count(1, gauges._is_ours()) == 0


def _any(_):
    return True


def _on_another_than(numbers):
    names = (f"int_{n}" for n in range(100))
    return next(each for each in names if partition_of(each.encode(), list(range(16)), []) not in numbers)


def told(queues, failing=(), now_ms=1_000_000):
    found = {}
    for metric, labels, value in samples(queues, lambda name: name in failing, now_ms):
        found.setdefault(metric.name.removeprefix("tenterhook_"), {})[labels] = value
    return found


def test_queues_are_told_by_percentile_apart_from_what_is_held():
    queues = [
        Queue("int_late", 30, 940_000, False, "blocked", kept=1, due_ms=1_020_000),
        Queue("int_new", 2, 999_000, False, None, kept=3, due_ms=993_000),
        Queue("int_paused", 500, 100_000, True, "paused", kept=1, due_ms=500_000),
        Queue("int_empty", 0, None, False, None),
        Queue("int_now", 9, 999_001, False, None),
        Queue("int_dead", 70_000, 10_000, False, "behind"),
    ]

    found = told(queues, failing={"int_dead"})

    assert found["queue_deliveries"] == {(): 70_041}
    assert found["queue_integrations"] == {(): 3}
    assert found["queue_age_seconds"] == {("50",): 0.999, ("90",): 60, ("99",): 60, ("100",): 60}
    assert found["queue_depth_deliveries"] == {("50",): 2, ("90",): 30, ("99",): 30, ("100",): 30}
    # Whoever waits for milliseconds, a few deep, is not named: it is another one at each look.
    assert found["queue_worst_age_seconds"] == {("int_late",): 60, ("int_new",): 1, ("int_dead",): 990}
    assert found["queue_worst_depth_deliveries"] == {("int_late",): 30, ("int_dead",): 70_000}
    assert found["retries_waiting_in_line_deliveries"] == {(): 4}
    assert found["dispatcher_retry_in_line_overdue_seconds"] == {(): 7}
    assert (found["held_deliveries"], found["held_integrations"]) == ({(): 500}, {(): 1})
    assert found["held_oldest_seconds"] == {(): 900}
    assert found["detached_integrations"] == {("paused",): 1, ("behind",): 1, ("blocked",): 1, ("other",): 0}
    assert found["detached_backlog_deliveries"] == {(): 70_030}


def test_an_integration_fails_when_the_breaker_says_so_of_the_epoch_that_it_is_in():
    states = States()
    for name, state, epoch in (("now", "failing", 2), ("before", "failing", 1), ("well", "active", 2)):
        states._by_id[name] = SimpleNamespace(state=state, epoch=epoch)
    configs = {name: make_integration(name, epoch=2) for name in ("now", "before", "well", "new")}
    others = dict.fromkeys(("app", "lanes", "readers", "replaying", "apps", "now_ms"))
    gauges = Gauges(integrations=configs, states=states, partitions=topics.Partitions(), **others)

    assert [name for name in (*configs, "gone") if gauges._is_failing(name)] == ["now"]


def behind(names, waiting):
    return [Queue(name, waiting, 100_000, False, "behind") for name in names]


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_one_integration_is_no_reason_for_further_dispatchers_and_many_are(slow, dead, blocked):
    """A receiver that is slow, dead or in another's way, however long its line is."""
    lines = [Queue("int_dead", dead, 1, False, "behind"), Queue("int_blocked", blocked, 1, False, "blocked")]

    one = told([*behind(["int_slow"], slow), *lines], failing={"int_dead"})
    many = told([*behind([f"int_{n}" for n in range(50)], 2_000), *lines], failing={"int_dead"})

    assert one["detached_backlog_deliveries"] == {(): slow + dead + blocked}
    assert one["detached_backlog_shared_deliveries"] == {(): min(slow, 1_000)}
    assert many["detached_backlog_shared_deliveries"] == {(): 50_000}


@given(st.lists(st.floats(0.001, 1e6)), st.integers(0, 200), st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(listed, idle, percent):
    every = sorted([0.0] * idle + listed)

    found = percentile(sorted(listed), len(every), percent)

    if not every:
        assert found == 0
        return
    assert found in every
    assert sum(value <= found for value in every) * 100 >= percent * len(every)
    assert found == every[0] or sum(value < found for value in every) * 100 < percent * len(every)


def test_integrations_are_told_by_what_counts_of_them_now():
    states = States()
    configs = [make_integration(f"int_{name}", epoch=2) for name in ("new", "failing", "paused", "old", "person")]
    configs[-1] = make_integration("int_person", epoch=2, status="paused")
    for name, state, epoch in (("failing", "failing", 2), ("paused", "paused", 2), ("old", "paused", 1)):
        states._by_id[f"int_{name}"] = SimpleNamespace(state=state, epoch=epoch)

    assert by_state(configs, states) == {"active": 2, "failing": 1, "paused": 1, "paused_by_person": 1}
