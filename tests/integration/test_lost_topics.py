"""Topics that nobody stops without, lost for real: what is said of it, what is refused, and what goes on."""

import json
import os
import signal

import httpx
import msgspec
import pytest

from services.cli.brokers.choose import kafka_lacks
from services.cli.brokers.kafka import KafkaBroker
from streams import codec, topics
from streams.connection import Connection
from streams.installation import joined
from streams.producer import open_producer
from streams.records import Installation, IntegrationConfig, WonIds
from streams.topic_ids import topic_ids
from streams.topics import Partitions
from tests.brokers import lacking
from tests.e2e.test_up import SERVICES, texts, up
from tests.endpoints import authority, endpoint, server_context
from tests.integration.test_installation import delete
from tests.integration.test_lost_partitions import lose, reconciled, tenterhook
from tests.logs import make_event
from tests.owning import raw_records
from tests.waiting import eventually

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.long,
    pytest.mark.timeout(400),
]

#: At once, since none of them has to do with another.
QUIET = ("command-replies", "config-history", "audit", "quarantine", "event-ids", "installation")

#: After so many receipts a dispatcher saves the ids of their events, and who comes next reads these receipts no more.
SAVED_AFTER = 2_000
#: Events in one batch.
AT_ONCE = 500


class Lost:
    """An Apache Kafka node whose disk loses topics under what runs, and the folder of all that."""

    def __init__(self, folder):
        self.folder = folder
        self.broker = KafkaBroker(folder / "kafka")
        self.connection = Connection(self.broker.bootstrap, "tenterhook.")
        #: The ids of integrations, by name.
        self.ids = {}

    async def lose(self, *names):
        await self.broker.stop()
        lose(self.folder, *names)
        await self.broker.start()

    async def records(self, topic):
        """What stands there now; it must be readable."""
        raw = await raw_records(self.connection, topic, partitions=Partitions())
        return [codec.decode(each.value) for each in raw]

    async def write(self, topic, key, value):
        producer = await open_producer(self.connection, client_id="test")
        try:
            await producer.send_and_wait(self.connection.topic(topic), value, key=key.encode())
        finally:
            await producer.stop()

    async def asks(self, *arguments):
        """Exit code and JSON of a command that goes to the log."""
        code, out, _ = await tenterhook(*arguments, "--broker", self.connection.bootstrap, "--json", cwd=self.folder)
        return code, json.loads(out) if out else None

    async def refused(self, *arguments):
        """What a command says that must not succeed."""
        code, _, err = await tenterhook(*arguments, cwd=self.folder)
        assert code == 1
        return err


def event(payload, type_="call_ended", **more):
    return {"type": type_, "payload": payload, **more}


async def answered(running, *events):
    """The status of the request, and those of the events in it."""
    ready = running.document
    url = f"{ready['ingest']}/v1/apps/{ready['app']}/events/batch"
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {ready['secretKey']}"}, timeout=30) as client:
        response = await client.post(url, json=events)
    told = response.json()
    return response.status_code, {each["status"] for each in told["items"]} if "items" in told else told["code"]


async def send(running, *events):
    assert await answered(running, *events) == (207, {202})


async def furnished(lost, running, **urls):
    """With the options of each, by name. The signing secret of `spoilt` does not open; `hook` has three versions."""
    await running.run("apps", "set", "--max-active", str(len(urls)))
    for name, (url, *more) in urls.items():
        wanted = "call_requested" if name == "spoilt" else "call_ended"
        made = await running.run("integrations", "create", "--name", name, "--url", url, "--events", wanted, *more)
        lost.ids[name] = made["id"]
    for change in (("pause",), ("activate", "--drain")):
        await running.run("integrations", change[0], lost.ids["hook"], *change[1:])
    [config] = [
        each
        for each in await lost.records(topics.INTEGRATION_CONFIG)
        if isinstance(each, IntegrationConfig) and each.id == lost.ids["spoilt"]
    ]
    [secret] = config.signing_secrets
    sealed = secret.sealed[:-1] + bytes([secret.sealed[-1] ^ 1])
    spoilt = msgspec.structs.replace(config, signing_secrets=[msgspec.structs.replace(secret, sealed=sealed)])
    await lost.write(topics.INTEGRATION_CONFIG, config.id, codec.encode(spoilt))


