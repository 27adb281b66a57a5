"""The examples of docs/python-client.md, and the commands that go over the same client, on one whole stack."""

import ast
import asyncio
import inspect
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.admin.bootstrap import bootstrap
from services.cli import deliveries, replay, send
from services.cli.access import AdminOptions, InstallationOptions
from services.cli.errors import Failed, WrongUsage
from services.cli.integrations.existing import send_sample
from services.ingest.app import running
from services.runtime.settings import PartitionSettings
from services.runtime.times import iso
from streams.connection import Connection
from tenterhook import Client
from tests.admins import KNOWN, admin_at
from tests.dispatching import dispatching
from tests.ingesting import settings_for, until_ready
from tests.logs import Log, log_of, make_event
from tests.receiving import Receiver, after, receiver
from tests.replays import HEADER, replayed
from tests.waiting import eventually

PAGE = (Path(__file__).parents[2] / "docs" / "python-client.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@dataclass(frozen=True, slots=True)
class Stack:
    log: Log
    to: Receiver
    admin: str
    ingest: str
    client: Client

    @property
    def app(self) -> AdminOptions:
        return AdminOptions(admin=self.admin, token=KNOWN.token, app="demo")

    @property
    def everywhere(self) -> InstallationOptions:
        return InstallationOptions(admin=self.admin, token=KNOWN.token)


@asynccontextmanager
async def stack(connection: Connection) -> AsyncIterator[Stack]:
    async with log_of(connection) as log, receiver() as to:
        await bootstrap(connection, now_ms=1_000, random=bytes, known=KNOWN)
        async with (
            admin_at(connection, partitions=PartitionSettings(by_app=2, by_integration=3)) as admin,
            running(settings_for(connection)) as ingest,
            dispatching(connection),
        ):
            await until_ready(ingest)
            addresses = (admin.served.url, ingest.served.url)
            client = Client("demo", key=KNOWN.secret_key, ingest=addresses[1], token=KNOWN.token, admin=addresses[0])
            async with client:
                yield Stack(log, to, *addresses, client)


async def said(capsys: Any, command: Any, *args: Any, **given: Any) -> tuple[Any, Any]:
    """Its exit code, and what it prints as JSON; it blocks, as commands do."""
    capsys.readouterr()
    code = await asyncio.to_thread(command, *args, as_json=True, **given)
    # Among what the services log, which are in this process.
    [said] = (line for line in capsys.readouterr().out.splitlines() if line.startswith("{"))
    return code, json.loads(said)


async def test_every_example_of_the_page_runs(kafka_connection, capsys):
    """In their order, against real services; the first is a program of its own."""
    async with stack(kafka_connection) as it:
        here = {
            "http://127.0.0.1:8080": it.ingest,
            "http://127.0.0.1:8081": it.admin,
            "https://crm.example/hooks/{secret.path}": f"{it.to.endpoint.url}/{{secret.path}}",
            "sk_…": KNOWN.secret_key,
            "tok_…": KNOWN.token,
        }
        names: dict[str, Any] = {"__name__": "example"}
        first, *others = [_with(example, here) for example in EXAMPLES]
        await asyncio.to_thread(exec, first, dict(names))
        for example in others:
            work = eval(compile(example, "docs/python-client.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if inspect.iscoroutine(work):
                await work

        assert len(others) >= 8
        assert names["state"].status == "done"
        assert names["accepted"].id == "booking-7-created"
        assert names["record"].action == "integration.create"
        assert names["revealed"].value == "another"
        assert it.to.count
    assert "whsec_" in capsys.readouterr().out


def _with(example: str, here: dict[str, str]) -> str:
    for one, other in here.items():
        example = example.replace(one, other)
    return example


@pytest.fixture
def small_lots(monkeypatch):
    """Eleven deliveries are sent again by three requests."""
    monkeypatch.setattr(deliveries, "LOT", 4)


@pytest.mark.usefixtures("small_lots")
async def test_commands_send_replay_and_send_again_and_it_is_on_the_audit_log(kafka_connection, capsys):
    async with stack(kafka_connection) as it:
        url = it.to.integration("int_1").url
        made = await it.client.integrations.create(name="A", url=url, events=["call_ended"])
        since = iso(time.time_ns() // 1_000_000 - 1_000)
        it.to.policies["int_1"] = after(0, 400)
        sending = {"app": "demo", "key": KNOWN.secret_key, "ingest": it.ingest}
        code, sent = await said(capsys, send.send, "call_ended", payload='{"n": 0}', **sending)
        assert (code, sent["id"][:4]) == (None, "evt_")
        await it.log.events(*(make_event(number) for number in range(1, 12)))
        rejected = await _until(it.client, 12, outcome="rejected")
        it.to.policies.clear()

        # Sent again: one by its id, once; the rest only when somebody agrees.
        again = {"access": it.app}
        code, done = await said(capsys, deliveries.retry, rejected[0].id, "dlv_none", **again)
        assert (code, [each["of"] for each in done["sent"]]) == (1, [rejected[0].id])
        assert "no delivery of this id" in done["refused"][0]["why"]
        await _until(it.client, 1, outcome="delivered")
        with pytest.raises(Failed, match="--yes"):
            await said(capsys, deliveries.retry, outcome="rejected", **again)
        code, done = await said(capsys, deliveries.retry, outcome="rejected", yes=True, type="call_ended", **again)
        assert (code, len(done["sent"]), done["refused"]) == (0, 11, [])
        await _until(it.client, 12, outcome="delivered", cause="retry")

        # A replay: shown, sent, listed, cancelled.
        given = {"since": since, "type": ("call_ended",), "access": it.everywhere}
        code, shown = await said(capsys, replay.start, "demo", made.id, dry_run=True, sample=1, **given)
        assert (code, shown["events"], shown["byType"], len(shown["sample"])) == (0, 12, {"call_ended": 12}, 1)
        assert HEADER in {each["name"] for each in shown["sample"][0]["headers"]}
        code, done = await said(capsys, replay.start, "demo", made.id, rate=200, **given)
        assert (code, done["status"], done["progress"]["outcomes"]) == (0, "done", {"delivered": 12})
        assert len(replayed(it.to, "int_1", done["id"])) == 12
        code, slow = await said(capsys, replay.start, "demo", made.id, rate=1, detach=True, **given)
        assert (code, slow["status"]) == (0, "running")
        code, told = await said(capsys, replay.cancel, slow["id"], access=it.app)
        assert (code, told) == (0, {"cancelled": slow["id"]})
        _, listed = await said(capsys, replay.list_, access=it.app)
        assert [(each["id"], each["status"]) for each in listed["items"]] == [
            (done["id"], "done"),
            (slow["id"], "cancelled"),
        ]
        assert [each.id async for each in it.client.replays.list()] == [slow["id"], done["id"]]
        ended = await asyncio.to_thread(replay.cancel, done["id"], access=it.app)
        await asyncio.to_thread(replay.list_, access=it.app)
        assert (ended, "12 delivered" in capsys.readouterr().out) == (1, True)

        # What is asked for wrongly.
        for app, integration in (("demo", "int_2"), ("other", made.id)):
            with pytest.raises(Failed, match="unknown"):
                await said(capsys, replay.start, app, integration, since=since, access=it.everywhere)
        with pytest.raises(WrongUsage, match="zone"):
            await said(capsys, replay.start, "demo", made.id, since="2026-01-02", access=it.everywhere)
        with pytest.raises(Failed, match="until"):
            await said(capsys, replay.start, "demo", made.id, until="2999-01-02T00:00:00Z", **given)
        with pytest.raises(Failed, match="no replay"):
            await said(capsys, replay.cancel, "rpl_0", access=it.app)

        _, tested = await said(capsys, send_sample, made.id, access=it.app)
        assert (tested["integration"], tested["event"]) == (made.id, "call_ended")
        actions = [each.action async for each in it.client.audit()]
    assert {action: actions.count(action) for action in dict.fromkeys(actions)} == {
        "integration.create": 1,
        "integration.test": 1,
        "delivery.retry": 4,
        "replay.start": 2,
        "replay.cancel": 1,
    }


async def _until(client: Client, count: int, **wanted: Any) -> Any:
    """The list of deliveries, when it has so many."""

    async def there() -> Any:
        found = [each async for each in client.deliveries.list(**wanted)]
        return found if len(found) == count else None

    return await eventually(there, 30)


def test_what_is_sent_again_has_to_be_said():
    for given in ({}, {"integration": "int_1"}):
        with pytest.raises(WrongUsage):
            deliveries.retry(**given)
    with pytest.raises(WrongUsage):
        deliveries.retry("dlv_1", type="call_ended")
