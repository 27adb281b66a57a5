"""
CPU per request of the senders, side by side, on loopback: `python bench/senders.py [requests] [in flight]`.

The receiver runs in a process of its own, so that the figures are the sender's alone: its process's user and system
time over the requests of a round. Rounds alternate between the senders; the best and the median of each are shown.
"""

import asyncio
import multiprocessing
import resource
import statistics
import sys
import time

import uvloop

from services.dispatcher.client import AiohttpSender
from services.dispatcher.sender import Answer, Request
from services.dispatcher.wire import WireSender

ROUNDS = 7
BODY = b'{"event":"call_started","payload":"' + b"x" * 1_000 + b'"}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n"
    b"Date: Sun, 22 Nov 2026 05:19:23 GMT\r\nServer: bench\r\n\r\nok"
)
HEADERS = (
    ("Content-Type", "application/json"),
    ("User-Agent", "tenterhook/0.1.0"),
    ("X-ApifyCloud-Event", "call_started"),
    ("X-ApifyCloud-Delivery", "int_019aa0a0-0000-7000-8000-000000000000:1"),
    ("X-ApifyCloud-Timestamp", "2026-11-22T05:19:23.042Z"),
    ("X-ApifyCloud-Signature", "sha256=" + "0" * 64),
    ("webhook-id", "evt_019aa0a0-0000-7000-8000-000000000000"),
    ("webhook-timestamp", "1700000000"),
    ("webhook-signature", "v1," + "A" * 44),
    ("Authorization", "Bearer 0123456789abcdef"),
)


class Sink(asyncio.Protocol):
    """Answers every request as soon as its body is there; knows no more of HTTP than that."""

    def connection_made(self, transport):
        self.transport = transport
        self.data = b""

    def data_received(self, data):
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0 and len(self.data) >= end + 4 + len(BODY):
            self.data = self.data[end + 4 + len(BODY) :]
            self.transport.write(ANSWER)


def sink(pipe):
    async def main():
        server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    uvloop.run(main())


def cpu_s():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def one_round(sender, url, requests, in_flight):
    left = requests

    async def lane():
        nonlocal left
        while left > 0:
            left -= 1
            answer = await sender.send(Request(url=url, headers=HEADERS, body=BODY, timeout_ms=5_000))
            assert isinstance(answer, Answer), answer

    before, started = cpu_s(), time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(in_flight)))
    return (cpu_s() - before) / requests * 1e6, requests / (time.perf_counter() - started)


async def measure(url, requests, in_flight):
    senders = {"aiohttp": AiohttpSender(allow_private=True), "wire": WireSender(allow_private=True)}
    figures = {name: [] for name in senders}
    for sender in senders.values():
        await one_round(sender, url, in_flight * 20, in_flight)
    for _ in range(ROUNDS):
        for name, sender in senders.items():
            figures[name].append(await one_round(sender, url, requests, in_flight))
    for sender in senders.values():
        await sender.close()
    for name, rounds in figures.items():
        cpu, rate = zip(*rounds, strict=True)
        print(
            f"{name:8} CPU per request, µs: best {min(cpu):.1f}, median {statistics.median(cpu):.1f}, "
            f"worst {max(cpu):.1f}; requests/s: median {statistics.median(rate):,.0f}"
        )
    ratios = [a[0] / w[0] for a, w in zip(figures["aiohttp"], figures["wire"], strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"aiohttp / wire, round by round: median {statistics.median(ratios):.2f} ({spread})")


def main():
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    in_flight = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=sink, args=(theirs,), daemon=True)
    process.start()
    try:
        uvloop.run(measure(f"http://127.0.0.1:{ours.recv()}/hook", requests, in_flight))
    finally:
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
