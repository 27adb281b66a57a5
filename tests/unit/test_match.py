"""Who selected an event, and what its delivery is called."""

import re

import pytest

from schemas.catalogue import BOOKING_TYPES, CATALOGUE
from services.dispatcher.match import REMEMBERED, Selections, selected, selects
from streams.delivery_ids import delivery_id
from tests.records import make_integration


def test_no_type_is_selected_by_default():
    assert not any(selects(make_integration(events=[]), each) for each in CATALOGUE)


def test_an_integration_gets_the_types_it_names_and_no_other():
    chosen = make_integration(events=["call_started", "my.own"])
    assert {each for each in [*CATALOGUE, "my.own", "other"] if selects(chosen, each)} == {"call_started", "my.own"}


def test_a_star_selects_every_type():
    assert all(selects(make_integration(events=["*"]), each) for each in [*CATALOGUE, "tenterhook.integration.paused"])


@pytest.mark.parametrize("name", ["scheduled.*", "scheduled", "SCHEDULED.CREATED", "scheduled.create"])
def test_anything_else_is_compared_as_a_whole(name):
    assert not selects(make_integration(events=[name]), "scheduled.created")


@pytest.mark.parametrize("events", [["*"], ["scheduled.created", "call_ended"]])
def test_a_booking_subscription_gets_bookings_alone(events):
    subscription = make_integration(profile="booking", events=events)
    assert selects(subscription, "scheduled.created")
    assert not selects(subscription, "call_ended")


def test_a_booking_subscription_can_have_any_subset():
    subscription = make_integration(profile="booking", events=["scheduled.no_show"])
    assert [each for each in BOOKING_TYPES if selects(subscription, each)] == ["scheduled.no_show"]


def test_the_selected_come_sorted_by_id_paused_ones_too():
    among = [
        make_integration("int_3", events=["a"]),
        make_integration("int_1", events=["*"], status="paused"),
        make_integration("int_2", events=["b"]),
    ]
    assert [each.id for each in selected(among, "a")] == ["int_1", "int_3"]


def test_a_delivery_id_is_a_prefix_and_128_bits_of_hex():
    assert re.fullmatch(r"dlv_[0-9a-f]{32}", delivery_id("rec", "int", "0"))


def test_a_delivery_id_never_changes():
    """It is on the log: another one for the same delivery would send it again."""
    assert delivery_id("rec_1", "int_1", "0") == "dlv_c3c1a051e4b3da80e4d432b04ef7701c"


def test_who_selected_a_type_is_remembered_until_the_integrations_are_others():
    selections = Selections()
    one, other = make_integration("int_1", events=["a"]), make_integration("int_2", events=["*"])
    before, after = (one, other), (other,)
    assert selections.of("shop", before, "a") == [one, other]
    assert selections.of("shop", before, "a") is selections.of("shop", before, "a")
    assert selections.of("shop", before, "b") == [other]
    assert selections.of("other", after, "a") == [other]
    assert selections.of("shop", after, "a") == [other]
    assert selections.of("shop", (), "a") == []
    assert selections.of("shop", before, "a") == [one, other]


def test_types_that_clients_make_up_do_not_fill_the_memory():
    selections, integrations = Selections(), (make_integration("int_1", events=["*"]),)
    for number in range(3 * REMEMBERED):
        assert selections.of(f"app {number % 7}", integrations, f"type {number}") == list(integrations)
        assert len(selections._known) <= REMEMBERED
