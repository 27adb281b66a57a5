"""Partitions that come back empty, as when all disks that had them are lost: refused, said, and mended."""

import asyncio
import json
import re
import shutil
import signal
from collections import Counter

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError

from services.cli.brokers.choose import kafka_lacks
from services.cli.brokers.kafka import KafkaBroker
from services.cli.brokers.ports import free_ports
from streams import codec, mending, topics
from streams.connection import Connection
from streams.mending import StillRead, lost_partitions
from streams.producer import open_producer
from tests.brokers import lacking
from tests.e2e.test_up import TENTERHOOK, send, sh, texts, up
from tests.endpoints import answer, endpoint
from tests.logs import make_event
from tests.waiting import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(240)]

#: What the groups read, retry topics aside: the rest is read from its beginning by each process.
LOST = {"events", "deliveries", "delivery-results"}
GROUPS = ("dispatcher", "breaker", "admin")


def json_of(request):
    return json.loads(request.body)


def sent_to(hook):
    """Payloads in the order in which they came, those of events about integrations aside."""
    return [payload for each in hook.received if isinstance(payload := json_of(each)["payload"], str)]


def lose(folder, *names):
    """The disks that had these topics, all partitions of them, are replaced by empty ones."""
    [data] = folder.rglob("node-1/log")
    gone = [each for each in data.iterdir() if each.name.rpartition("-")[0] in {f"tenterhook.{name}" for name in names}]
    assert {each.name.rpartition("-")[0].removeprefix("tenterhook.") for each in gone} == set(names)
    for each in gone:
        shutil.rmtree(each)
    return data.parents[1]


async def tenterhook(*arguments, cwd):
    process = await asyncio.create_subprocess_exec(
        TENTERHOOK, *arguments, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 90)
    return process.returncode, out.decode(), err.decode()


async def until_accepted(port, keys, payloads):
    """Ingest is the first to be there, and takes events whoever else is not."""
    url = f"http://127.0.0.1:{port}/v1/apps/{keys['app']}/events"
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {keys['secret_key']}"}) as client:

        async def is_taken(payload):
            try:
                response = await client.post(url, json={"type": "call_ended", "payload": payload})
            except httpx.TransportError:
                return False
            return response.status_code == 202

        for payload in payloads:
            await eventually(lambda payload=payload: is_taken(payload), 30)


async def is_refused_while_somebody_reads(connection):
    member = AIOKafkaConsumer(
        connection.topic(topics.RESULTS),
        bootstrap_servers=connection.bootstrap,
        group_id=f"{connection.prefix}breaker",
        enable_auto_commit=False,
    )
    await member.start()
    try:
        first, *_ = await lost_partitions(connection, ("breaker",))
        with pytest.raises(StillRead, match="stop all services first"):
            await mending.mend(connection, first)
    finally:
        await member.stop()


