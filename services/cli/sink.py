"""`tenterhook sink`: a receiver for trying out. Prints and verifies what arrives; fails or hangs when told to."""

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final

import uvloop
from aiohttp import web
from cyclopts import Parameter
from rich.console import Console

from schemas.headers import DEFAULT_BRAND
from services.cli.access import filed
from services.cli.arrival import Arrival
from services.cli.errors import Failed
from services.cli.faults import Faults
from services.cli.verify import verified
from services.runtime.serving import StartupError, serve

#: Larger than any request that tenterhook sends (64 KiB).
_MAX_BODY_BYTES: Final = 1_048_576

#: A hanging answer ends when the sender gives up; this is for one that never does.
_HANG_S: Final = 3_600.0


def sink(
    *,
    host: str = "127.0.0.1",
    port: int = 9000,
    secret: Annotated[str | None, Parameter(env_var="TENTERHOOK_SIGNING_SECRET")] = None,
    brand: str = DEFAULT_BRAND,
    status: int | None = None,
    fail_rate: float | None = None,
    flap: int | None = None,
    hang: Annotated[bool, Parameter(negative=())] = False,
    quiet: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """
    Receive webhooks, print each and check its signatures, until Ctrl-C.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        secret: Signing secret, whsec_..., to check signatures with; better in the variable, which no
            process list shows.
        brand: Start of the names of the sender's headers: its setting header_brand.
        status: Answer this; with --fail-rate or --flap, to the requests that fail, which get 500 where it is absent.
        fail_rate: Share of requests to fail, 0 to 1.
        flap: Fail that many in a row, then take as many, and so on.
        hang: Take requests and never answer.
        quiet: Print only a count each second; for loads.
        as_json: Print each arrival as a line of JSON.
    """
    receiver = Receiver(
        Faults(status=status, fail_rate=fail_rate, flap=flap, hang=hang),
        secret=secret or filed("TENTERHOOK_SIGNING_SECRET"),
        brand=brand,
        show=None if quiet else _print_json if as_json else _printer(),
    )
    try:
        uvloop.run(_receive(receiver, host, port, quiet=quiet))
    except StartupError as error:
        raise Failed(str(error)) from None
    print(f"{receiver.count} arrived", file=sys.stderr)


class Receiver:
    """Takes any request, and answers as it was told."""

    def __init__(
        self, faults: Faults, *, secret: str | None, brand: str, show: Callable[[Arrival], None] | None
    ) -> None:
        self._faults = faults
        self._secret = secret
        self._brand = brand
        self._show = show
        #: Requests that have arrived.
        self.count = 0

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._take)
        return app

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        before, self.count = self.count, self.count + 1
        status = self._faults.answer(before, random.random())  # noqa: S311  # no secret hangs on it
        if self._show is not None:
            self._show(self._arrival(request, body, status))
        if status is None:
            await asyncio.sleep(_HANG_S)
        return web.Response(status=status or 200)

    def _arrival(self, request: web.Request, body: bytes, status: int | None) -> Arrival:
        return Arrival(
            number=self.count,
            at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            method=request.method,
            path=request.path_qs,
            headers=request.headers,
            body=body,
            verified=verified(request.headers, body, self._secret, brand=self._brand, now_s=time.time()),
            answered=status,
            brand=self._brand,
        )


async def _receive(receiver: Receiver, host: str, port: int, *, quiet: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Hanging answers are not waited for.
    server = await serve(receiver.application(), host, port, drain_s=0.1)
    print(f"Receiving on {server.url}", file=sys.stderr, flush=True)
    counting = asyncio.ensure_future(_count(receiver)) if quiet else None
    await stop.wait()
    if counting:
        counting.cancel()
    await server.stop()


async def _count(receiver: Receiver) -> None:
    """A line each second in which something arrived."""
    before = 0
    while True:
        await asyncio.sleep(1)
        if receiver.count != before:
            print(f"{receiver.count:,} arrived, {receiver.count - before:,}/s", flush=True)
        before = receiver.count


def _print_json(arrival: Arrival) -> None:
    print(json.dumps(arrival.as_json()), flush=True)


def _printer() -> Callable[[Arrival], None]:
    console = Console(highlight=False, soft_wrap=True)
    return lambda arrival: console.print(arrival.as_text())
