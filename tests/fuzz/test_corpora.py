"""Every input that a fuzzer has kept, once more; and the laws can be broken."""

from types import SimpleNamespace

import pytest

from streams import codec
from tests.fuzz import targets
from tests.fuzz.__main__ import CORPUS, MAX_INPUT_BYTES
from tests.fuzz.__main__ import TARGETS as NAMES
from tests.fuzz.targets import TARGETS


def inputs(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize("target", TARGETS)
def test_every_law_holds_for_what_is_kept(target):
    for path in sorted((CORPUS / target).iterdir()):
        try:
            TARGETS[target](path.read_bytes())
        except Exception as error:
            raise AssertionError(f"{target}/{path.name}") from error


@pytest.mark.parametrize(
    ("target", "function", "made"),
    [
        ("accept", "accept", lambda accept: lambda sent, **given: accept(sent, **given | {"minted_event_id": "\n"})),
        ("codec", "codec", lambda codec: SimpleNamespace(**vars(codec) | {"encode": lambda record: b""})),
        ("template", "body", lambda body: lambda *given, **named: b"{"),
        ("url", "url_refusal", lambda refusal: lambda url, allow_http: None),
        ("url", "address_refusal", lambda refusal: lambda ip, allow_private: None),
        ("answer", "AnswerReader", lambda reader: type("Reader", (reader,), {"body": b"x" * 20_000})),
    ],
)
def test_a_broken_law_is_found_in_what_is_kept(target, function, made, monkeypatch):
    """Else the corpus would be of no use."""
    monkeypatch.setattr(targets, function, made(getattr(targets, function)))

    def replay() -> None:
        for data in inputs(target):
            TARGETS[target](data)

    with pytest.raises((AssertionError, ValueError, codec.Unreadable)):
        replay()


def test_corpora_are_small_and_the_names_are_those_of_the_targets():
    assert set(NAMES) == set(TARGETS) == {path.name for path in CORPUS.iterdir()}
    for target in NAMES:
        assert 10 <= len(inputs(target)) <= 200
        assert max(map(len, inputs(target))) <= MAX_INPUT_BYTES
