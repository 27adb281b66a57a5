"""`tenterhook up` as a process: from its first line to no process left."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from services.cli.brokers.choose import kafka_lacks
from services.cli.brokers.ports import free_ports
from services.cli.data_dir import held
from tests.brokers import lacking
from tests.endpoints import answer, endpoint
from tests.waiting import eventually

TENTERHOOK = Path(sys.executable).with_name("tenterhook")

#: On a machine where other tests run beside.
READY_S = 60.0
STOPPED_S = 45.0

SERVICES = ("ingest", "dispatcher", "breaker", "admin")


class Up:
    """One `tenterhook up`, what it has printed so far, and the folder that it was called in."""

    def __init__(self, process, folder):
        self.process = process
        self.folder = folder
        self.ready_file = folder / "ready.json"
        self.out, self.err = b"", b""
        self._reading = [asyncio.create_task(self._read("out")), asyncio.create_task(self._read("err"))]
        self.started_at = time.monotonic()

    async def _read(self, name):
        stream = self.process.stdout if name == "out" else self.process.stderr
        while chunk := await stream.read(65_536):
            setattr(self, name, getattr(self, name) + chunk)

    @property
    def said(self):
        return (self.err + self.out).decode()

    async def ready(self):
        """What the ready file says, once it is there."""

        def written():
            assert self.process.returncode is None, self.said
            return self.ready_file.exists()

        try:
            await eventually(written, READY_S)
        except AssertionError:
            raise AssertionError(self.said) from None
        return self.document

    @property
    def document(self):
        return json.loads(self.ready_file.read_text())

    @property
    def document_is_gone(self):
        return not self.ready_file.exists() and not (self.folder / ".tenterhook/ready.json").exists()

    @property
    def lived_s(self):
        return time.monotonic() - self.started_at

    async def gone(self):
        """Once it is no longer ready."""
        await eventually(lambda: self.document_is_gone)

    async def says(self, pattern, within_s=READY_S):
        try:
            return await eventually(lambda: re.search(pattern, self.said), within_s)
        except AssertionError:
            raise AssertionError(f"never said {pattern}, but:\n{self.said}") from None

    async def ended(self):
        """Its exit code."""
        async with asyncio.timeout(STOPPED_S):
            code = await self.process.wait()
        await asyncio.gather(*self._reading)
        return code

    async def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return await self.ended()

    async def run(self, *arguments):
        """JSON that another command prints, called in the same folder."""
        return json.loads(await sh(self.folder, TENTERHOOK, *arguments, "--json"))

    def curl_line(self):
        return next(line for line in self.out.decode().splitlines() if line.startswith("curl "))


async def sh(folder, *command):
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out


@asynccontextmanager
async def up(folder, *options, ingest_port=0, **environment) -> AsyncIterator[Up]:
    ports = ("--ingest-port", str(ingest_port), "--admin-port", "0")
    process = await asyncio.create_subprocess_exec(
        *(TENTERHOOK, "up", "--ready-file", folder / "ready.json", *ports, *options),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    running = Up(process, folder)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await running.ended()


@pytest.fixture
def tell(capsys):
    """Prints a measurement past pytest's capture."""

    def past_capture(line):
        with capsys.disabled():
            sys.stdout.write(f"\n{line}\n")

    return past_capture


def is_alive(pid):
    """Whether it runs; a zombie that nobody has collected yet does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def texts(received):
    """The payloads that are text; the line that people paste sends an object."""
    return {payload for each in received if isinstance(payload := json.loads(each.body)["payload"], str)}


async def send(running, *events):
    """Posts events with these payloads as an app's server would; all must be accepted."""
    ready = running.document
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {ready['secretKey']}"}) as client:
        for payload in events:
            event = {"type": "call_ended", "payload": payload}
            response = await client.post(f"{ready['ingest']}/v1/apps/{ready['app']}/events", json=event)
            assert response.status_code == 202, response.text


async def arrived(hook, *wanted, within_s=40.0):
    """Once all of these payloads have; some may have come twice."""
    await eventually(lambda: set(wanted) <= texts(hook.received), within_s)


async def first_event(running, hook):
    """Makes an integration and sends an event, with the commands that people use; the integration's id."""
    integration = await running.run("integrations", "create", "--name", "a", "--url", hook.url, "--events", "*")
    await running.run("send", "call_ended", "--payload", '"first"')
    await arrived(hook, "first")
    return integration["id"]


async def paste_the_curl_line(running, hook):
    before = len(hook.received)
    response = await sh(running.folder, "bash", "-c", running.curl_line())
    assert b" 202 " in response.splitlines()[0]
    await hook.wait_for(before + 1, 30)


