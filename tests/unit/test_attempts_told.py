"""How many attempts a delivery had: told also where it ended without one, by the command, the API and the breaker."""

import asyncio

import pytest

from services.breaker.fold import Rules, fold, state_of
from services.cli.deliveries import _document
from services.dispatcher.attempt import Attempts, ReadAt
from services.dispatcher.pacing import Pacing
from services.dispatcher.together import Together
from services.vault.seal import Keyring
from streams.records import Result
from streams.states import States
from streams.views import Apps, Integrations
from tests.records import make_delivery, make_integration


def unsent(**changes) -> Result:
    """What becomes of a delivery of an integration that is gone."""
    attempts = Attempts(
        config=None,
        integrations=Integrations(),
        apps=Apps(),
        states=States(),
        keyring=Keyring(bytes(32)),
        sender=None,
        brand="X",
        version="0",
        now_ms=lambda: 5,
        together=Together(Pacing()),
    )
    return asyncio.run(attempts.attempt(make_delivery(**changes), ReadAt(0, 7, 1), lambda: True))


@pytest.mark.parametrize(
    ("changes", "attempts"),
    [
        ({}, 0),
        ({"attempt": 3}, 2),
        ({"attempt": 9, "cause": "retry", "of": "dlv_0"}, 0),  # numbered on, and its own first
    ],
)
def test_a_delivery_that_ends_without_an_attempt_says_how_many_it_had(changes, attempts):
    result = unsent(**changes)
    state = state_of(fold(None, result, 0, Rules(failing_after=3)), make_integration())
    shown = _document(result)

    assert (result.outcome, result.attempt, result.attempts) == ("discarded", 0, attempts)
    assert (shown["attempt"], state.last_attempt) == (attempts, attempts)
