"""Schemas of newer releases from the topic of schemas: learned, asked for, and refused where they differ."""

import json

import pytest
import structlog
from aiokafka.errors import KafkaConnectionError

from streams import codec, schema_topic
from streams.codec import Unreadable
from streams.records import SharedSchema
from streams.schema_topic import Asker, Texts
from tests.breaking import make_result
from tests.later import FIELD, id_of, text_of, written
from tests.records import make_delivery

LATER = id_of("result")
RECORD = written("result", make_result())
OWN = {number: text for number, (_, text) in codec.released().items()}


class Topic:
    """What is on the topic, counting who reads it."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts
        self.reads = 0
        self.now_s = 0.0
        self.is_away = False

    def read(self) -> Texts:
        self.reads += 1
        if self.is_away:
            raise KafkaConnectionError("away")
        return self.texts


@pytest.fixture
def topic():
    """Nothing is there but what every release has; the codec asks it."""
    found = Topic({number: [text] for number, text in OWN.items()})
    codec.use_topic(Asker("schemas", found.read, clock_s=lambda: found.now_s).text)
    return found


def reason_of(data: bytes) -> str:
    with pytest.raises(Unreadable) as told:
        codec.decode(data)
    return str(told.value)


def test_a_newer_release_s_record_is_read_without_what_is_new_by_a_schema_that_was_told(topic):
    told = codec.encode(SharedSchema(id=LATER, text=text_of("result")))

    schema_topic.learn(b"...", told, 0)

    assert FIELD in text_of("result")
    assert codec.decode(RECORD) == make_result()
    assert topic.reads == 0
    assert codec.text_of(LATER) == text_of("result")


def test_a_record_that_comes_before_its_schema_is_read_by_asking_once_for_all_of_that_release(topic):
    topic.texts = {**topic.texts, LATER: [text_of("result")], id_of("delivery"): [text_of("delivery")]}

    assert codec.decode(RECORD) == codec.decode(RECORD) == make_result()
    assert codec.decode(written("delivery", make_delivery())) == make_delivery()
    assert topic.reads == 1


def test_what_is_not_there_is_no_record_and_not_asked_for_again_for_a_while(topic):
    assert "is unknown: written by a newer release, or not by tenterhook" in reason_of(RECORD)
    reason_of(RECORD)
    assert topic.reads == 1

    topic.texts = {**topic.texts, LATER: [text_of("result")]}
    topic.now_s = 5.0

    assert codec.decode(RECORD) == make_result()


def test_a_topic_that_cannot_be_read_is_left_alone_for_a_while(topic):
    topic.is_away = True
    assert "the topic schemas cannot be read (KafkaConnectionError)" in reason_of(RECORD)
    topic.is_away, topic.texts = False, {**topic.texts, LATER: [text_of("result")]}
    assert "the topic schemas cannot be read" in reason_of(RECORD)
    assert topic.reads == 1

    topic.now_s = 5.0

    assert codec.decode(RECORD) == make_result()


@pytest.mark.parametrize(
    "text",
    ["no JSON", '"string"', '{"type": "record", "name": "OfTheNextRelease", "namespace": "tenterhook", "fields": []}'],
)
def test_a_kind_that_this_release_does_not_have_is_no_record(topic, text):
    codec.learn(LATER, text)

    assert "is in the topic of schemas, and of no record of ours" in reason_of(RECORD)
    assert topic.reads == 0
    assert codec.text_of(LATER) is None


def test_what_is_known_of_an_id_stays(topic):
    own = codec.encode(make_result())
    with structlog.testing.capture_logs() as lines:
        for number, names in ((codec._newest()[type(make_result())].id, ["event"]), (LATER, ["result", "event"])):
            for name in names:
                schema_topic.learn(None, codec.encode(SharedSchema(id=number, text=text_of(name))), 0)

    assert codec.decode(own) == codec.decode(RECORD) == make_result()
    assert [each["event"] for each in lines] == ["schema.changed"] * 2
    assert topic.reads == 0


def test_ids_of_a_registry_are_not_looked_for_there(topic):
    assert "schema id 7 is unknown" in reason_of(b"\x00\x00\x00\x00\x07 something")
    assert topic.reads == 0


def test_garbage_on_the_topic_is_passed_over(topic):
    schema_topic.learn(None, b"garbage", 0)
    schema_topic.learn(None, None, 1)
    schema_topic.learn(None, codec.encode(make_result()), 2)

    assert "is unknown" in reason_of(RECORD)


def test_an_id_with_another_schema_is_told_and_one_with_other_words_is_not():
    number, text = next((number, text) for number, (name, text) in codec.released().items() if name == "marker")
    reworded = json.loads(text)
    reworded["doc"] = reworded["fields"][0]["doc"] = "In other words."
    other = json.loads(text)
    other["fields"][0]["type"] = "bytes"

    assert schema_topic.compared("t", OWN, {}) == []
    assert schema_topic.compared("t", OWN, {number: [text, json.dumps(reworded)], LATER: ["anything"]}) == []
    for texts in ([json.dumps(other)], [text, json.dumps(other)], ["no schema"]):
        (sentence,) = schema_topic.compared("t", OWN, {number: texts})
        assert sentence.startswith(f"topic t has another schema under the id {number} than this release")