async def two_are_put_aside(lost, running):
    """An event that nobody can read, and a delivery whose attempt raises."""
    await lost.write(topics.EVENTS, running.document["app"], b"nobody's")
    await send(running, event("spoilt", "call_requested"))

    async def they_are():
        _, listed = await lost.asks("quarantine", "list")
        return {each["code"] for each in listed["items"]} == {"record.unreadable", "attempt.raised"}

    await eventually(they_are, 30)


async def ids_are_saved(lost, running):
    """The first one is on `event-ids`, and the last one on a receipt alone."""
    await send(running, event("early", id="early"))
    for first in range(0, SAVED_AFTER, AT_ONCE):
        await send(running, *(event(number, "call_started") for number in range(first, first + AT_ONCE)))

    async def they_are():
        return any(isinstance(each, WonIds) and each.ids for each in await lost.records(topics.EVENT_IDS))

    await eventually(they_are, 60)
    await send(running, event("late", id="late"))


async def goes_on_without(lost, running, hook):
    """Nothing stops: integrations are changed, and what cannot be worked on is put aside as before."""
    for name in ("command-replies", "config-history", "audit"):
        await running.says(rf"admin .*follower\.log_replaced.*topic=tenterhook\.{name} ")
    assert await lost.asks("quarantine", "list") == (0, {"items": [], "leftOut": 0})
    assert "nothing in quarantine has the id 0" in await lost.refused(
        "quarantine", "put-back", "0", "--broker", lost.connection.bootstrap
    )
    found = await reconciled(lost.folder, lost.connection)
    assert found == {("no_receipt", None): 1, ("no_outcome", lost.ids["spoilt"]): 1}

    # The owner of the configuration is the one that had written the chain that is gone.
    paused = await running.run("integrations", "pause", lost.ids["hook"])
    active = await running.run("integrations", "activate", lost.ids["hook"], "--drain")
    assert (paused["version"], active["version"]) == (4, 5)
    history = await running.run("integrations", "history", lost.ids["hook"])
    assert [(each["version"], each["changes"] is None) for each in history["items"]] == [(5, False), (4, True)]
    assert "version_unknown" in await lost.refused("integrations", "rollback", lost.ids["hook"], "1")
    assert [each["action"] for each in (await lost.asks("audit", "list"))[1]["items"]] == [
        "integration.pause",
        "integration.activate",
    ]
    code, proof = await lost.asks("audit", "verify")
    assert (code, proof["whole"]) == (0, True)

    await send(running, event("since"))
    await eventually(lambda: "since" in texts(hook.received), 30)
    await lost.write(topics.EVENTS, running.document["app"], b"nobody's")

    async def is_put_aside():
        _, listed = await lost.asks("quarantine", "list")
        return [(each["id"], each["code"]) for each in listed["items"]] == [(0, "record.unreadable")]

    await eventually(is_put_aside, 30)


async def starts_without(lost, running, hook):
    """The topics are noted as they are now, and of the ids those are known that a receipt still tells."""
    await running.says(r"records\.lost.*tenterhook\.event-ids")
    noted = [each for each in await lost.records(topics.INSTALLATION) if isinstance(each, Installation)]
    ids = await topic_ids(lost.connection, sorted(lost.connection.topic(each) for each in topics.TOPICS))
    assert ids["tenterhook.replays"] == joined(noted).topic_ids["replays"]

    hook.received.clear()
    await send(running, event("early again", id="early"), event("late again", id="late"), event("then"))
    await eventually(lambda: "then" in texts(hook.received), 30)
    assert texts(hook.received) == {"early again", "then"}
    found = await reconciled(lost.folder, lost.connection)
    assert found == {("no_receipt", None): 1, ("no_outcome", lost.ids["spoilt"]): 1}


