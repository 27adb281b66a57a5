"""Asks a service from code that waits, over the client for Python services, and says in one line what went wrong."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from services.cli.access import Access
from services.cli.errors import Failed
from tenterhook import Client, NoAnswer, Refused

T = TypeVar("T")


class Waiting:
    """A client whose answers are waited for, one after another."""

    def __init__(self, runner: asyncio.Runner, client: Client) -> None:
        self._runner = runner
        self.client = client

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """
        What it returns.

        Raises:
            Failed: there was no answer, or it was a refusal; the message has the problem's code and detail.
        """
        try:
            return self._runner.run(work)
        except NoAnswer as error:
            hint = ": is it running? `tenterhook up` starts it" if "cannot be reached" in str(error) else ""
            raise Failed(f"{error}{hint}") from None
        except Refused as refused:
            raise Failed(str(refused)) from None


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
