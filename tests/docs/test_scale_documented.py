"""docs/scale.md has the tables that `bench/scale.py` reckons, from figures that bench/README.md has."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import scale
from bench.scale import GIVEN, RATES, WRITTEN, Installation, Plan, most_per_installation, tables
from services.dispatcher.app import RETRY_BOUNDS
from services.dispatcher.fan_out import ENDS_REFRESH_S
from services.runtime.settings import DispatcherSettings
from streams import topics
from streams.topics import Partitions

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
FIGURES = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
SECTIONS = {
    title.strip(): [line for line in text.splitlines() if line.startswith("|")]
    for title, _, text in (part.partition("\n") for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:])
}
#: What was never reckoned by a formula.
BY_HAND = "What breaks first"


@pytest.mark.parametrize("heading", tables())
def test_every_table_is_as_it_is_reckoned(heading):
    assert SECTIONS[heading] == tables()[heading], "python -m bench scale prints it"


def test_no_other_table_is_made_up():
    assert {heading for heading, lines in SECTIONS.items() if lines} == {*tables(), BY_HAND}


@pytest.mark.parametrize("each", [each for each in GIVEN if each.kind == "measured"], ids=lambda each: each.what)
def test_what_is_called_measured_stands_among_the_figures(each):
    assert each.source in FIGURES
    # The figure itself, or what it is a third of.
    said = {float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", each.source)}
    assert said & {each.value, each.value * 3}


@pytest.mark.parametrize("each", WRITTEN, ids=lambda each: each.topic.name)
def test_bytes_of_topics_stand_among_the_figures(each):
    [row] = re.findall(rf"^\| `{each.topic.name}` \| ([\d,.]+) \|.*$", FIGURES, re.MULTILINE)

    assert float(row.replace(",", "")) == each.bytes


def test_nothing_beyond_what_was_run_is_called_measured():
    rows = [line for heading in ("One installation", "Three rates") for line in tables()[heading]]

    assert rows
    assert not [line for line in rows if "measured" in line]


def test_the_defaults_are_those_of_a_full_installation():
    assert Installation(most_per_installation()).partitions == Partitions()
    assert f"{most_per_installation():,} deliveries a second" in PAGE
    counts = [Plan(rate).installations for rate in RATES]
    assert f"100,000/s are {counts[1]} of them, 1,000,000/s are {counts[2]}" in PAGE


def test_bounds_in_the_text_are_the_code_s():
    own = DispatcherSettings()
    assert f"{own.max_unfinished_records:,} records or {own.max_unfinished_bytes >> 20} MiB" in PAGE
    retries = len(topics.RETRIES) * len(topics.SLOT_TENTHS) * RETRY_BOUNDS.unfinished_bytes >> 20
    assert f"{retries} MiB of the retry topics" in PAGE
    assert f"{ENDS_REFRESH_S:.0f} s ago at most" in PAGE
    assert f"hence {scale.MOST_BY_INTEGRATION} at most" in PAGE


@given(st.integers(1, 2_000_000), st.integers(1, 2_000_000))
def test_more_deliveries_never_need_less(one, other):
    less, more = sorted((one, other))

    for what in ("installations", "brokers", "kept_tb"):
        assert getattr(Plan(less), what) <= getattr(Plan(more), what)


@given(st.integers(1, 5_000_000))
def test_no_installation_is_planned_for_more_than_its_history_folds(per_s):
    plan = Plan(per_s)

    assert plan.each.per_s <= most_per_installation()
    assert plan.each.history < 1
    assert plan.each.dispatchers <= plan.partitions.by_integration
    assert plan.installations * plan.each.per_s == pytest.approx(per_s)