async def each_change_is_one_line(running):
    """What people and the breaker change, on an integration of its own whose endpoint fails."""

    def lines(event, **told):
        found = [line for line in running.said.splitlines() if re.search(rf"\b{re.escape(event)}\b", line)]
        return [line for line in found if all(f"{name}={value}" in line.split() for name, value in told.items())]

    async with endpoint() as failing:
        failing.behave(answer(503))
        made = await running.run(
            "integrations", "create", "--name", "f", "--url", failing.url, "--events", "call_started"
        )
        of_it = {"integration": made["id"]}
        event = {"type": "call_started", "payload": "f"}
        ready = running.document
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {ready['secretKey']}"}) as client:
            for _ in range(20):
                response = await client.post(f"{ready['ingest']}/v1/apps/{ready['app']}/events", json=event)
                assert response.status_code == 202, response.text
        await running.says(rf"integration\.turned.*{made['id']}.*state=paused", 30)
        await sh(running.folder, TENTERHOOK, "integrations", "activate", made["id"], "--skip")
        await running.says(rf"integration\.turned.*{made['id']}.*state=active", 30)
        for change in ("pause", "delete"):
            await sh(running.folder, TENTERHOOK, "integrations", change, made["id"])

    def count():
        kinds = ("create", "activate", "pause", "delete")
        return {
            **{kind: len(lines("change.applied", kind=f"integration.{kind}", **of_it)) for kind in kinds},
            **{state: len(lines("integration.turned", state=state, **of_it)) for state in ("paused", "active")},
            **{name: len(lines(f"{name}.ready")) for name in SERVICES},
        }

    await eventually(lambda: set(count().values()) == {1}, 10)
    [change] = lines("change.applied", kind="integration.activate")
    assert {f"app={ready['app']}", "version=2"} <= set(change.split()), change
    assert re.search(r"\bwho=\S", change), change


async def kill_every_service(running, hook):
    before = running.document["pids"]
    for name in SERVICES:
        os.kill(before[name], signal.SIGKILL)
    for name in SERVICES:
        await running.says(rf"{name} ended \(killed by SIGKILL\) after [\d.]+ s; starting it again")
        await running.says(rf"{name} is ready again")
    after = running.document["pids"]
    assert [name for name in SERVICES if after[name] == before[name] or is_alive(before[name])] == []
    await send(running, "after the kill")
    await arrived(hook, "after the kill")


async def kill_the_broker(running, hook):
    """It keeps what it had, and the services find it again by themselves."""
    services = {name: pid for name, pid in running.document["pids"].items() if name in SERVICES}
    os.kill(running.document["pids"]["broker"], signal.SIGKILL)
    await running.says(r"broker ended \(killed by SIGKILL\)")
    await running.says(r"broker is ready again")
    async with httpx.AsyncClient() as client:

        async def takes_events():
            return (await client.get(f"{running.document['ingest']}/health/ready")).is_success

        await eventually(takes_events, 30)
    await send(running, "after the broker's death")
    await arrived(hook, "after the broker's death")
    assert running.document["pids"].items() >= services.items()


def check_the_ready_file(running):
    document = running.document
    assert {"ingest", "admin", "app", "publicKey", "secretKey", "token"} <= set(document)
    assert stat.S_IMODE(running.ready_file.stat().st_mode) == 0o600
    # Where the other commands look.
    assert json.loads((running.folder / ".tenterhook/ready.json").read_text()) == document


def check_that_nothing_is_left(running, pids):
    assert [name for name, pid in pids.items() if is_alive(pid)] == []
    assert "Traceback" not in running.said
    assert running.document_is_gone


KEYS = ("app", "publicKey", "secretKey", "token")


