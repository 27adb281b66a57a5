"""Questions before much is done."""

import sys
from types import SimpleNamespace

import pytest

from services.cli.asking import agreed
from services.cli.errors import Failed

WORDS = {"would": "12 records would be put back", "not_done": "nothing was put back"}


def sits_there(monkeypatch, answer: str, *, is_terminal: bool = True) -> list[str]:
    asked: list[str] = []

    def said(question: str) -> str:
        asked.append(question)
        return answer

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: is_terminal))
    monkeypatch.setattr("builtins.input", said)
    return asked


@pytest.mark.parametrize("answer", ["y", " YES "])
def test_who_says_yes_is_asked_once(monkeypatch, answer):
    asked = sits_there(monkeypatch, answer)

    agreed("Put 12 records back?", **WORDS)

    assert asked == ["Put 12 records back? [y/N] "]


@pytest.mark.parametrize("answer", ["", "n", "yep"])
def test_anything_else_is_no(monkeypatch, answer):
    sits_there(monkeypatch, answer)

    with pytest.raises(Failed, match="nothing was put back"):
        agreed("Put 12 records back?", **WORDS)


def test_where_nobody_is_there_to_ask_it_says_what_to_add(monkeypatch):
    asked = sits_there(monkeypatch, "y", is_terminal=False)

    with pytest.raises(Failed, match="12 records would be put back: repeat it with --yes"):
        agreed("Put 12 records back?", **WORDS)

    assert not asked
