"""Faust and aiokafka are the ones that our consumer was written against, or nothing starts."""

import pytest

from streams import closed_connections
from streams.engine import pinned


def test_the_installed_faust_is_the_pinned_one():
    pinned.check()


def test_every_piece_relied_on_is_pinned_and_no_other():
    assert sorted(pinned.HASHES) == sorted(function.__qualname__ for function in pinned.RELIED_ON)


def test_another_version_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setitem(pinned.VERSIONS, "faust-streaming", "0.0.1")

    with pytest.raises(pinned.FaustChanged, match=r"tested with 0\.0\.1.*requirements/main\.txt"):
        pinned.check()


def test_changed_source_is_refused_and_named(monkeypatch):
    monkeypatch.setitem(pinned.HASHES, "Consumer.commit", "0" * 16)

    with pytest.raises(pinned.FaustChanged, match=r"Consumer\.commit"):
        pinned.check()


def test_connections_of_other_source_are_refused(monkeypatch):
    monkeypatch.setitem(closed_connections.WRITERS, "send", "0" * 16)

    with pytest.raises(closed_connections.AiokafkaChanged, match=r"in send of its.*requirements/main\.txt"):
        closed_connections.treat_as_broken.__wrapped__()  # as the first time
