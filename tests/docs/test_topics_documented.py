"""What docs/topics.md says beside its tables, and what those are made of, is what the code does."""

from pathlib import Path

from services.dispatcher.put_back import HEADER
from streams.asyncapi import KEYS
from streams.codec import released
from streams.topics import PUT_BACK_HEADER, TOPICS
from streams.trace_context import TRACEPARENT, TRACESTATE

PAGE = (Path(__file__).parents[2] / "docs" / "topics.md").read_text(encoding="utf-8")


def test_the_headers_that_are_declared_are_those_that_are_written():
    assert {name for topic in TOPICS for name, _ in topic.headers} == {HEADER, PUT_BACK_HEADER, TRACEPARENT, TRACESTATE}


def test_every_kind_of_key_is_some_topic_s():
    assert {topic.key for topic in TOPICS} == {*KEYS, "none"}


def test_every_schema_is_some_topic_s():
    assert {name for topic in TOPICS for name in topic.values} == {name for name, _ in released().values()}


def test_the_marker_s_id_is_the_released_one():
    numbers = [number for number, (name, _) in released().items() if name in ("marker", "hand_over")]

    assert all(f"{number:,}" in PAGE for number in numbers)
