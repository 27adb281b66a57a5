"""The samples of the built-in types are events that ingest takes, and say what tenterhook's own events say."""

import msgspec
import pytest

from schemas.catalogue import ACTIVATED_TYPE, BOOKING_TYPES, CATALOGUE, FAILING_TYPE, OWN_TYPES, PAUSED_TYPE
from schemas.samples import OWN_PAYLOAD, SAMPLES, sample_payload
from services.admin.commands import Commands
from services.admin.rules import DRAIN
from services.breaker.announce import event_of
from services.ingest import accept
from streams.records import BreakerRow
from tests.apps import make_app
from tests.records import make_integration


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
    row = BreakerRow(
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
    told = msgspec.json.decode(event_of(state, row, make_integration(), 0, "rec_1").payload)

    assert set(told) == set(sample_payload(event_type))
    assert told["status"] == sample_payload(event_type)["status"] == state


def test_that_of_an_activation_has_the_fields_that_it_tells():
    commands = Commands(*[None] * 3, brand="X", now_ms=lambda: 0, random=bytes, new_id=lambda: "1")
    event = commands._activation_event(make_integration(), DRAIN)

    assert set(msgspec.json.decode(event.payload)) == set(sample_payload(ACTIVATED_TYPE))
