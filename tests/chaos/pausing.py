"""Somebody at the admin API: pauses an integration and activates it again, all the time, and one for good."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import aiohttp

from streams.records import Token
from tests.admins import make_token
from tests.chaos.observed import Changed

_TOKEN: Final = "tok_chaos"
_PAUSED_S: Final = 2.0
_AGAIN_S: Final = 0.5
_PATIENCE_S: Final = 8.0
#: A request is answered with 200 after so long, whatever is done to whoever answers: a run has a node away for seconds,
#: and then may have to wait until the configuration has an owner again.
_ANSWERED_S: Final = 120.0


def token() -> Token:
    """What the app must have for it."""
    return make_token(_TOKEN, "operator")


class Pausing:
    """One operator; `changed` is what the API acknowledged."""

    def __init__(self, admins: Callable[[], list[str]]) -> None:
        """
        Args:
            admins: those that there are now; each request goes to the next one.
        """
        self.changed: list[Changed] = []
        self._admins = admins
        self._requests = 0

    async def run(self, integrations: list[str]) -> None:
        """Pause and activate them, in turn, until cancelled; an integration may be left paused."""
        async with self._client() as http:
            while integrations:
                for integration in integrations:
                    await self._post(http, integration, "pause")
                await asyncio.sleep(_PAUSED_S)
                for integration in integrations:
                    await self._post(http, integration, "activate")
                await asyncio.sleep(_PAUSED_S)

    async def pause(self, integrations: list[str]) -> None:
        """Returns when the API says that all of them are paused."""
        async with self._client() as http:
            for integration in integrations:
                await self._post(http, integration, "pause")

    async def activate(self, integrations: list[str]) -> None:
        """Returns when the API says that all of them are active."""
        async with self._client() as http:
            for integration in integrations:
                await self._post(http, integration, "activate")

    async def _post(self, http: aiohttp.ClientSession, integration: str, what: str) -> dict[str, Any]:
        """
        What the API answers, once it does.

        Raises:
            AssertionError: it said anything but 200 or 503, or did not do it in `_ANSWERED_S`.
        """
        loop = asyncio.get_running_loop()
        until_s, said = loop.time() + _ANSWERED_S, None
        body = {"held": "drain"} if what == "activate" else None
        while loop.time() < until_s:
            admins = self._admins()
            self._requests += 1
            url = f"{admins[self._requests % len(admins)]}/v1/apps/demo/integrations/{integration}/{what}"
            try:
                async with http.post(url, json=body) as response:
                    said = await response.json(content_type=None)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_AGAIN_S)
                continue
            assert response.status in {200, 503}, f"{response.status}: {said}"
            if response.status == 200:
                self.changed.append(Changed(integration, said["status"], said["version"]))
                return dict(said)
            await asyncio.sleep(_AGAIN_S)
        raise AssertionError(f"{what} of {integration} was not done in {_ANSWERED_S:g} s, at last: {said}")

    def _client(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {_TOKEN}"}, timeout=aiohttp.ClientTimeout(total=_PATIENCE_S)
        )
