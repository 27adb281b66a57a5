"""A body that is made again is the one that was sent, or it is said why there is none."""

import pytest

from services.admin.sent import Sent, sent
from services.dispatcher.plan import plan
from services.vault.opened import OpenedSecrets
from tests.breaking import make_result
from tests.records import make_delivery, make_integration

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
TEMPLATE = '{"text": {{ event | json }}, "n": {{ attempt }}, "at": {{ deliveredAt | json }}}'


def attempted(config, delivery, at_ms):
    """What goes out, and the result as far as it tells of that."""
    planned = plan(delivery, config, OpenedSecrets({}, {}, [(SECRET, None)]), at_ms, "X-Acme", "9.9")
    result = make_result(attempt=delivery.attempt, started_at_ms=at_ms, request_headers=dict(planned.headers))
    return planned.body, result


@pytest.mark.parametrize("changes", [{}, {"profile": "booking"}, {"template": TEMPLATE}])
@pytest.mark.parametrize("number", [1, 7])
def test_it_is_what_was_sent_to_the_byte(changes, number):
    config = make_integration(signing=True, **changes)
    delivery = make_delivery(attempt=number, payload=b'{ "b":1,  "a": "gr\\u00fcn \xe2\x82\xac" }')
    body, result = attempted(config, delivery, 1_700_000_000_123)

    # The log has the first attempt's record, whichever attempt is asked for.
    assert sent(result, make_delivery(payload=delivery.payload), config, brand="X-Acme", secrets=[SECRET]) == Sent(
        body, True
    )


def test_a_signature_proves_only_the_bytes_that_it_is_of():
    config = make_integration(signing=True)
    body, result = attempted(config, make_delivery(), 1_000)

    assert sent(result, make_delivery(), config, brand="X-Acme", secrets=["whsec_QUJD"]) == Sent(body, False)
    other = sent(result, make_delivery(payload=b"1"), config, brand="X-Acme", secrets=[SECRET])
    assert not other.is_proven
    unsigned = make_result(started_at_ms=1_000)
    assert sent(unsigned, make_delivery(), config, brand="X-Acme", secrets=[SECRET]) == Sent(body, False)


@pytest.mark.parametrize(
    ("delivery", "config", "words"),
    [
        (None, make_integration(), "retention"),
        (make_delivery(), None, "Version 1 of the settings"),
        (make_delivery(), make_integration(template="nothing like JSON"), "template of version 1"),
    ],
)
def test_where_it_cannot_be_made_again_that_is_said(delivery, config, words):
    assert words in sent(make_result(), delivery, config, brand="X-Acme", secrets=[])
