"""What every sender promises, over real sockets: what goes out, what comes back, what is never waited for."""

import asyncio
import gc
import gzip
import os
import resource
import threading
import time
from pathlib import Path

import pytest

from schemas.profiles import MAX_BODY_BYTES, MAX_RESPONSE_BYTES
from services.dispatcher.resolve import DnsFailed, Names
from services.dispatcher.sender import MAX_RESPONSE_HEADER_BYTES, Failure, NoResources, Request, Withheld
from tests import endpoints
from tests.endpoints import endpoint

HEADERS = (
    ("Content-Type", "application/json"),
    ("x-mIxEd-CaSe", "a"),
    ("webhook-id", "evt_1"),
    ("X-Mixed-Case-2", "b c"),
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def request(url, body=b'{"event":"x"}', timeout_ms=5_000, headers=HEADERS):
    return Request(url=url, headers=headers, body=body, timeout_ms=timeout_ms)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition, timeout_s=3.0):
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # what is waited for tells nobody
            await asyncio.sleep(0.005)


class TestWhatGoesOut:
    async def test_the_body_arrives_byte_for_byte(self, sender):
        body = bytes(range(256)) * 8
        async with endpoint() as there:
            await sender.send(request(there.url, body))
        assert [body] == [each.body for each in there.received]

    async def test_a_body_of_the_largest_size_arrives(self, sender):
        async with endpoint() as there:
            await sender.send(request(there.url, b"x" * MAX_BODY_BYTES))
        assert [len(each.body) for each in there.received] == [MAX_BODY_BYTES]

    async def test_headers_keep_order_and_case_and_none_is_added_but_host_and_length(self, sender):
        async with endpoint() as there:
            await sender.send(request(there.url, b"12345"))
        received = there.received[0]
        ours = [pair for pair in received.headers if pair[0] not in {"Host", "Content-Length"}]
        assert (list(HEADERS), f"127.0.0.1:{there.port}", "5") == (
            ours,
            received.header("Host"),
            received.header("Content-Length"),
        )

    @pytest.mark.parametrize(
        ("path", "target"),
        [
            ("", "/"),
            ("?a=b", "/?a=b"),
            ("/a%2fb/%7Ec/./..//d;e=f?g=%20+&h='[]|{}", "/a%2fb/%7Ec/./..//d;e=f?g=%20+&h='[]|{}"),
        ],
    )
    async def test_the_target_is_the_urls_as_it_is_written(self, sender, path, target):
        async with endpoint() as there:
            await sender.send(request(f"http://127.0.0.1:{there.port}{path}"))
        assert ("POST", target) == (there.received[0].method, there.received[0].target)

    async def test_an_ipv6_address_is_reached(self, sender):
        async with endpoint(host="::1") as there:
            answer = await sender.send(request(there.url))
        assert (200, f"[::1]:{there.port}") == (answer.status, there.received[0].header("host"))

    async def test_a_name_is_looked_up(self, make_sender):
        sender = make_sender(names=Names(lambda host: ["127.0.0.1"]))
        async with endpoint() as there:
            answer = await sender.send(request(f"http://hooks.example:{there.port}/"))
        assert (200, f"hooks.example:{there.port}") == (answer.status, there.received[0].header("host"))

    async def test_the_next_address_is_tried_where_one_does_not_answer(self, make_sender):
        sender = make_sender(names=Names(lambda host: ["::1", "127.0.0.1"]))
        async with endpoint() as there:  # on IPv4 alone
            answer = await sender.send(request(f"http://hooks.example:{there.port}/"))
        assert answer.status == 200

    async def test_cookies_are_not_kept(self, sender):
        async with endpoint(endpoints.answer(headers=[("Set-Cookie", "a=b")])) as there:
            for _ in range(2):
                await sender.send(request(there.url))
        assert [each.header("Cookie") for each in there.received] == [None, None]

    @pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb"])
    async def test_a_line_break_in_a_header_is_never_sent(self, sender, value):
        async with endpoint() as there:
            with pytest.raises(ValueError, match=r"(?i)header"):
                await sender.send(request(there.url, headers=(("X-A", value),)))
        assert there.received == []


