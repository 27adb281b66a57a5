"""Whoever pauses and activates goes on through a 503, and fails of anything else, or when it takes too long."""

from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tests.chaos import pausing
from tests.chaos.observed import Changed
from tests.chaos.pausing import Pausing


class Api:
    """Answers with these statuses, in turn, and then with the last one of them."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.asked: list[str] = []

    @asynccontextmanager
    async def post(self, url: str, json: Any) -> Any:
        self.asked.append(url)
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]

        async def said(content_type: str | None) -> dict[str, Any]:
            return {"status": "paused", "version": 2} if status == 200 else {"code": "no"}

        yield SimpleNamespace(status=status, json=said)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(pausing, "_AGAIN_S", 0.0)
    monkeypatch.setattr(pausing, "_ANSWERED_S", 0.05)


def operator(api: Api, monkeypatch: pytest.MonkeyPatch) -> Pausing:
    made = Pausing(lambda: ["http://one", "http://other"])
    monkeypatch.setattr(made, "_client", lambda: api)
    return made


async def test_it_asks_again_until_it_is_done(monkeypatch):
    api = Api(503, 503, 200)
    made = operator(api, monkeypatch)
    await made.pause(["int_a"])
    assert made.changed == [Changed("int_a", "paused", 2)]
    assert len(api.asked) == 3


@pytest.mark.parametrize(("status", "says"), [(503, "not done in 0.05 s"), (409, "409")])
async def test_it_fails_of_what_is_never_done_and_of_any_other_answer(status, says, monkeypatch):
    made = operator(Api(status), monkeypatch)
    with pytest.raises(AssertionError, match=says):
        await made.run(["int_a"])
    assert made.changed == []