async def is_interrupted(connection, monkeypatch):
    """In the midst of the events that came since: what was moved is not moved again."""
    [events] = [
        each for each in await lost_partitions(connection, ("dispatcher",)) if each.partition.topic.endswith(".events")
        and each.ends_at >= 5
    ]  # fmt: skip
    send, sent = AIOKafkaProducer.send, []

    async def dies(self, *arguments, **options):
        if len(sent) == 3:
            raise KafkaConnectionError("gone")
        sent.append(arguments)
        return await send(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(mending, "_UNDER_WAY", 2)
        patched.setattr(AIOKafkaProducer, "send", dies)
        with pytest.raises(KafkaConnectionError):
            await mending.mend(connection, events)
    [again] = [
        each for each in await lost_partitions(connection, ("dispatcher",)) if each.partition == events.partition
    ]
    assert again.moved_to == events.moved_to < again.ends_at


async def listed(running):
    """The integrations, by name."""
    ready = running.document
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {ready['token']}"}) as client:
        answer = await client.get(f"{ready['admin']}/v1/apps/{ready['app']}/integrations")
    return {each["name"]: each for each in answer.json()["items"]}


async def test_more_than_was_ever_read_is_written_since_and_reconcile_finds_what_is_passed_over(tmp_path):
    """By its length the log is whole again: nobody who reads on can tell."""
    async with endpoint() as hook:
        async with up(tmp_path, "--broker", "kafka") as running:
            app = (await running.ready())["app"]
            await running.run("integrations", "create", "--name", "hook", "--url", hook.url, "--events", "*")
            for number in range(5):
                await send(running, f"before-{number}")
            await eventually(lambda: len(texts(hook.received)) == 5, 30)
            assert await running.stop() == 0
        broker = KafkaBroker(lose(tmp_path, "events"))
        await broker.start()
        try:
            connection = Connection(broker.bootstrap, "tenterhook.")
            producer = await open_producer(connection, client_id="test")
            for number in range(9):  # as ingest does, which goes on accepting
                event = make_event(number, app=app, payload=json.dumps(f"since-{number}").encode())
                await producer.send_and_wait(connection.topic(topics.EVENTS), codec.encode(event), key=app.encode())
            await producer.stop()
        finally:
            await broker.stop()
        async with up(tmp_path, "--broker", "kafka") as running:
            bootstrap = (await running.ready())["broker"]
            await eventually(lambda: len(texts(hook.received)) == 9, 30)
            code, said, _ = await tenterhook("reconcile", "--json", "--broker", bootstrap, cwd=tmp_path)
            assert await running.stop() == 0

    report = json.loads(said)
    came = sorted(each for each in texts(hook.received) if each.startswith("since"))
    assert came == [f"since-{number}" for number in range(5, 9)], "operating.md says so"
    assert (code, report["proven"]) == (1, False)
    assert [each["offset"] for each in report["findings"] if each["kind"] == "no_receipt"] == [0, 1, 2, 3, 4]


async def failures_of(running, name):
    return (await listed(running))[name]["consecutiveFailures"]


async def before_the_loss(folder, hook, failing):
    async with up(folder, "--broker", "kafka") as running:
        await running.ready()
        for url in (hook.url, failing.url):
            await running.run("integrations", "create", "--name", url, "--url", url, "--events", "*")
        for number in range(12):
            await send(running, f"before-{number}")
        await eventually(lambda: len(texts(hook.received)) == 12 and len(failing.received) > 3, 30)
        assert await running.stop() == 0


async def accepted_after_it(folder, *named):
    """Nothing is read of the partitions of these topics; who is asked says why, and what comes is accepted."""
    [port] = free_ports(1)
    payloads = [f"since-{number}" for number in range(5)]
    async with up(folder, "--broker", "kafka", ingest_port=port) as running:
        for name in named:
            await running.says(rf"log\.shortened.*tenterhook\.{name}\b", 60)
        await running.says(r"is not ready yet: .*run tenterhook mend", 60)
        await until_accepted(port, json.loads((folder / ".tenterhook/keys.json").read_text()), payloads)
        running.process.send_signal(signal.SIGTERM)
        await running.ended()
    return payloads


async def mended(folder, connection, monkeypatch):
    log = ("--broker", connection.bootstrap)
    code, out, _ = await tenterhook("mend", "--json", *log, cwd=folder)
    assert code == 1
    listed = json.loads(out)["lost"]
    assert {each["topic"].removeprefix("tenterhook.") for each in listed} == LOST
    assert all(each["readTo"] > each["beginsAt"] == 0 and each["moved"] is None for each in listed)

    await is_refused_while_somebody_reads(connection)
    await is_interrupted(connection, monkeypatch)
    code, out, err = await tenterhook("mend", "--yes", *log, cwd=folder)
    assert code == 0, err
    assert await lost_partitions(connection, GROUPS) == []
    code, _, err = await tenterhook("mend", *log, cwd=folder)
    assert (code, err.strip()) == (0, "No partition has lost what was read of it.")


async def test_what_comes_after_the_loss_is_held_back_and_then_sent_in_order(tmp_path, monkeypatch):
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    async with endpoint() as hook, endpoint() as failing:
        failing.behave(answer(503))
        await before_the_loss(tmp_path, hook, failing)
        broker = KafkaBroker(lose(tmp_path, *LOST, "retry.5s"))
        accepted = await accepted_after_it(tmp_path, "deliveries", "delivery-results")
        assert texts(hook.received).isdisjoint(accepted)
        await broker.start()
        try:
            await mended(tmp_path, Connection(broker.bootstrap, "tenterhook."), monkeypatch)
        finally:
            await broker.stop()

        async with up(tmp_path, "--broker", "kafka") as running:
            await running.ready()
            await send(running, "after")
            await eventually(lambda: "after" in texts(hook.received), 30)
            seen = [json_of(each)["payload"] for each in hook.received]
            assert seen[-6:] == [*accepted, "after"]
            assert len(seen) == 18
            # And failures are counted on, from new results.
            counted = await failures_of(running, failing.url)

            async def is_counted_on():
                return await failures_of(running, failing.url) > counted

            await eventually(is_counted_on, 40)
            assert await running.stop() == 0


def lose_the_fullest(folder, name):
    """One of the disks of this topic is replaced by an empty one, that of a partition with records; which one."""
    [data] = folder.rglob("node-1/log")
    partitions = [each for each in data.iterdir() if each.name.rpartition("-")[0] == f"tenterhook.{name}"]
    fullest = max(partitions, key=lambda each: sum(file.stat().st_size for file in each.glob("*.log")))
    shutil.rmtree(fullest)
    return data.parents[1], int(fullest.name.rpartition("-")[2])


async def test_one_lost_partition_of_several_is_mended_alone(tmp_path):
    """The others of its topic are whole, and everything comes once and in order, of whichever partition it is."""
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    before = [f"before-{number}" for number in range(12)]
    async with endpoint() as hook, endpoint() as other:
        async with up(tmp_path, "--broker", "kafka") as running:
            await running.ready()
            for url in (hook.url, other.url):
                await running.run("integrations", "create", "--name", url, "--url", url, "--events", "*")
            await send(running, *before)
            await eventually(lambda: len(texts(hook.received)) == len(texts(other.received)) == 12, 30)
            assert await running.stop() == 0
        folder, number = lose_the_fullest(tmp_path, "deliveries")
        accepted = await accepted_after_it(tmp_path, "deliveries")
        assert texts(hook.received + other.received).isdisjoint(accepted)

        broker = KafkaBroker(folder)
        await broker.start()
        try:
            log = ("--broker", broker.bootstrap)
            _, out, _ = await tenterhook("mend", "--json", *log, cwd=tmp_path)
            [lost] = json.loads(out)["lost"]
            assert (lost["topic"], lost["partition"]) == ("tenterhook.deliveries", number)
            code, _, err = await tenterhook("mend", "--yes", *log, cwd=tmp_path)
            assert code == 0, err
        finally:
            await broker.stop()

        async with up(tmp_path, "--broker", "kafka") as running:
            await running.ready()
            await send(running, "after")
            await eventually(lambda: "after" in texts(hook.received) and "after" in texts(other.received), 30)
            assert await running.stop() == 0
        for each in (hook, other):
            assert sent_to(each) == [*before, *accepted, "after"]


async def test_the_loss_of_kafka_s_own_topics_repeats_nothing(tmp_path):
    """How far each group had read is gone: all that is kept is read again, and what has ended is found."""
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    async with endpoint() as hook, endpoint() as failing:
        failing.behave(answer(503))
        await before_the_loss(tmp_path, hook, failing)
        [data] = tmp_path.rglob("node-1/log")
        own = {"__consumer_offsets", "__transaction_state"}
        gone = [each for each in data.iterdir() if each.name.rpartition("-")[0] in own]
        assert {each.name.rpartition("-")[0] for each in gone} == own
        for each in gone:
            shutil.rmtree(each)

        async with up(tmp_path, "--broker", "kafka") as running:
            await running.ready()
            await send(running, "after")
            await eventually(lambda: "after" in texts(hook.received), 60)
            await running.run("integrations", "create", "--name", "new", "--url", hook.url, "--events", "call_started")
            # Its retries go on where they were, and its failures are counted on.
            await eventually(lambda: is_paused_by_the_breaker(running, failing.url), 60)
            assert not re.search(r"log\.(shortened|fallen_out)|records\.lost", running.said)
            assert await running.stop() == 0
        assert sent_to(hook) == [*(f"before-{number}" for number in range(12)), "after"]
        attempts = Counter((body["id"], body["attempt"]) for body in map(json_of, failing.received))
        assert set(attempts.values()) == {1}


#: No worker stops over these, so their loss has to show otherwise. What can be made again of one is not lost with it.
TOLD = ("integration-state", "lane-rows", "schemas")
COUNTED = ("breaker-rows-changelog", "fan-out")
CONFIGURED = ("integration-config", "config-history", "audit")


async def is_paused_by_the_breaker(running, name):
    found = (await listed(running))[name]
    return found["status"] == "paused" and "attempts in a row failed" in found["statusReason"]


async def end_of(connection, topic):
    """Of a topic of one partition, as the broker has it now."""
    partition = TopicPartition(connection.topic(topic), 0)
    async with AIOKafkaConsumer(bootstrap_servers=connection.bootstrap) as consumer:
        return (await consumer.end_offsets([partition]))[partition]


async def reconciled(folder, connection):
    """How many findings there are of each kind and integration."""
    code, out, _ = await tenterhook("reconcile", "--json", "--broker", connection.bootstrap, cwd=folder)
    assert code == 1
    return Counter((each["kind"], each["integration"]) for each in json.loads(out)["findings"])


async def before_it_is_lost(folder, hook, failing, held):
    """One is paused by the breaker and one by a person, and both have deliveries that wait on the log."""
    async with up(folder, "--broker", "kafka") as running:
        await running.ready()
        ids = {}
        for name, each in (("hook", hook), ("failing", failing), ("held", held)):
            made = await running.run("integrations", "create", "--name", name, "--url", each.url, "--events", "*")
            ids[name] = made["id"]
        await running.run("integrations", "pause", ids["held"])
        await send(running, *(f"first-{number}" for number in range(24)))
        await eventually(lambda: is_paused_by_the_breaker(running, "failing"), 40)
        await send(running, *(f"then-{number}" for number in range(4)))
        await eventually(lambda: len(texts(hook.received)) == 28, 30)
        failures = await failures_of(running, "failing")
        assert await running.stop() == 0
    return ids, failures


async def without_what_was_told(folder, ids, failures, hook, failing, held):
    """States are published again, rows of lines are not: their loss is said, found and made good."""
    hook.received.clear()
    failing.received.clear()
    async with up(folder, "--broker", "kafka") as running:
        document = await running.ready()
        await running.says(r"records\.lost.*tenterhook\.lane-rows")
        assert not re.search(r"records\.lost.*tenterhook\.(fan-out|event-ids)", running.said)
        connection = Connection(document["broker"], "tenterhook.")
        assert await lost_partitions(connection, GROUPS) == []
        assert await end_of(connection, topics.SCHEMAS) > 0
        await eventually(lambda: is_paused_by_the_breaker(running, "failing"), 20)
        assert await failures_of(running, "failing") >= failures
        # What was held is not sent by itself, and nobody is sent anything twice.
        await running.run("integrations", "activate", ids["held"], "--drain")
        await send(running, "after")
        await eventually(lambda: "after" in texts(held.received) and "after" in texts(hook.received), 30)
        assert (texts(hook.received), texts(held.received)) == ({"after"}, {"after"})
        assert "after" not in texts(failing.received)

        found = await reconciled(folder, connection)
        assert set(found) == {("no_outcome", ids["held"]), ("no_outcome", ids["failing"])}
        # Each of those that it had sent, and the events about integrations.
        assert found["no_outcome", ids["held"]] >= 28
        await sh(folder, TENTERHOOK, "replay", document["app"], ids["held"], "--from", "2026-01-01T00:00:00Z")
        await eventually(lambda: len(texts(held.received)) == 29, 30)
        assert await running.stop() == 0


async def without_what_was_counted(folder, failures):
    """The breaker's rows are folded from the results again; what the receipts said nobody can prove any more."""
    async with up(folder, "--broker", "kafka") as running:
        await running.says(r"rows\.behind")
        await running.says(r"records\.lost.*tenterhook\.fan-out")
        document = await running.ready()
        found = await reconciled(folder, Connection(document["broker"], "tenterhook."))
        assert {kind for kind, _ in found} == {"no_receipt", "stray_outcome"}
        assert not re.search(r"records\.lost.*tenterhook\.(lane-rows|event-ids)", running.said)
        assert await is_paused_by_the_breaker(running, "failing")
        assert await failures_of(running, "failing") >= failures
        assert await running.stop() == 0


async def without_a_configuration(folder):
    """Nobody works under none, so that nothing goes to nobody."""
    async with up(folder, "--broker", "kafka") as running:
        for service in ("dispatcher", "breaker", "admin"):
            lost = r"topic\.mismatch: topic tenterhook\.integration-config has lost its records"
            await running.says(f"tenterhook {service}: {lost}")
        running.process.send_signal(signal.SIGTERM)
        await running.ended()


async def test_what_no_worker_stops_over_is_made_again_or_missed_aloud(tmp_path):
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    async with endpoint() as hook, endpoint() as failing, endpoint() as held:
        failing.behave(answer(503))
        ids, failures = await before_it_is_lost(tmp_path, hook, failing, held)
        lose(tmp_path, *TOLD)
        await without_what_was_told(tmp_path, ids, failures, hook, failing, held)
        lose(tmp_path, *COUNTED)
        await without_what_was_counted(tmp_path, failures)
        lose(tmp_path, *CONFIGURED)
        await without_a_configuration(tmp_path)