async def test_on_the_embedded_broker(tmp_path, tell):
    async with endpoint() as hook, up(tmp_path, "--broker", "embedded") as running:
        keys = await running.ready()
        check_the_ready_file(running)
        assert "it keeps its data in memory" in running.said
        assert "broker.awaited" not in running.said
        ready_after_s = time.monotonic() - running.started_at
        await first_event(running, hook)
        tell(f"embedded: ready after {ready_after_s:.1f} s, first event after {running.lived_s:.1f} s")
        await paste_the_curl_line(running, hook)
        await kill_every_service(running, hook)

        # It comes back empty: with the same keys, without integrations, and says so.
        os.kill(running.document["pids"]["broker"], signal.SIGKILL)
        await running.says("what it held in memory is gone, integrations too")
        await running.gone()
        again = await running.ready()
        assert [again[name] for name in KEYS] == [keys[name] for name in KEYS]
        assert (await running.run("integrations", "list"))["items"] == []
        await running.run("integrations", "create", "--name", "b", "--url", hook.url, "--events", "*")

        # What was accepted is delivered before it is forgotten.
        hook.behave(answer(delay_s=0.05))
        pids, wanted = running.document["pids"], [f"last {number}" for number in range(20)]
        await send(running, *wanted)
        stopping_at = time.monotonic()
        assert await running.stop() == 0, running.said
        tell(f"embedded: stopped in {time.monotonic() - stopping_at:.1f} s")
        assert set(wanted) <= texts(hook.received)
        assert re.findall(r"(\w+) has stopped", running.said) == ["ingest", "dispatcher", "breaker", "admin", "broker"]
        check_that_nothing_is_left(running, pids)


@pytest.mark.kafka
async def test_on_apache_kafka(tmp_path, tell):
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    async with endpoint() as hook:
        async with up(tmp_path, "--broker", "kafka", TENTERHOOK_LOG_LEVEL="info") as running:
            keys = await running.ready()
            check_the_ready_file(running)
            assert "broker.awaited" not in running.said
            ready_after_s = time.monotonic() - running.started_at
            integration = await first_event(running, hook)
            tell(f"kafka: ready after {ready_after_s:.1f} s, first event after {running.lived_s:.1f} s")
            await paste_the_curl_line(running, hook)
            await each_change_is_one_line(running)
            await kill_every_service(running, hook)
            await kill_the_broker(running, hook)

            hook.behave(answer(delay_s=0.05))
            pids, wanted = running.document["pids"], [f"last {number}" for number in range(20)]
            await send(running, *wanted)
            stopping_at = time.monotonic()
            assert await running.stop() == 0, running.said
            tell(f"kafka: stopped in {time.monotonic() - stopping_at:.1f} s")
            check_that_nothing_is_left(running, pids)

        # The next start goes on where this one ended.
        async with up(tmp_path, "--broker", "kafka") as running:
            again = await running.ready()
            tell(f"kafka: ready again after {running.lived_s:.1f} s")
            assert [again[name] for name in KEYS] == [keys[name] for name in KEYS]
            assert [each["id"] for each in (await running.run("integrations", "list"))["items"]] == [integration]
            await arrived(hook, *wanted)

            # Even when `up` itself is killed, nothing of it stays.
            pids = running.document["pids"]
            running.process.kill()
            await running.ended()
            await eventually(lambda: not any(is_alive(pid) for pid in pids.values()))


async def test_a_broker_that_is_given_is_used_and_left_alone(embedded_broker, prefix, tmp_path):
    environment = {"TENTERHOOK_TOPIC_PREFIX": prefix}
    async with (
        endpoint() as hook,
        up(tmp_path, "--broker", embedded_broker.bootstrap, "--json", **environment) as running,
    ):
        await running.ready()
        await eventually(lambda: running.out)
        assert json.loads(running.out) == running.document
        assert set(running.document["pids"]) == set(SERVICES)
        await first_event(running, hook)

        assert await running.stop(signal.SIGTERM) == 0, running.said
        assert await embedded_broker.probe() is None


async def test_a_broker_that_is_away_is_waited_for(tmp_path):
    (port,) = free_ports(1)
    async with up(tmp_path, "--broker", f"127.0.0.1:{port}") as running:
        await running.says(rf"waiting for a broker at 127.0.0.1:{port}: ")

        assert await running.stop() == 0


async def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with up(tmp_path, "--broker", "embedded", ingest_port=port) as running:
            assert await running.ended() == 1
            assert f"ingest cannot listen on 127.0.0.1:{port}: Address already in use" in running.said
            assert "is ready" not in running.said


async def test_one_up_has_a_folder_at_a_time(tmp_path):
    with held(tmp_path / ".tenterhook"):
        async with up(tmp_path, "--broker", "embedded") as running:
            assert await running.ended() == 1
            assert f"another `tenterhook up` (process {os.getpid()}) has .tenterhook" in running.said


@pytest.mark.parametrize(
    "options",
    [["--broker", "nowhere"], ["--no-such-option"], ["--admin-port", "65536"], ["--ready-file", "no/such/folder/f"]],
)
async def test_wrong_usage_ends_with_exit_code_2(options, tmp_path):
    async with up(tmp_path, *options) as running:
        assert await running.ended() == 2
        assert options[0] in running.said
