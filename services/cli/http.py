"""Asks a service from code that waits, over the client for Python services, and says in one line what went wrong."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from rich.console import Console

from services.cli.access import Access
from services.cli.errors import Failed
from tenterhook import Client, NoAnswer, Refused

T = TypeVar("T")

#: Who waits for longer than this sees that something is going on.
_SHOWS_AFTER_S: Final = 1.0


class Waiting:
    """A client whose answers are waited for, one after another."""

    def __init__(self, runner: asyncio.Runner, client: Client) -> None:
        self._runner = runner
        self.client = client
        #: Whether it may show that it waits: not where a bar moves already.
        self.shows = sys.stderr.isatty()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """
        What it returns.

        Raises:
            Failed: there was no answer, or it was a refusal; the message has the problem's code and detail.
        """
        try:
            return self._runner.run(self._watched(work))
        except NoAnswer as error:
            hint = ": is it running? `tenterhook up` starts it" if "cannot be reached" in str(error) else ""
            raise Failed(f"{error}{hint}") from None
        except Refused as refused:
            raise Failed(str(refused)) from None

    async def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task,), timeout=_SHOWS_AFTER_S)
            if task.done() or not self.shows:
                return await task
            with Console(stderr=True).status("Waiting for the answer"):
                return await task
        finally:
            task.cancel()


@contextmanager
def waiting(client: Client) -> Iterator[Waiting]:
    """The client until the block ends, which closes it."""
    with asyncio.Runner() as runner:
        try:
            yield Waiting(runner, client)
        finally:
            runner.run(client.close())


@contextmanager
def admin_client(admin: Access) -> Iterator[Waiting]:
    """A client of the admin API that shows its token."""
    with waiting(Client(admin.app, admin=admin.url, token=admin.credential)) as http:
        yield http


def listed(http: Waiting, path: str) -> list[dict[str, Any]]:
    """
    All items of a list, page after page.

    Raises:
        Failed: as `ask`.
    """
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = ask(http, "GET", path, params={"limit": 200, "cursor": cursor})
        items += page["items"]
        cursor = page["next"]
    return items


def ask(http: Waiting, method: str, path: str, **request: Any) -> Any:
    """
    The JSON of a 2xx answer; None where it has no body. *request*: `json`, `params`, `headers`.

    Raises:
        Failed: there was no answer, or it was a refusal.
    """
    return http.run(http.client.ask(method, path, **request))
