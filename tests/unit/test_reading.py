"""A consumer is stopped though a broker does not let go of its connection."""

import asyncio
import gc
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from streams import reading


class Transport:
    """Of a connection that ends when its other side closes, or when it is aborted."""

    def __init__(self) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.was_aborted = False

    def abort(self) -> None:
        self.was_aborted = True
        if not self.closed.done():
            self.closed.set_result(None)


class Consumer:
    """As aiokafka's: stopping forgets each connection's writer, and waits until all are closed."""

    def __init__(self, *transports: Transport) -> None:
        connections = [SimpleNamespace(_writer=SimpleNamespace(transport=each)) for each in transports]
        self._client = SimpleNamespace(
            _conns=dict(enumerate([*connections, SimpleNamespace(_writer=None)])), close=self._close
        )
        self._fetcher = SimpleNamespace(_pending_tasks=set())
        self._transports = transports
        self.is_closed = False

    async def stop(self) -> None:
        for connection in self._client._conns.values():
            connection._writer = None
        await asyncio.gather(*(each.closed for each in self._transports))

    async def _close(self) -> None:
        self.is_closed = True


async def test_what_the_broker_closes_is_not_cut_off():
    transport = Transport()
    asyncio.get_running_loop().call_soon(transport.closed.set_result, None)

    await reading.stop(Consumer(transport))

    assert not transport.was_aborted


async def test_what_the_broker_does_not_close_is_cut_off(monkeypatch):
    monkeypatch.setattr(reading, "_CLOSED_S", 0.01)
    transports = Transport(), Transport()

    await asyncio.wait_for(reading.stop(Consumer(*transports)), 5)

    assert [each.was_aborted for each in transports] == [True, True]


async def test_an_error_of_stopping_is_told_and_the_client_closed():
    class Broken(Consumer):
        async def stop(self) -> None:
            raise RuntimeError("told")

    consumer = Broken()
    with capture_logs() as said:
        await reading.stop(consumer)

    assert [(line["event"], line["reason"]) for line in said] == [("reader.not_stopped", "RuntimeError('told')")]
    assert consumer.is_closed


async def test_nor_does_an_error_of_closing_the_client_end_whoever_stops():
    class Broken(Consumer):
        async def stop(self) -> None:
            raise RuntimeError("told")

        async def _close(self) -> None:
            raise OSError("told too")

    with capture_logs() as said:
        await reading.stop(Broken())

    assert [line["reason"] for line in said] == ["RuntimeError('told')", "OSError('told too')"]


async def test_a_cancellation_from_within_is_an_error_and_one_from_without_is_none():
    async def waits(future):
        await future

    loop = asyncio.get_running_loop()
    future = loop.create_future()
    task = asyncio.create_task(reading.uncancelled(waits(future)))
    await asyncio.sleep(0)
    future.cancel()
    with pytest.raises(reading.Interrupted):
        await task

    task = asyncio.create_task(reading.uncancelled(waits(loop.create_future())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stop_that_is_cancelled_leaves_nothing_open():
    class Failing(Consumer):
        async def stop(self) -> None:
            await super().stop()
            raise RuntimeError("nobody is there any more to be told")

    untold: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: untold.append(context))
    before = asyncio.all_tasks()
    for kind in (Consumer, Failing):
        transports = Transport(), Transport()
        stopping = asyncio.create_task(reading.stop(kind(*transports)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping

        assert [each.was_aborted for each in transports] == [True, True]
        while asyncio.all_tasks() - before:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0)
    gc.collect()
    assert untold == []


async def test_a_stop_that_is_cancelled_when_it_has_waited_long_enough_leaves_nothing_open(monkeypatch):
    monkeypatch.setattr(reading, "_CLOSED_S", 0.0)
    goes_on, has_ended = asyncio.Event(), asyncio.Event()

    class Slow(Consumer):
        async def stop(self) -> None:
            await super().stop()
            await goes_on.wait()
            has_ended.set()

    transport = Transport()
    stopping = asyncio.create_task(reading.stop(Slow(transport)))
    while not transport.was_aborted:  # noqa: ASYNC110  # it tells nobody
        await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    goes_on.set()

    await asyncio.wait_for(has_ended.wait(), 5)
