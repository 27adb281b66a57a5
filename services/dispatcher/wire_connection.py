"""One connection to one endpoint: requests out, answers in, one after the other, each within its time."""

import asyncio
import select
import ssl
from collections.abc import Callable
from time import monotonic, perf_counter_ns
from typing import Final, cast

from services.dispatcher.dial import failure_of
from services.dispatcher.sender import Answer, Failure, FailureCode
from services.dispatcher.wire_answer import BROKEN_OFF, AnswerReader

#: A connection that was idle for less is used again without a look: the loop has just read from it.
_LOOK_AFTER_S: Final = 0.05


class Connection(asyncio.Protocol):
    """
    An open connection.

    Args:
        endpoint: where it leads: whether TLS, host, port.
        on_free: called when it can take another request.
        on_gone: called once, when it is closed.
    """

    def __init__(
        self,
        endpoint: tuple[bool, str, int],
        on_free: Callable[["Connection"], None],
        on_gone: Callable[["Connection"], None],
    ) -> None:
        self.endpoint = endpoint
        #: When the last answer was over, on the monotonic clock in seconds.
        self.idle_since_s = 0.0
        #: Microseconds that this connection took to open, until its first request has told them.
        self.dns_us: int | None = None
        self.connect_us: int | None = None
        self.tls_us: int | None = None
        self._on_free = on_free
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        #: Set while an answer is awaited.
        self._waiter: asyncio.Future[Answer | Failure] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sent_at_ns = 0
        self._head_at_ns = 0

    # ---- what the sender calls

    async def exchange(self, message: bytes, timeout_s: float) -> Answer | Failure:
        """Send a request and wait for its answer, for *timeout_s* seconds at most. One at a time."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return Failure(code="reset", detail="the endpoint closed the connection at once")
        waiter: asyncio.Future[Answer | Failure] = self._loop.create_future()
        self._waiter = waiter
        self._reader.begin()
        self._head_at_ns = 0
        self._sent_at_ns = perf_counter_ns()
        self._timer = self._loop.call_later(timeout_s, self._on_timeout)
        transport.write(message)
        try:
            return await waiter
        finally:
            if self._waiter is waiter:
                # Whoever waited was cancelled: what comes now belongs to nobody.
                self._waiter = None
                self._timer.cancel()
                self.abort()

    def is_usable(self) -> bool:
        """
        Whether another request may go out on it: open, and nothing has come since the last answer.

        What has come is the end of the connection, as a rule. The loop may not have got to reading it yet.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if monotonic() - self.idle_since_s < _LOOK_AFTER_S:
            return True
        looking = select.poll()
        looking.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not looking.poll(0)

    def abort(self) -> None:
        """Close it now. An answer that is awaited fails."""
        if self._transport is not None:
            self._transport.abort()

    # ---- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are transports in all but their class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            # Nobody asked, so it must not become the answer to the next request.
            self.abort()
            return
        is_over = self._reader.feed(data)
        if not self._head_at_ns and self._reader.has_head:
            self._head_at_ns = perf_counter_ns()
        if is_over:
            self._over()

    def eof_received(self) -> bool:
        self._ended()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiter is None:
            pass
        elif isinstance(exc, ssl.SSLError):
            self._fail(*failure_of(exc))
        elif exc is not None:
            self._fail(*BROKEN_OFF)
        else:
            self._ended()
        self._on_gone(self)

    # ---- how an exchange ends

    def _ended(self) -> None:
        """The endpoint sends no more."""
        if self._waiter is not None:
            self._reader.end()
            self._over()

    def _on_timeout(self) -> None:
        what = "complete answer" if self._reader.has_head else "answer"
        self._fail("timeout", f"no {what} within the timeout, though connected and the request sent")

    def _over(self) -> None:
        reader = self._reader
        if reader.fault is not None:
            self._fail(*reader.fault)
            return
        now_ns = perf_counter_ns()
        self._settle(
            Answer(
                status=reader.status,
                headers=reader.headers,
                body=reader.body,
                truncated=reader.is_truncated,
                dns_us=self.dns_us,
                connect_us=self.connect_us,
                tls_us=self.tls_us,
                wait_us=(self._head_at_ns - self._sent_at_ns) // 1000,
                read_us=(now_ns - self._head_at_ns) // 1000,
            )
        )
        transport = self._transport
        # An answer that came before the request was out leaves the rest of it in the way of the next one.
        if reader.may_go_on and transport is not None and not transport.get_write_buffer_size():
            self.idle_since_s = monotonic()
            self._on_free(self)
        else:
            self.abort()

    def _fail(self, code: FailureCode, detail: str) -> None:
        now_ns = perf_counter_ns()
        reader = self._reader
        self._settle(
            Failure(
                code=code,
                detail=detail,
                status=reader.status if reader.has_head else None,
                headers=reader.headers,
                body=reader.body,
                dns_us=self.dns_us,
                connect_us=self.connect_us,
                tls_us=self.tls_us,
                wait_us=((self._head_at_ns or now_ns) - self._sent_at_ns) // 1000,
                read_us=(now_ns - self._head_at_ns) // 1000 if self._head_at_ns else None,
            )
        )
        self.abort()

    def _settle(self, happened: Answer | Failure) -> None:
        waiter, self._waiter = self._waiter, None
        self.dns_us = self.connect_us = self.tls_us = None
        if self._timer is not None:
            self._timer.cancel()
        if waiter is not None and not waiter.done():
            waiter.set_result(happened)
