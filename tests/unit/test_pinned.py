"""Faust is the one that our consumer was written against, or nothing starts."""

import pytest

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