class TestConnections:
    async def test_a_connection_is_used_again(self, sender):
        async with endpoint() as there:
            for _ in range(3):
                await sender.send(request(there.url))
        assert [each.connection for each in there.received] == [1, 1, 1]

    async def test_one_that_was_idle_for_a_while_is_used_again(self, sender):
        async with endpoint() as there:
            for _ in range(3):
                await sender.send(request(there.url))
                await asyncio.sleep(0.08)
        assert there.connections == 1

    async def test_requests_at_the_same_time_take_a_connection_each_and_leave_them_to_the_next(self, sender):
        async with endpoint(endpoints.answer(delay_s=0.05)) as there:
            for _ in range(2):
                await asyncio.gather(*(sender.send(request(there.url)) for _ in range(5)))
        assert (len(there.received), there.connections) == (10, 5)

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\n\r\nok",
        ],
    )
    async def test_a_connection_that_the_endpoint_closes_is_not_used_again(self, sender, answer):
        async with endpoint(endpoints.raw(answer)) as there:
            answers = [await sender.send(request(there.url)) for _ in range(2)]
        assert [
            (answer.status, answer.body, received.connection)
            for answer, received in zip(answers, there.received, strict=True)
        ] == [(200, b"ok", 1), (200, b"ok", 2)]

    async def test_one_that_was_closed_while_idle_is_replaced(self, sender):
        async with endpoint(endpoints.raw(OK), endpoints.answer()) as there:
            await sender.send(request(there.url))
            await asyncio.sleep(0.05)
            answer = await sender.send(request(there.url))
        assert (answer.status, [each.connection for each in there.received]) == (200, [1, 2])

    async def test_an_idle_connection_is_closed_after_a_while(self, make_sender):
        sender = make_sender(keep_idle_s=0.1)
        async with endpoint() as there:
            await sender.send(request(there.url))
            await until(lambda: not there.peers)
            await sender.send(request(there.url))
        assert [each.connection for each in there.received] == [1, 2]

    async def test_what_comes_unasked_is_never_taken_for_the_next_answer(self, sender):
        unasked = OK + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
        async with endpoint(endpoints.raw(unasked, close=False), endpoints.answer()) as there:
            answers = [await sender.send(request(there.url)) for _ in range(2)]
        assert ([each.status for each in answers], [each.connection for each in there.received]) == ([200, 200], [1, 2])

    async def test_what_comes_later_unasked_is_never_taken_for_the_next_answer(self, sender):
        async def later(received, peer):
            await peer.send(OK)
            await asyncio.sleep(0.02)
            await peer.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

        async with endpoint(later, endpoints.answer()) as there:
            first = await sender.send(request(there.url))
            await asyncio.sleep(0.1)
            second = await sender.send(request(there.url))
        assert (first.status, second.status, [each.connection for each in there.received]) == (200, 200, [1, 2])

    async def test_a_request_goes_out_once_even_where_a_used_connection_breaks(self, sender):
        async with endpoint(endpoints.answer(), endpoints.reset()) as there:
            await sender.send(request(there.url))
            second = await sender.send(request(there.url))
        assert (second.code, second.status, len(there.received)) == ("reset", None, 2)

    async def test_closing_fails_what_is_in_flight_and_closes_what_is_idle(self, sender):
        async with endpoint(endpoints.answer(), endpoints.hang()) as there:
            await sender.send(request(there.url))
            waiting = asyncio.create_task(sender.send(request(there.url)))
            await there.wait_for(2)
            await sender.close()
            assert isinstance(await waiting, Failure)
            await until(lambda: not there.peers)

    async def test_a_cancelled_request_closes_its_connection(self, sender):
        async with endpoint(endpoints.hang(), endpoints.answer()) as there:
            waiting = asyncio.create_task(sender.send(request(there.url)))
            await there.wait_for(1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: not there.peers)
            answer = await sender.send(request(there.url))
        assert (answer.status, there.connections) == (200, 2)

    async def test_what_may_not_go_out_when_its_connection_stands_does_not(self, make_sender):
        """Asked once, behind the look-up and the connecting, and for a connection that is used again too."""
        may_answer, asked = threading.Event(), []

        def look_up(host):
            asked.append("look-up")
            may_answer.wait(3)
            return ["127.0.0.1"]

        def says(answer):
            def may_send():
                asked.append(answer)
                return answer

            return may_send

        sender = make_sender(names=Names(look_up))
        async with endpoint() as there:
            url = f"http://hooks.example:{there.port}/"
            sending = asyncio.create_task(sender.send(request(url), says(False)))
            await until(lambda: asked == ["look-up"])
            may_answer.set()
            with pytest.raises(Withheld):
                await sending
            await until(lambda: not there.peers)
            assert (await sender.send(request(url), says(True))).status == 200
            with pytest.raises(Withheld):
                await sender.send(request(url), says(False))
            await until(lambda: not there.peers)
        assert (asked, len(there.received)) == (["look-up", False, "look-up", True, False], 1)

    async def test_no_way_of_failing_leaves_a_socket_open(self, make_sender):
        async with endpoint() as there:
            sender = make_sender()
            gc.collect()
            before = open_files()
            for _ in range(3):
                for behaviour in (
                    endpoints.reset(), endpoints.hang(), endpoints.raw(b"no http\r\n\r\n"), endpoints.close_mid_body(),
                    endpoints.flood(1_000_000), endpoints.drip(OK, 0.05),
                ):  # fmt: skip
                    there.behave(behaviour)
                    await sender.send(request(there.url, timeout_ms=60))
            there.behave(endpoints.answer())
            await sender.close()
            await until(lambda: not there.peers)
            await asyncio.sleep(0.02)
            gc.collect()
            assert open_files() <= before


