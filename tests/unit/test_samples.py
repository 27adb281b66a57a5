"""The samples of the built-in types are events that ingest takes, and say what tenterhook's own events say."""

from types import SimpleNamespace

import msgspec
import pytest

from schemas.catalogue import ACTIVATED_TYPE, BOOKING_TYPES, CATALOGUE, FAILING_TYPE, OWN_TYPES, PAUSED_TYPE
from schemas.samples import OWN_PAYLOAD, SAMPLES, sample_payload
from services.admin.commands import Commands
from services.admin.rules import DRAIN
from services.breaker.announce import event_of
from services.ingest import accept
from streams.records import BreakerRow
from streams.states import States
from tests.apps import make_app
from tests.records import make_integration

ROW = BreakerRow(
    integration="int_1",
    app="demo",
    epoch=1,
    failures=3,
    window=[],
    delivered=[],
    ended=[],
    recent=[],
    applied_offset=0,
)


def test_every_built_in_type_has_one_and_no_other():
    assert set(SAMPLES) == CATALOGUE | OWN_TYPES
    assert all(sample.description.endswith(".") for sample in SAMPLES.values())


@pytest.mark.parametrize("event_type", sorted(CATALOGUE))
def test_ingest_takes_it(event_type):
    payload = msgspec.json.encode(sample_payload(event_type))
    accept._check_type(event_type, make_app(), "secret")
    if event_type in BOOKING_TYPES:
        accept._check_booking(payload)

    assert (set(sample_payload(event_type)) == {"scheduled_call"}) is (event_type in BOOKING_TYPES)


def test_an_app_s_own_type_has_a_payload_that_says_it_is_a_sample():
    assert sample_payload("order_paid") == OWN_PAYLOAD == {"sample": True}


@pytest.mark.parametrize(("state", "event_type"), [("failing", FAILING_TYPE), ("paused", PAUSED_TYPE)])
def test_those_of_the_breaker_have_the_fields_that_it_tells(state, event_type):
    told = msgspec.json.decode(event_of(state, ROW, make_integration(), 0, "rec_1").payload)

    assert set(told) == set(sample_payload(event_type))
    assert told["status"] == sample_payload(event_type)["status"] == state


def test_that_of_an_activation_has_the_fields_that_it_tells():
    commands = Commands(*[None] * 3, brand="X", now_ms=lambda: 0, random=bytes, new_id=lambda: "1")
    event = commands._activation_event(make_integration(), DRAIN)

    assert set(msgspec.json.decode(event.payload)) == set(sample_payload(ACTIVATED_TYPE))


def test_a_pause_by_a_person_is_told_as_the_breaker_tells_of_its_own_under_the_same_id():
    log = SimpleNamespace(states=States())
    commands = Commands(log, None, None, brand="X", now_ms=lambda: 0, random=bytes, new_id=lambda: "1")
    event = commands._pause_event(make_integration(updated_by="ops"))
    told = msgspec.json.decode(event.payload)

    assert event.event_id == event_of("paused", ROW, make_integration(), 0, "rec_1").event_id
    assert (event.type, set(told)) == (PAUSED_TYPE, set(sample_payload(PAUSED_TYPE)))
    assert (told["by"], told["reason"], told["consecutiveFailures"]) == ("ops", "paused_by_person", 0)
