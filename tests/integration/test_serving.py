"""What every service's HTTP side does, over real sockets."""

import asyncio
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from services.runtime.kinds import Kind
from services.runtime.problems import Problem
from services.runtime.serving import StartupError, application, serve

TEAPOT = Kind("admin", "teapot", 418, "A teapot", "coffee is asked for", "ask for tea")


class Reasons:
    """What the probes say."""

    live: str | None = None
    ready: str | None = None


async def echo(request):
    return web.Response(body=await request.read())


async def crash(request):
    raise RuntimeError("quoted_in_an_exception")


async def refuse(request):
    raise Problem(TEAPOT, "It brews no coffee.", headers={"Retry-After": "7"}, field="drink")


@asynccontextmanager
async def served(**options):
    reasons = Reasons()
    service = options.pop("service", None)
    app = application(lambda: reasons.live, lambda: reasons.ready, service=service, max_body_bytes=100)
    app.router.add_post("/echo", echo)
    app.router.add_get("/crash/{id}", crash)
    app.router.add_get("/refuse", refuse)
    app.router.add_get("/wait", options.pop("wait", echo))
    server = await serve(app, "127.0.0.1", 0, **options)
    try:
        async with aiohttp.ClientSession(server.url) as client:
            yield server, client, reasons
    finally:
        await server.stop()


async def problem_of(response) -> dict[str, object]:
    assert response.content_type == "application/problem+json"
    problem = await response.json(content_type=None)
    assert problem["status"] == response.status
    assert problem["type"] == f"urn:tenterhook:problem:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    return problem


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nowhere", None, 404, "not_found"),
        ("DELETE", "/echo", None, 405, "method_not_allowed"),
        ("POST", "/echo", b"x" * 101, 413, "request_too_large"),
        ("GET", "/crash/1", None, 500, "internal"),
        ("GET", "/refuse", None, 418, "teapot"),
    ],
)
async def test_every_refusal_is_a_problem(method, path, body, status, code):
    async with served() as (_, client, _reasons), client.request(method, path, data=body) as response:
        problem = await problem_of(response)

    assert (response.status, problem["code"]) == (status, code)


async def test_a_problem_carries_its_headers_and_its_extensions():
    async with served() as (_, client, _reasons):
        refused = await client.get("/refuse")
        wrong_method = await client.get("/echo")
        problem = await problem_of(refused)

    assert refused.headers["Retry-After"] == "7"
    assert problem["field"] == "drink"
    assert wrong_method.headers["Allow"] == "POST"


async def test_what_nobody_expected_is_logged_and_not_told(capsys):
    async with served() as (_, client, _reasons):
        response = await client.get("/crash/1?key=pk_in_the_address")
        text = await response.text()

    logged = capsys.readouterr()
    assert "quoted_in_an_exception" not in text
    assert "request.crashed" in logged.out + logged.err
    assert "/crash/{id}" in logged.out + logged.err
    assert "pk_in_the_address" not in logged.out + logged.err


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nAuthorization: Bearer sk_live" + b"x" * 9_000 + b"\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nsk_live bad header\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nsk_live\r\n",
    ],
)
async def test_what_is_no_http_is_answered_and_logged_without_its_bytes(request_bytes, capsys, caplog):
    async with served() as (server, _, _reasons):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(request_bytes)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()

    logged = capsys.readouterr()
    assert answer.split(b"\r\n")[0].endswith(b" 400 Bad Request")
    assert b"application/problem+json" in answer
    assert b"sk_live" not in answer
    assert "sk_live" not in logged.out + logged.err + caplog.text


async def test_a_body_that_breaks_is_answered_and_logged_without_its_bytes(capsys, caplog):
    async with served() as (server, _, _reasons):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)  # so that the handler waits for the rest
        writer.write(b"sk_live\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await writer.wait_closed()

    logged = capsys.readouterr()
    assert b'"code":"body_incomplete"' in answer
    assert "sk_live" not in logged.out + logged.err + caplog.text


async def test_a_client_that_goes_away_is_no_crash(capsys, caplog):
    async with served() as (server, _, _reasons):
        _reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.05)

    logged = capsys.readouterr()
    assert "crashed" not in logged.out + logged.err + caplog.text


async def test_health_tells_the_reason_and_metrics_are_there():
    async with served() as (_, client, reasons):
        well = [(await client.get(path)).status for path in ("/health/live", "/health/ready")]
        reasons.ready = "the log is not read yet"
        not_ready = await client.get("/health/ready")
        live = await client.get("/health/live")
        reasons.live = "stuck"
        stuck = await client.get("/health/live")
        metrics = await (await client.get("/metrics")).text()

        assert well == [200, 200]
        assert (not_ready.status, await not_ready.json()) == (
            503,
            {"ready": False, "reason": "the log is not read yet"},
        )
        assert (live.status, stuck.status) == (200, 503)
        assert "python_info" in metrics


async def test_a_service_tells_prometheus_what_its_probes_say_and_counts_its_answers():
    async with served(service="breaker") as (_, client, reasons):
        reasons.ready = "the log is not read yet"
        await client.get("/health/live")
        for path in ("/refuse", "/crash/1", "/nowhere"):
            await client.get(path)
        lines = (await (await client.get("/metrics")).text()).splitlines()
    shown = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    assert shown['tenterhook_live{service="breaker"}'] == 1
    assert shown['tenterhook_ready{service="breaker"}'] == 0
    assert shown['tenterhook_http_requests_total{service="breaker",status="4xx"}'] == 2
    assert shown['tenterhook_http_requests_total{service="breaker",status="5xx"}'] == 1
    assert shown['tenterhook_http_request_seconds_count{service="breaker"}'] == 3


async def test_a_compressed_body_is_not_unfolded():
    async with served() as (_, client, _reasons):
        response = await client.post("/echo", data=b"\x1f\x8b not gzip", headers={"Content-Encoding": "gzip"})

        assert await response.read() == b"\x1f\x8b not gzip"


async def test_a_port_that_is_taken_is_a_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(StartupError, match=rf"cannot listen on 127\.0\.0\.1:{port}: something else does"):
            await serve(application(lambda: None, lambda: None), "127.0.0.1", port)


async def test_an_address_of_another_machine_is_a_clear_error():
    with pytest.raises(StartupError, match=r"cannot listen on 192\.0\.2\.1:0: .*Set another host or port"):
        await serve(application(lambda: None, lambda: None), "192.0.2.1", 0)


async def test_stopping_lets_a_request_in_flight_finish():
    started, finish = asyncio.Event(), asyncio.Event()

    async def wait(request):
        started.set()
        await finish.wait()
        return web.Response(text="finished")

    async with served(wait=wait) as (server, client, _reasons):
        answer = asyncio.ensure_future(client.get("/wait"))
        await started.wait()
        stopping = asyncio.ensure_future(server.stop())
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection(server.host, server.port)
        finish.set()

        assert await (await answer).text() == "finished"
        await stopping


async def test_stopping_does_not_wait_for_a_request_longer_than_it_is_told_to():
    started = asyncio.Event()

    async def wait(request):
        started.set()
        await asyncio.Event().wait()

    async with served(wait=wait, drain_s=0.1) as (server, client, _reasons):
        answer = asyncio.ensure_future(client.get("/wait"))
        await started.wait()
        async with asyncio.timeout(5):
            await server.stop()

        with pytest.raises(aiohttp.ClientError):
            await answer
