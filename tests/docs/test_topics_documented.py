"""docs/topics.md says of every topic what the code says."""

import re
from pathlib import Path

import pytest

from services.dispatcher.put_back import HEADER
from streams.codec import released
from streams.topics import DAY_MS, PUT_BACK_HEADER, TOPICS, Topic
from streams.trace_context import TRACEPARENT, TRACESTATE

PAGE = (Path(__file__).parents[2] / "docs" / "topics.md").read_text(encoding="utf-8")
ROWS = {cells[0].strip(" `"): cells for line in PAGE.splitlines() if len(cells := line.strip("|").split("|")) == 5}
SCHEMAS = {name for name, _ in released().values()}


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_topic_has_its_row(topic: Topic):
    _, key, _, cleanup, partitions = (cell.strip() for cell in ROWS[topic.name])
    number = None if topic.retention_ms is None else topic.retention_ms // DAY_MS
    longer = "delay + " if (topic.retention_ms or 0) % DAY_MS else ""
    days = "" if number is None else f", {longer}{number} day{'' if number == 1 else 's'}"
    counts = {"app": "`partitions.by_app`", "integration": "`partitions.by_integration`", "one": "1", "slot": "5"}

    assert (key, cleanup, partitions) == (topic.key, topic.cleanup + days, counts[topic.partitioned_by])


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_its_values_are_the_code_s(topic: Topic):
    cell = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", ROWS[topic.name][2])
    names = [name for name in re.findall(r"`([a-z_]+)`", cell) if name in SCHEMAS]

    assert (names[0], sorted(names)) == (topic.values[0], sorted(topic.values))
    assert topic.what in cell.replace("`", "")
    assert ("tombstone" in cell, "Internal" in cell) == (topic.tombstone is not None, topic.is_internal)


def test_every_header_of_a_record_is_there():
    names = {name for topic in TOPICS for name, _ in topic.headers}

    assert names == {HEADER, PUT_BACK_HEADER, TRACEPARENT, TRACESTATE}
    assert {name for name in names if f"`{name}`" in PAGE} == names


def test_no_topic_is_made_up():
    assert set(ROWS) - {"topic", "---"} == {topic.name for topic in TOPICS}


def test_every_schema_is_said_to_be_somewhere():
    assert {name for topic in TOPICS for name in topic.values} == SCHEMAS <= set(re.findall(r"`([a-z_]+)`", PAGE))


def test_the_marker_s_id_is_the_released_one():
    numbers = [number for number, (name, _) in released().items() if name in ("marker", "hand_over")]

    assert all(f"{number:,}" in PAGE for number in numbers)
