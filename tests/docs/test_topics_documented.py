"""What docs/topics.md says beside its tables, and what those are made of, is what the code does."""

from pathlib import Path

from services.dispatcher.put_back import HEADER
from services.runtime.metrics import TOPIC
from streams.asyncapi import KEYS
from streams.codec import released
from streams.topics import FILLER_HEADER, MOVED_HEADER, PUT_BACK_HEADER, TOPICS
from streams.trace_context import TRACEPARENT, TRACESTATE

PAGE = (Path(__file__).parents[2] / "docs" / "topics.md").read_text(encoding="utf-8")


def test_the_headers_that_are_declared_are_those_that_are_written():
    written = {HEADER, PUT_BACK_HEADER, TRACEPARENT, TRACESTATE, MOVED_HEADER, FILLER_HEADER}

    assert {name for topic in TOPICS for name, _ in topic.headers} == written


def test_the_headers_of_mending_are_on_what_a_group_reads_and_commits():
    """Kafka moves nothing of a compacted topic: `streams.mending.lost_partitions`."""
    can_be_mended = {topic.name for topic in TOPICS if topic.name in TOPIC.values and topic.cleanup != "compact"}
    declared = {
        header: {topic.name for topic in TOPICS if header in dict(topic.headers)}
        for header in (MOVED_HEADER, FILLER_HEADER)
    }

    assert declared == {MOVED_HEADER: can_be_mended, FILLER_HEADER: can_be_mended}


def test_every_kind_of_key_is_some_topic_s():
    assert {topic.key for topic in TOPICS} == {*KEYS, "none"}


def test_every_schema_is_some_topic_s():
    assert {name for topic in TOPICS for name in topic.values} == {name for name, _ in released().values()}


def test_the_marker_s_id_is_the_released_one():
    numbers = [number for number, (name, _) in released().items() if name in ("marker", "hand_over")]

    assert all(f"{number:,}" in PAGE for number in numbers)
