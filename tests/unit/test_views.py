"""Configuration folded into memory."""

import pytest
from structlog.testing import capture_logs

from streams import codec
from streams.views import Apps, Integrations
from tests.apps import make_app
from tests.records import make_integration


@pytest.fixture
def integrations():
    return Integrations()


def put(view, key: str, record, offset: int) -> None:
    view.apply(key.encode(), None if record is None else codec.encode(record), offset)


def test_the_newest_record_of_an_integration_counts(integrations):
    put(integrations, "int_1", make_integration("int_1", version=1), 0)
    put(integrations, "int_1", make_integration("int_1", version=2), 1)

    assert integrations.get("int_1").version == 2
    assert [config.version for config in integrations.of_app("demo")] == [2]


def test_an_app_s_integrations_come_oldest_first(integrations):
    for offset, key in enumerate(("int_2", "int_3", "int_1")):
        put(integrations, key, make_integration(key), offset)
    put(integrations, "int_9", make_integration("int_9", "other"), 3)

    assert [config.id for config in integrations.of_app("demo")] == ["int_1", "int_2", "int_3"]
    assert [config.id for config in integrations.all()] == ["int_1", "int_2", "int_3", "int_9"]


def test_what_is_not_there_is_none_or_empty(integrations):
    assert integrations.get("int_1") is None
    assert integrations.of_app("demo") == integrations.all() == ()
    assert integrations.changed_at("int_1") == -1


def test_a_tombstone_deletes_and_is_a_change(integrations):
    put(integrations, "int_1", make_integration("int_1"), 4)
    before = integrations.of_app("demo")
    put(integrations, "int_1", None, 9)

    assert len(before) == 1
    assert integrations.get("int_1") is None
    assert integrations.of_app("demo") == ()
    assert integrations.changed_at("int_1") == 9


def test_a_tombstone_of_one_that_was_never_seen_is_fine(integrations):
    """Compaction may have taken what it deleted."""
    put(integrations, "int_1", None, 3)

    assert (integrations.get("int_1"), integrations.unreadable) == (None, 0)


def test_an_answer_that_was_given_is_not_changed_by_what_comes_later(integrations):
    put(integrations, "int_1", make_integration("int_1"), 0)
    before = integrations.of_app("demo")
    put(integrations, "int_2", make_integration("int_2"), 1)

    assert [config.id for config in before] == ["int_1"]
    assert len(integrations.of_app("demo")) == 2


def test_an_integration_that_moves_to_another_app_is_in_that_one_alone(integrations):
    put(integrations, "int_1", make_integration("int_1", "a"), 0)
    put(integrations, "int_1", make_integration("int_1", "b"), 1)

    assert integrations.of_app("a") == ()
    assert [config.app for config in integrations.of_app("b")] == ["b"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"int_1", b"not a record"),
        (b"int_1", b""),
        (b"int_2", codec.encode(make_integration("int_1", version=7))),
        (b"int_1", codec.encode(make_app())),
        (None, codec.encode(make_integration("int_1", version=7))),
        (None, None),
        (b"\xff", None),
    ],
)
def test_an_unreadable_record_is_counted_and_leaves_what_was_there(integrations, key, value):
    put(integrations, "int_1", make_integration("int_1", version=1), 0)

    integrations.apply(key, value, 5)

    assert integrations.unreadable == 1
    assert integrations.get("int_1").version == 1
    assert integrations.changed_at("int_1") == 0


def test_a_cleared_view_is_empty(integrations):
    put(integrations, "int_1", make_integration("int_1"), 0)
    integrations.of_app("demo")
    integrations.clear()

    assert (integrations.get("int_1"), integrations.of_app("demo"), integrations.all()) == (None, (), ())
    assert integrations.changed_at("int_1") == -1


def test_apps_are_folded_the_same_way():
    apps = Apps()
    put(apps, "demo", make_app("demo", version=1), 0)
    put(apps, "demo", make_app("demo", version=2), 1)
    put(apps, "*", make_app("*"), 2)
    put(apps, "gone", make_app("gone"), 3)
    put(apps, "gone", None, 4)
    apps.apply(b"demo", b"garbage", 5)
    apps.apply(b"demo", codec.encode(make_app("other")), 6)

    assert apps.get("demo").version == 2
    assert [app.app for app in apps.all()] == ["*", "demo"]
    assert (apps.get("gone"), apps.unreadable) == (None, 2)
    apps.clear()
    assert apps.all() == ()


VIEWS = [(Integrations, make_integration, "int_1"), (Apps, make_app, "demo")]


@pytest.mark.parametrize(("view", "make", "key"), VIEWS)
@pytest.mark.parametrize("deleted_before", [False, True])
def test_an_unreadable_record_with_nothing_before_it_is_no_deletion(view, make, key, deleted_before):
    """What compaction leaves, and who starts then meets."""
    view = view()
    if deleted_before:
        put(view, key, None, 4)
    with capture_logs() as said:
        view.apply(key.encode(), b"garbage", 5)

    assert (view.get(key), view.is_broken(key), view.unread) == (None, True, {key})
    assert not view.is_broken("other")
    [line] = said
    assert (line["key"], line["offset"]) == (key, 5)
    assert "nothing was there before it" in line["hint"]


@pytest.mark.parametrize(("view", "make", "key"), VIEWS)
def test_it_ends_with_a_record_that_can_be_read_with_a_tombstone_and_where_all_is_read_again(view, make, key):
    view = view()
    for end in (lambda: put(view, key, make(key), 6), lambda: put(view, key, None, 7), view.clear):
        put(view, key, None, 4)
        view.apply(key.encode(), b"garbage", 5)
        assert view.is_broken(key)
        end()
        assert (view.is_broken(key), view.unread) == (False, set())


@pytest.mark.parametrize(("view", "make", "key"), VIEWS)
def test_with_something_before_it_that_counts_and_the_record_is_one_to_be_written_again(view, make, key):
    view = view()
    put(view, key, make(key), 4)
    with capture_logs() as said:
        view.apply(key.encode(), b"garbage", 5)

    assert (view.get(key), view.is_broken(key), view.unread) == (make(key), False, {key})
    assert said[0]["hint"] == "kept what was there before it"


@pytest.mark.parametrize(("key", "whose"), [(None, set()), (b"\xff", set()), (b"int_2", {"int_2"})])
def test_whose_record_it_is_its_key_tells(integrations, key, whose):
    integrations.apply(key, codec.encode(make_integration("int_1")), 5)

    assert (integrations.unread, integrations.unreadable) == (whose, 1)
