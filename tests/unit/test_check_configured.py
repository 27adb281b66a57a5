"""A configuration that was lost is told from one that is new, and from integrations that were deleted."""

import pytest

from streams import codec
from streams.states import States, check_configured
from streams.topics import TopicMismatch
from streams.views import Integrations
from tests.tried import state


@pytest.fixture
def integrations():
    return Integrations()


@pytest.fixture
def states():
    found = States()
    for offset, name in enumerate(("int_a", "int_b")):
        found.apply(name.encode(), codec.encode(state(name, 1_000)), offset)
    return found


def test_nothing_is_amiss_where_nothing_is_known(integrations):
    check_configured(integrations, States(), prefix="")


def test_states_of_integrations_that_nobody_configured_are_of_a_lost_configuration(integrations, states):
    with pytest.raises(TopicMismatch, match=r"^topic\.mismatch: topic t\.integration-config .* 2 integrations"):
        check_configured(integrations, states, prefix="t.")


def test_new_integrations_do_not_hide_that_the_old_ones_are_lost(integrations, states):
    integrations.apply(b"int_new", None, 0)
    with pytest.raises(TopicMismatch):
        check_configured(integrations, states, prefix="")


def test_deleted_ones_whose_states_are_still_there_are_not_lost(integrations, states):
    integrations.apply(b"int_b", None, 7)
    check_configured(integrations, states, prefix="")


def test_one_whose_record_cannot_be_read_is_not_lost(integrations, states):
    integrations.apply(b"int_b", b"garbage", 7)
    check_configured(integrations, states, prefix="")
