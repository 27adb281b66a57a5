"""What the measurement of isolation stands on: endpoints that are unwell, and whether anything is missing elsewhere."""

import asyncio
import io
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from bench import __main__ as bench
from bench.endpoints import FLOOD, FLOOD_BLOCK, OK, Receiver
from bench.isolation.trip import tripped
from bench.isolation.unwell import unwell_lines
from bench.isolation.well import Missing, all_came, missing
from bench.stage import Arrival
from streams.engine.processor import ReadAt
from tests.handing import result_of
from tests.records import make_delivery

BODY = b'{"payload": {"n": 7}, "attempt": 2}'


def request(behaviour: str) -> bytes:
    return b"POST /%s/int_1 HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (behaviour.encode(), len(BODY), BODY)


@asynccontextmanager
async def receiver(behaviour):
    """A connection to one that has just got a request, and what it noted."""
    noted, made = io.StringIO(), []

    def make():
        made.append(Receiver(noted, drip_s=0))
        return made[-1]

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        writer.write(request(behaviour))
        yield SimpleNamespace(reader=reader, noted=noted, made=made)
    finally:
        writer.close()
        server.close()


async def test_an_answer_that_drips_is_written_byte_by_byte():
    written, over = [], asyncio.Event()

    def write(data):
        written.append(data)
        if sum(map(len, written)) == len(OK):
            over.set()

    dripping = Receiver(io.StringIO(), drip_s=0)
    dripping.connection_made(SimpleNamespace(write=write, is_closing=lambda: False))
    dripping.data_received(request("drip"))

    assert written == [OK[:1]]
    await asyncio.wait_for(over.wait(), 5)
    assert written == [bytes([each]) for each in OK]


async def test_a_reset_is_one_and_its_request_was_read():
    async with receiver("reset") as there:
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(there.reader.read(), 5)

        integration, number, _, attempt = there.noted.getvalue().split()
        assert (integration, number, attempt) == ("int_1", "7", "2")


async def test_a_flood_goes_on_while_it_is_read_and_holds_little_while_it_is_not():
    async with receiver("flood") as there:
        for _ in range(3):
            assert await asyncio.wait_for(there.reader.readexactly(4_000_000), 5)
        [flooding] = there.made
        await asyncio.wait_for(_full(flooding), 5)
        assert 0 < flooding._transport.get_write_buffer_size() <= 4 * len(FLOOD_BLOCK)
        assert there.noted.getvalue().count("\n") == 1
    assert FLOOD.startswith(b"HTTP/1.1 200 ")
    assert b"ength" not in FLOOD


async def _full(flooding):
    while not flooding._is_full:  # noqa: ASYNC110  # a turn of the loop each
        await asyncio.sleep(0)


def arrival(integration: str, number: int) -> Arrival:
    return Arrival(integration, number, 0, 1)


def test_missing_are_events_that_did_not_come_to_one_of_them_whatever_else_came():
    came = [arrival("int_0", 0), arrival("int_0", 1), arrival("int_1", 0), arrival("int_1", 0), arrival("int_1", 9)]

    assert missing(came, ["int_0", "int_1"], range(2)) == {"int_1": 1}
    assert missing(came, ["int_0"], range(2)) == {}
    assert missing([], ["int_0", "int_1"], range(2)) == {"int_0": 2, "int_1": 2}


def failed(started_ms: int, finished_ms: int, attempt: int = 1):
    delivery, read_at = make_delivery(attempt=attempt or 1), ReadAt(0, 0, 1)
    return result_of(
        delivery, read_at, started_at_ms=started_ms, finished_at_ms=finished_ms, outcome="exhausted", attempt=attempt
    )


def test_of_a_trip_is_told_what_was_in_flight_at_the_twentieth_failure_and_what_started_later():
    before = [failed(10 * number, 10 * number + 5) for number in range(19)]
    discarded = failed(300, 300, attempt=0)
    after = [failed(195, 210), failed(190, 201), failed(200, 201), failed(201, 211), failed(220, 225)]

    # The twentieth on the log ended at 200; three were under way.
    results = [discarded, *before, failed(190, 200), *after]
    assert tripped(results, 215) == {
        "inFlight": 3, "startedLater": 2, "startedAfterPause": 1, "lastStartAfterMs": 20, "pausedAfterMs": 15,
    }  # fmt: skip
    assert tripped(results, None)["pausedAfterMs"] is None


def test_the_table_of_unwell_endpoints_gives_ratios_to_the_healthy_run_and_says_what_is_missing():
    healthy = {
        "p50Ms": 10.0, "p99Ms": 50.0, "sent": 9_000, "grownMb": 0.2, "mostMb": 1.0, "cores": 0.3, "missing": {},
        "requestsToIll": 1_000, "reasonsOfIll": {"delivered": 1_000},
    }  # fmt: skip
    drip = healthy | {
        "p50Ms": 11.0, "p99Ms": 60.0, "grownMb": 2.0, "missing": {"int_1": 2},
        "requestsToIll": 120, "reasonsOfIll": {"timeout": 100, "retry": 20},
    }  # fmt: skip

    _, _, first, second = unwell_lines({"healthy": healthy, "drip": drip})

    assert first == "| healthy | 10 ms | 50 ms |  | +0, +1 MB | 0.30 cores | 0 of 9,000 | 1,000: 1,000 delivered |"
    assert second == (
        "| drip | 11 ms | 60 ms | 1.10, 1.20 | +2, +1 MB | 0.30 cores | 2 of 9,000 | 120: 100 timeout, 20 retry |"
    )


def test_what_is_missing_in_any_run_is_an_error_and_ends_the_command_with_1(monkeypatch):
    def measure(bootstrap, names, say, sizes):
        assert (names, sizes["unwell"]) == (["unwell"], {"seconds": 3})
        all_came({"healthy": {"missing": {}}, "drip": {"missing": lost}})
        return {}

    monkeypatch.setattr("bench.isolation.measure", measure)
    monkeypatch.setattr(
        "sys.argv", ["bench", "isolation", "--broker", "127.0.0.1:1", "--only", "unwell", "--unwell-s", "3"]
    )
    lost: dict[str, int] = {}
    bench.main()
    lost["int_3"] = 2

    with pytest.raises(Missing, match=r"'drip': \{'int_3': 2\}"):
        all_came({"drip": {"missing": lost}})
    with pytest.raises(SystemExit, match="int_3") as ended:
        bench.main()
    assert isinstance(ended.value.code, str)  # which Python prints, and exits with 1
