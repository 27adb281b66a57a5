"""What an attempt means for its delivery."""

from typing import get_args

import pytest

from services.dispatcher.plan import Unplannable
from services.dispatcher.sender import Answer, Failure, FailureCode
from services.dispatcher.verdict import verdict
from tests.records import make_integration

INTEGRATION = make_integration(retry_policy="transient", max_attempts=3)
BOOKING = make_integration(retry_policy="any_failure", max_attempts=8)
BLOCKED = {"address_refused", "url_refused"}
CONNECTION = sorted(set(get_args(FailureCode)) - BLOCKED)


def failure(code, status=None):
    return Failure(code=code, detail="why", status=status)


@pytest.mark.parametrize("integration", [INTEGRATION, BOOKING])
@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("attempt", [1, 99])
def test_2xx_is_delivered(integration, status, attempt):
    given = verdict(Answer(status=status), integration, attempt)
    assert (given.outcome, given.reason, given.retry) == ("delivered", f"status_{status}", False)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "status_400"), (401, "status_401"), (404, "status_404"), (410, "status_410"), (429, "status_429"),
     (301, "redirect_301"), (302, "redirect_302"), (304, "redirect_304"), (308, "redirect_308"),
     (101, "status_101"), (600, "status_600")],
)  # fmt: skip
def test_a_4xx_or_3xx_ends_an_integrations_delivery_without_retry(status, reason):
    given = verdict(Answer(status=status), INTEGRATION, 1)
    assert (given.outcome, given.reason) == ("rejected", reason)


@pytest.mark.parametrize("status", [101, 301, 302, 400, 401, 404, 410, 429, 500, 503, 599, 600])
def test_a_booking_is_retried_after_any_failure(status):
    assert verdict(Answer(status=status), BOOKING, 7).retry
    assert verdict(Answer(status=status), BOOKING, 8).outcome == "exhausted"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_an_integration_is_retried_after_a_5xx(status):
    assert [verdict(Answer(status=status), INTEGRATION, attempt).outcome for attempt in (1, 2, 3)] == [
        None,
        None,
        "exhausted",
    ]


@pytest.mark.parametrize("integration", [INTEGRATION, BOOKING])
@pytest.mark.parametrize("code", CONNECTION)
def test_connection_errors_and_timeouts_are_retried_by_both(integration, code):
    given = verdict(failure(code), integration, 1)
    assert (given.outcome, given.reason, given.detail) == (None, code, "why")
    assert verdict(failure(code), integration, integration.max_attempts).outcome == "exhausted"


@pytest.mark.parametrize("status", [200, 404, 503])
def test_an_answer_that_broke_off_is_a_connection_error_whatever_its_status(status):
    assert verdict(failure("reset", status), INTEGRATION, 1).retry


def test_a_429_is_retried_where_the_integration_opts_in():
    opted_in = make_integration(retry_on_429=True)
    assert verdict(Answer(status=429), opted_in, 1).retry
    assert verdict(Answer(status=428), opted_in, 1).outcome == "rejected"


@pytest.mark.parametrize("integration", [INTEGRATION, BOOKING])
@pytest.mark.parametrize(
    "happened", [*(failure(code) for code in sorted(BLOCKED)), Unplannable("header_unrenderable", "why")]
)
def test_what_cannot_succeed_is_blocked_at_once(integration, happened):
    given = verdict(happened, integration, 1)
    assert (given.outcome, given.reason, given.detail) == ("blocked", happened.code, "why")


def test_who_asked_for_a_delivery_gets_one_attempt():
    assert verdict(Answer(status=503), INTEGRATION, 2).retry
    assert verdict(Answer(status=503), INTEGRATION, 2, is_asked_for=True).outcome == "exhausted"
    assert verdict(failure("timeout"), BOOKING, 3, is_asked_for=True).outcome == "exhausted"
    assert verdict(Answer(status=200), BOOKING, 3, is_asked_for=True).outcome == "delivered"