class TestAnswers:
    async def test_status_headers_and_body_come_back_as_they_are(self, sender):
        headers = [("X-One", "a"), ("x-two", "b, c"), ("X-One", "d")]
        async with endpoint(endpoints.answer(201, b"\x00\xffbody", headers)) as there:
            answer = await sender.send(request(there.url))
        assert (201, tuple(headers), b"\x00\xffbody", False) == (
            answer.status,
            tuple(pair for pair in answer.headers if pair[0] != "Content-Length"),
            answer.body,
            answer.truncated,
        )

    async def test_header_values_in_utf_8_or_latin_1_become_text(self, sender):
        answer = b"HTTP/1.1 200 OK\r\nA: \xc3\xa9\r\nB: \xe9\r\nContent-Length: 0\r\n\r\n"
        async with endpoint(endpoints.raw(answer)) as there:
            answer = await sender.send(request(there.url))
        assert (dict(answer.headers)["A"], dict(answer.headers)["B"]) == ("é", "é")

    async def test_chunks_are_joined(self, sender):
        async with endpoint(endpoints.chunked([b"a" * 10, b"b"], b"X-Trailer: 1\r\n", b";ext=1")) as there:
            answers = [await sender.send(request(there.url)) for _ in range(2)]
        assert ([each.body for each in answers], there.connections) == ([b"a" * 10 + b"b"] * 2, 1)
        assert "X-Trailer" not in dict(answers[0].headers)

    @pytest.mark.parametrize("status", [204, 304])
    async def test_an_answer_without_a_body_is_complete_at_once(self, sender, status):
        async with endpoint(endpoints.raw(b"HTTP/1.1 %d X\r\n\r\n" % status, close=False)) as there:
            answers = [await sender.send(request(there.url)) for _ in range(2)]
        assert ([(status, b"")] * 2, 1) == ([(each.status, each.body) for each in answers], there.connections)

    @pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n"])
    async def test_interim_answers_are_passed_over(self, sender, interim):
        async with endpoint(endpoints.raw(interim * 3 + OK, close=False)) as there:
            answers = [await sender.send(request(there.url)) for _ in range(2)]
        assert (
            [(each.status, each.body, [name for name, _ in each.headers]) for each in answers],
            there.connections,
        ) == ([(200, b"ok", ["Content-Length"])] * 2, 1)

    async def test_an_answer_that_comes_before_the_request_is_read_counts(self, sender):
        async def early(received, peer):
            await peer.send(b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            peer.is_over = True
            await peer.reader.read()

        async with endpoint(early) as there:
            there.reads_body = False
            answer = await sender.send(request(there.url, b"x" * MAX_BODY_BYTES))
        assert answer.status == 413

    async def test_a_change_of_protocol_is_an_answer_like_any_other(self, sender):
        upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello"
        async with endpoint(endpoints.raw(upgrade, close=False), endpoints.answer()) as there:
            answers = [await sender.send(request(there.url)) for _ in range(2)]
        assert ([each.status for each in answers], there.connections) == ([101, 200], 2)

    async def test_a_compressed_body_stays_compressed(self, sender):
        packed = gzip.compress(b"hello")
        async with endpoint(endpoints.answer(200, packed, [("Content-Encoding", "gzip")])) as there:
            answer = await sender.send(request(there.url))
        assert packed == answer.body

    async def test_how_long_each_part_took_is_known(self, make_sender):
        sender = make_sender(names=Names(lambda host: ["127.0.0.1"]))
        async with endpoint(endpoints.answer(delay_s=0.05)) as there:
            first, second = [await sender.send(request(f"http://a.example:{there.port}/")) for _ in range(2)]
            literal = await make_sender().send(request(there.url))
        assert min(first.dns_us, first.connect_us, literal.connect_us, first.read_us) >= 0
        assert (second.dns_us, second.connect_us, literal.dns_us, first.tls_us) == (None,) * 4
        assert all(40_000 < each.wait_us < 1_000_000 for each in (first, second))


class TestLimits:
    @pytest.mark.parametrize(("size", "truncated"), [(MAX_RESPONSE_BYTES, False), (MAX_RESPONSE_BYTES + 1, True)])
    async def test_a_body_is_cut_at_what_is_kept(self, sender, size, truncated):
        async with endpoint(endpoints.answer(body=b"x" * size)) as there:
            answers = [await sender.send(request(there.url)) for _ in range(2)]
        assert [(200, b"x" * MAX_RESPONSE_BYTES, truncated)] * 2 == [
            (each.status, each.body, each.truncated) for each in answers
        ]
        assert truncated or there.connections == 1

    @pytest.mark.parametrize("declared", [True, False])
    async def test_a_flood_is_not_read(self, sender, declared):
        async with endpoint(endpoints.flood(1_000_000_000, declared)) as there:
            answer = await sender.send(request(there.url))
            await until(lambda: not there.peers)
        assert (answer.status, len(answer.body), answer.truncated) == (200, MAX_RESPONSE_BYTES, True)
        # What the sockets between the two hold; nobody asked for the rest.
        assert there.received[0].flooded < 16_000_000

    async def test_a_flood_in_chunks_of_one_byte_is_not_read(self, sender):
        head = b"Transfer-Encoding: chunked\r\n"
        async with endpoint(endpoints.flood(100_000_000, False, head, b"1\r\nx\r\n" * 10_000)) as there:
            answer = await sender.send(request(there.url))
            await until(lambda: not there.peers)
        assert (answer.status, answer.body, answer.truncated) == (200, b"x" * MAX_RESPONSE_BYTES, True)

    async def test_a_gzip_bomb_stays_as_small_as_it_came(self, sender):
        async with endpoint(endpoints.gzip_bomb()) as there:
            answer = await sender.send(request(there.url))
        # Less than would be kept, so that what it unfolds to would be more.
        assert len(answer.body) < MAX_RESPONSE_BYTES
        assert (len(gzip.decompress(answer.body)), answer.truncated) == (10_000_000, False)

    async def test_headers_are_kept_up_to_a_limit_and_whole(self, sender):
        headers = [(f"X-{number}", "v" * 1_000) for number in range(20)]
        async with endpoint(endpoints.answer(headers=headers)) as there:
            answer = await sender.send(request(there.url))
        assert (headers[:8], b"ok") == (list(answer.headers), answer.body)
        assert sum(len(name) + len(value) for name, value in answer.headers) <= MAX_RESPONSE_HEADER_BYTES

    @pytest.mark.parametrize(
        "head",
        [
            b"HTTP/1.1 200 OK\r\nX: " + b"v" * 200_000 + b"\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"v" * 1_000) for n in range(200)) + b"\r\n",
        ],
        ids=["one header", "many headers"],
    )
    async def test_a_huge_head_is_refused(self, sender, head):
        async with endpoint(endpoints.raw(head, close=False)) as there:
            failure = await sender.send(request(there.url))
        assert isinstance(failure, Failure)
        assert failure.code in {"answer_head_too_large", "answer_malformed"}

    @pytest.mark.parametrize(
        ("start", "block"),
        [
            (b"HTTP/1.1 200 OK\r\nX: ", b"v" * 10_000),
            (b"HTTP/1.1 200 OK\r\n", b"X: v\r\n" * 1_000),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 10_000),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: v\r\n" * 1_000),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"v" * 10_000),
        ],
        ids=["header", "headers", "interim answers", "chunk extension", "trailers", "trailer"],
    )
    async def test_what_never_ends_beside_a_body_ends_the_attempt(self, sender, start, block):
        async def endless(received, peer):
            peer.is_over = True
            await peer.send(start)
            for _ in range(100_000):
                await peer.send(block)

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with endpoint(endless) as there:
            happened = await sender.send(request(there.url, timeout_ms=600))
            await until(lambda: not there.peers)
        assert isinstance(happened, Failure) or happened.truncated
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64_000  # KiB


