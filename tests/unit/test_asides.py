"""What was put aside, as it is folded and shown, and what may be put back."""

import pytest
from aiokafka import ConsumerRecord

from services.cli.asides import PUT_BACK_TO, Asides
from streams import codec, topics
from streams.connection import Connection
from streams.quarantine import was_put_back
from streams.records import Marker, PutBack, Quarantined
from tests.logs import make_event
from tests.records import make_delivery, make_integration

CONNECTION = Connection("x:1", "staging.")
NAMES = {CONNECTION.topic(topic): topic.name for topic in topics.TOPICS}
DELIVERY = make_delivery(payload=b'{"secret": "of the payload"}')


def aside(record=DELIVERY, topic=topics.DELIVERIES, **changes) -> Quarantined:
    fields = {
        "topic": CONNECTION.topic(topic),
        "partition": 2,
        "offset": 17,
        "key": b"int_1",
        "value": record if isinstance(record, bytes | None) else codec.encode(record),
        "headers": [],
        "code": "record.unreadable",
        "reason": "schema id 7 is unknown",
        "agent": "lanes",
        "at_ms": 1_000,
    }
    return Quarantined(**fields | changes)


def back(of: int, **changes) -> PutBack:
    fields = {"quarantine_offset": of, "topic": "staging.deliveries", "partition": 2, "offset": 90, "by": "anna"}
    return PutBack(**fields | {"at_ms": 5_000} | changes)


def folded(*records) -> Asides:
    found = Asides(NAMES)
    for offset, record in enumerate(records):
        found.see(offset, record)
    return found


def refusal(*args, again=False, **changes) -> str | None:
    one = folded(aside(*args, **changes)).get(0)
    assert one is not None
    return one.refusal(again=again)


def test_what_was_put_back_stays_listed_with_the_last_time_and_can_be_left_out():
    found = folded(aside(), aside(code="attempt.raised"), back(0), back(0, by="ben"), back(9))

    assert [(each.id, each.back and each.back.by) for each in found.those()] == [(0, "ben"), (1, None)]
    assert [each.id for each in found.those(only_left=True)] == [1]
    assert [each.id for each in found.those(code="record.unreadable")] == [0]
    assert found.those(topic="events") == []
    assert found.get(2) is None


def test_it_is_shown_with_what_it_is_and_nothing_of_its_payload():
    [of_delivery, of_event, unreadable, elsewhere] = [
        each.document()
        for each in folded(
            aside(), aside(make_event(), topics.EVENTS), aside(b"\xffnobody's"), aside(topic=topics.AUDIT, key=b"\xff")
        ).those()
    ]

    assert of_delivery == {
        "id": 0,
        "at": "1970-01-01T00:00:01.000Z",
        "code": "record.unreadable",
        "reason": "schema id 7 is unknown",
        "agent": "lanes",
        "topic": "deliveries",
        "partition": 2,
        "offset": 17,
        "key": "int_1",
        "bytes": len(codec.encode(DELIVERY)),
        "kind": "Delivery",
        "app": "demo",
        "event": DELIVERY.type,
        "eventId": DELIVERY.event_id,
        "delivery": DELIVERY.delivery_id,
        "putBack": None,
    }
    assert (of_event["kind"], of_event["topic"], of_event["delivery"]) == ("Event", "events", None)
    assert (unreadable["kind"], unreadable["bytes"], unreadable["eventId"]) == (None, 9, None)
    assert elsewhere["key"] == r"\xff"


@pytest.mark.parametrize("topic", [topics.DELIVERIES, *topics.RETRIES], ids=lambda topic: topic.name)
def test_deliveries_are_put_back_to_where_deliveries_are_read(topic):
    assert refusal(topic=topic) is None


@pytest.mark.parametrize(
    ("why", "made"),
    [
        ("this release cannot read it either", {"record": b"\0\0\0\0\7"}),
        ("no value", {"record": None}),
        ("a Marker, which has no place", {"record": Marker(
            source_topic="t", source_partition=0, generation=1, owner="w", at_ms=0)}),
        ("a Delivery, which has no place", {"topic": topics.EVENTS}),
        ("only events and deliveries", {"record": make_integration(), "topic": topics.INTEGRATION_CONFIG}),
        ("it comes from other.deliveries", {"changed": "other.deliveries"}),
    ],
)  # fmt: skip
def test_what_nobody_there_could_work_on_is_refused(why, made):
    own = {"topic": made["changed"]} if "changed" in made else {}
    one = aside(made.get("record", DELIVERY), made.get("topic", topics.DELIVERIES))
    [found] = folded(Quarantined(**{name: getattr(one, name) for name in one.__struct_fields__} | own)).those()

    assert why in found.refusal(again=True)


def test_it_is_put_back_once_unless_somebody_says_again():
    [once] = folded(aside(), back(0)).those()

    assert "at 1970-01-01T00:00:05.000Z by anna" in once.refusal(again=False)
    assert once.refusal(again=True) is None


def test_every_topic_to_which_it_may_go_says_the_header():
    said = {topic.name for topic in topics.TOPICS if topics.PUT_BACK_HEADER in dict(topic.headers)}

    assert said == set(PUT_BACK_TO)


def test_a_record_says_by_its_header_that_it_was_put_back():
    def record(*headers):
        return ConsumerRecord("t", 0, 0, 0, 0, b"k", b"v", None, 1, 1, headers)

    assert was_put_back(record(("tenterhook-retry", b"x"), (topics.PUT_BACK_HEADER, b"3")))
    assert not was_put_back(record(("tenterhook-retry", b"x")))
    assert not was_put_back(record())