async def are_refused(lost, running):
    """Who has a key or a token, by whoever reads apps."""

    async def key_is():
        try:
            return await answered(running, event("refused")) == (401, "key_unknown")
        except httpx.TransportError:
            return False

    await eventually(key_is, 30)

    async def token_is():
        _, _, err = await tenterhook("integrations", "list", cwd=lost.folder)
        return "token_unknown" in err

    await eventually(token_is, 30)


async def runs_without_apps(lost, running, hook, signed, https):
    """As well as what starts without any: all are ready. What needs no app is delivered."""
    await running.says(r"follower\.log_replaced.*topic=tenterhook\.app-config ")
    await are_refused(lost, running)
    pids = running.document["pids"]
    for name in SERVICES:
        os.kill(pids[name], signal.SIGKILL)
    for name in SERVICES:
        await running.says(rf"{name} is ready again")
    await are_refused(lost, running)

    app = running.document["app"]
    await lost.write(topics.EVENTS, app, codec.encode(make_event(app=app, payload=b'"waits"')))
    for name in ("hook", "signed"):
        await running.says(rf"secrets\.locked.*integration={lost.ids[name]} ", 30)
    await eventually(lambda: "waits" in texts(https.received), 30)
    assert "waits" not in texts(hook.received) | texts(signed.received)


async def has_its_app_again(lost, running, hook, signed):
    """As `up` makes it at its start: with the same keys, which open it, and with another data key."""
    await eventually(lambda: "waits" in texts(hook.received), 30)
    await running.says(rf"secrets\.locked.*integration={lost.ids['signed']} ", 30)
    assert "waits" not in texts(signed.received)
    await send(running, event("last"))
    await eventually(lambda: "last" in texts(hook.received), 30)


async def test_nobody_stops_over_it_and_what_cannot_be_told_any_more_is_not_made_up(tmp_path):
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    ca = authority()
    trusted = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(trusted))
    lost = Lost(tmp_path)
    given = ("--broker", lost.connection.bootstrap)
    await lost.broker.start()
    try:
        async with (
            endpoint() as hook,
            endpoint() as signed,
            endpoint(tls=server_context(ca.issue_cert("127.0.0.1"))) as https,
        ):
            async with up(tmp_path, *given, SSL_CERT_FILE=str(trusted)) as running:
                await running.ready()
                await furnished(
                    lost,
                    running,
                    hook=[hook.url],
                    signed=[signed.url, "--signing"],
                    https=[https.url],
                    spoilt=[hook.url, "--signing"],
                )
                await two_are_put_aside(lost, running)
                await ids_are_saved(lost, running)
                for each in (hook, signed, https):
                    await eventually(lambda each=each: {"early", "late"} <= texts(each.received), 30)
                await lost.lose(*QUIET)
                await goes_on_without(lost, running, hook)
                assert await running.stop() == 0

            # Nobody can tell this from now on: there is no record of what it was.
            await delete(lost.connection, topics.REPLAYS)
            async with up(tmp_path, *given, SSL_CERT_FILE=str(trusted)) as running:
                await running.ready()
                await starts_without(lost, running, hook)
                await lost.lose("app-config")
                await runs_without_apps(lost, running, hook, signed, https)
                assert await running.stop() == 0

            async with up(tmp_path, *given, SSL_CERT_FILE=str(trusted)) as running:
                await running.ready()
                await has_its_app_again(lost, running, hook, signed)
                assert await running.stop() == 0

            # And this is found out, by the record that was made since.
            await delete(lost.connection, topics.REPLAYS)
            said = await lost.refused("up", *given, "--ingest-port", "0", "--admin-port", "0")
            assert "topic tenterhook.replays was deleted and made again" in said
    finally:
        await lost.broker.stop()