class TestFailures:
    async def test_nobody_listening(self, sender):
        async with endpoint() as there:
            pass
        failure = await sender.send(request(there.url))
        assert (failure.code, failure.status) == ("connect_refused", None)

    async def test_a_name_without_address(self, make_sender):
        def unknown(host):
            raise DnsFailed("Name or service not known")

        failure = await make_sender(names=Names(unknown)).send(request("http://nowhere.example/"))
        assert (failure.code, "Name or service not known" in failure.detail) == ("dns_failed", True)

    @pytest.mark.parametrize(
        "behaviour", [endpoints.reset(), endpoints.raw(b""), endpoints.raw(b"HTTP/1.1 200 OK\r\nA:")]
    )
    async def test_a_connection_that_ends_before_the_head(self, sender, behaviour):
        async with endpoint(behaviour) as there:
            failure = await sender.send(request(there.url))
        assert (failure.code, failure.status, len(there.received)) == ("reset", None, 1)

    @pytest.mark.parametrize(
        "behaviour",
        [
            endpoints.close_mid_body(503),
            endpoints.reset(b"HTTP/1.1 503 X\r\nContent-Length: 9\r\n\r\nhalf"),
            endpoints.raw(b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf"),
        ],
        ids=["end", "reset", "end in a chunk"],
    )
    async def test_a_connection_that_ends_in_the_body_still_tells_the_status(self, sender, behaviour):
        async with endpoint(behaviour) as there:
            failure = await sender.send(request(there.url))
        assert (failure.code, failure.status, failure.body) == ("reset", 503, b"half")

    @pytest.mark.parametrize(
        "data",
        [
            b"no http at all\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ],
    )
    async def test_what_is_no_http_is_no_answer(self, sender, data):
        async with endpoint(endpoints.raw(data, close=False)) as there:
            failure = await sender.send(request(there.url))
        assert failure.code == "answer_malformed"

    @pytest.mark.alone
    @pytest.mark.parametrize(
        ("behaviour", "status"),
        [
            (endpoints.hang(), None),
            (endpoints.drip(OK, 0.03), None),
            (endpoints.hang(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nha"), 200),
        ],
        ids=["hang", "drip", "body that never comes"],
    )
    async def test_the_timeout_covers_every_part_of_the_answer(self, sender, behaviour, status):
        async with endpoint(behaviour) as there:
            started = time.monotonic()
            failure = await sender.send(request(there.url, timeout_ms=150))
            took = time.monotonic() - started
            await until(lambda: not there.peers)
        assert ("timeout", status) == (failure.code, failure.status)
        assert 0.14 < took < 0.6

    async def test_the_timeout_covers_a_body_that_drips(self, sender):
        drip = endpoints.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"x" * 900, 0.002)
        async with endpoint(drip) as there:
            failure = await sender.send(request(there.url, timeout_ms=400))
        assert (failure.code, failure.status) == ("timeout", 200)
        assert 0 < len(failure.body) < 900

    @pytest.mark.alone
    async def test_the_timeout_covers_the_look_up_which_holds_up_nobody_else(self, make_sender):
        sender = make_sender(
            names=Names(lambda host: time.sleep(1) or [] if host.startswith("slow") else ["127.0.0.1"])
        )
        async with endpoint() as there:
            slow = [
                asyncio.create_task(sender.send(request(f"http://slow{n}.example/", timeout_ms=200))) for n in range(20)
            ]
            await asyncio.sleep(0.01)
            started = time.monotonic()
            answer = await sender.send(request(f"http://fast.example:{there.port}/"))
            took = time.monotonic() - started
            failures = await asyncio.gather(*slow)
        assert (200, {"timeout"}) == (answer.status, {each.code for each in failures})
        assert took < 0.15

    async def test_out_of_sockets_is_nobodys_failure(self, sender):
        async with endpoint() as there:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]  # so that no hole is left below the limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
            try:
                with pytest.raises(NoResources):
                    await sender.send(request(there.url))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for number in taken:
                    os.close(number)
            answer = await sender.send(request(there.url))
        assert (answer.status, len(there.received)) == (200, 1)
