"""Which templates may be configured, and which are refused before an event comes."""

import pytest

from schemas.catalogue import CATALOGUE, OWN_TYPES
from services.body.rendering import preview
from services.body.samples import SAMPLE_AT_MS, sample_event
from services.body.trial import template_fault


def fault(source, events=("call_ended",), profile="integration"):
    return template_fault(source, profile, "demo", events)


@pytest.mark.parametrize(
    ("source", "events"),
    [
        ('{"text": "{{ event }}"}', []),
        ('{"text": "{{ event }}"}', ["*"]),
        ('{"text": "{{ payload.what.we.cannot.know }}"}', ["call_ended"]),
        ('{"n": {{ payload.count | plus: 1 }}}', ["order_paid"]),
        ("{% if payload.count > 3 %}1{% else %}2{% endif %}", ["order_paid"]),
        ('{% if payload.name > "m" %}1{% endif %}', ["order_paid"]),
        ("{% if payload.unheard_of %}{{ payload.unheard_of }}{% endif %}", ["call_ended"]),
        ("{{ 60 | divided_by: payload.count }}", ["order_paid"]),
        ('[{% for i in payload.items %}"{{ i.title }}"{% unless forloop.last %},{% endunless %}{% endfor %}]', ["*"]),
        ("{{ payload.scheduled_call.scheduled_at | date: '%Y' }}", ["scheduled.created"]),
        ('{% if event == "call_ended" %}1{% endif %}', ["call_ended"]),
    ],
)
def test_what_gives_a_body_is_taken(source, events):
    assert fault(source, events) is None


@pytest.mark.parametrize(
    ("source", "events", "said"),
    [
        ("1\n{{ nope }}", ["call_ended"], "line 2: there is nothing called 'nope'"),
        ('{"a": "{secret.token}"}', ["call_ended"], "refers to a secret"),
        ("{{ secret.token }}", ["call_ended"], "refers to a secret"),
        ("hello {{ event }}", [], "line 1: what is written is not JSON"),
        (
            '{% if event == "call_ended" %}1{% endif %}',
            ["*"],
            "nothing is written for this event (for a sample of call_re",
        ),
        ('{% if event == "call_ended" %}1{% endif %}', ["call_ended", "order_paid"], "(for a sample of your_own_type)"),
        ("\n{{ 1 | divided_by: 0 }}", ["call_ended"], "line 2: the filter divided_by"),
        ("{{ payload.callId | date: '%Y' }}", ["call_ended"], "line 1: date cannot read"),
        ("", ["call_ended"], "nothing is written"),
    ],
)
def test_what_gives_none_is_refused(source, events, said):
    assert said in fault(source, events)


def test_a_booking_subscription_is_tried_with_bookings():
    source = '{% case event %}{% when "call_ended" %}{% else %}{{ payload.scheduled_call.id }}{% endcase %}'
    assert fault(source, ["*"], "booking") is None
    assert fault(source, ["*"]) is not None


@pytest.mark.parametrize("event_type", sorted(CATALOGUE | OWN_TYPES))
def test_there_is_a_sample_of_every_type(event_type):
    sample = sample_event("demo", event_type)
    assert sample.type == event_type
    assert sample.payload.startswith(b"{")
    assert isinstance(preview(sample, "integration", None, at_ms=SAMPLE_AT_MS), bytes)
    assert (b'"scheduled_call"' in sample.payload) == event_type.startswith("scheduled.")
