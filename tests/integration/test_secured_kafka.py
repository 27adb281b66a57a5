"""
Three Kafka nodes with TLS both ways, SCRAM and ACLs; every service as a process of its own user, with what
`streams.grants` gives it, set up by commands as docs/deploying.md does; and that page itself.
"""

import asyncio
import base64
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import asynccontextmanager, closing, suppress
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
import structlog
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import ClusterAuthorizationFailedError, TopicAuthorizationFailedError

from services.cli import mend
from services.cli.backup import KEPT, Kept, backup, lines_of, restore
from services.cli.brokers.choose import kafka_lacks
from services.cli.brokers.kafka import JARS
from services.cli.brokers.ports import free_ports
from streams import codec, mending, topics
from streams.connection import BrokerAway, BrokerRefused, BrokerUntrusted, Connection, brokers_at
from streams.follower import Follower
from streams.producer import open_producer
from streams.records import Quarantined
from tests.brokers import lacking
from tests.endpoints import answer, endpoint
from tests.logs import make_event
from tests.pasted import BIN, ROOT, Terminal, blocks
from tests.records import make_delivery
from tests.secured import _ALLOW, _KINDS, _LITERAL, _OPERATIONS, _PREFIXED, BROKER, SecuredKafka, _Acls
from tests.waiting import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(240)]

PARTITIONS = topics.Partitions(by_app=1, by_integration=2)
PREFIX = "tenterhook."
#: Longer than anything waits for here: what comes sooner did not come by its end.
SESSION_S = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    cluster = SecuredKafka(tmp_path_factory.mktemp("secured"))

    async def start():
        await cluster.start()
        await topics.ensure(cluster.connection(BROKER), PARTITIONS)
        await cluster.allow(PREFIX)

    asyncio.run(start())
    yield cluster
    cluster.kill()


@pytest.fixture(autouse=True)
async def closed():
    """aiokafka does not wait for the end of a TLS connection: it comes a moment after `close`."""
    yield
    await asyncio.sleep(0.2)


class Services:
    """The processes of an installation, and its commands."""

    def __init__(self, cluster: SecuredKafka, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        (folder / "kek").write_bytes(base64.b64encode(bytes(range(32))))
        self.ports: dict[str, int] = {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, user: str, **own: object) -> dict[str, str]:
        given = {
            "BROKER": self.cluster.bootstrap,
            "KEK_FILE": self.folder / "kek",
            "PARTITIONS__BY_APP": PARTITIONS.by_app,
            "PARTITIONS__BY_INTEGRATION": PARTITIONS.by_integration,
            **own,
        }
        plain = {name: value for name, value in os.environ.items() if not name.startswith("TENTERHOOK_")}
        variables = {f"TENTERHOOK_{name}": str(value) for name, value in given.items()}
        return plain | variables | self.cluster.environment(user)

    def start(self, name: str, **own: object) -> None:
        service = name.partition("-")[0]
        [self.ports[name]] = free_ports(1)
        if service in ("dispatcher", "breaker"):
            own |= {"INSTANCE_ID": name, "SESSION_TIMEOUT_MS": SESSION_S * 1000}
        if service == "dispatcher":
            own["ALLOW_PRIVATE_ADDRESSES"] = True
        section = {f"{service.upper()}__{key}": value for key, value in own.items()}
        environment = self.environment(service, **section, **{f"{service.upper()}__PORT": self.ports[name]})
        with (self.folder / f"{name}.log").open("ab") as output:
            command = [sys.executable, "-m", "services.cli", service]
            self.running[name] = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    async def ready(self, *names: str) -> None:
        for name in names:
            await eventually(lambda name=name: self._is_ready(name), 40)

    async def _is_ready(self, name: str) -> bool:
        assert self.running[name].poll() is None, self.said(name)
        try:
            async with aiohttp.request("GET", f"http://127.0.0.1:{self.ports[name]}/health/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def command(self, *arguments: str, user: str = "operator", **own: object) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli", *arguments),
            env=self.environment(user, **own),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, err.decode()
        return out.decode()


@asynccontextmanager
async def installation(cluster, folder):
    services = Services(cluster, folder)
    try:
        for name in ("ingest", "breaker", "admin", "dispatcher-0"):
            services.start(name)
        await services.ready("ingest", "breaker", "admin", "dispatcher-0")
        yield services
    except BaseException:
        for process in services.running.values():
            process.send_signal(signal.SIGUSR1)  # what does it wait for?
        await asyncio.sleep(1)
        for name in services.running:
            sys.stderr.write(f"-- {name}\n{services.said(name)}")
        raise
    finally:
        for process in services.running.values():
            process.kill()
            process.wait()


async def test_all_services_deliver_each_as_its_own_user(cluster, tmp_path):
    async with installation(cluster, tmp_path) as services, endpoint() as receiver:
        receiver.behave(answer(status=500), answer())  # so that retry topics are written and read
        admin = {"ADMIN_URL": f"http://127.0.0.1:{services.ports['admin']}", "APP": "shop"}
        token = json.loads(await services.command("tokens", "first", "ops", "--json", user="maintainer"))["token"]
        (tmp_path / "token").write_text(f"{token}\n")
        admin["TOKEN_FILE"] = tmp_path / "token"
        await services.command("apps", "create", "shop", "--types", "order_paid", "--allow-http", **admin)
        key = json.loads(await services.command("apps", "keys", "create", "--kind", "secret", "--json", **admin))["key"]
        (tmp_path / "key").write_text(key)
        create = ("integrations", "create", "--name", "CRM", "--url", f"{receiver.url}/crm", "--events", "order_paid")
        made = json.loads(await services.command(*create, "--json", **admin))["id"]

        ingest = {"INGEST_URL": f"http://127.0.0.1:{services.ports['ingest']}", "KEY_FILE": tmp_path / "key"}

        async def send(event: str) -> None:
            await services.command("send", "order_paid", "--payload", "{}", "--id", event, "--app", "shop", **ingest)

        await send("evt-1")
        await receiver.wait_for(2, timeout_s=30)
        traced = await services.command("trace", "evt-1")
        dry = ("replay", "start", "shop", made, "--from", "2020-01-01T00:00:00Z", "--dry-run", "--json")
        planned = json.loads(await services.command(*dry, **admin))

        # A worker that was killed and is started again under its name does not wait for its session to end.
        services.running["dispatcher-0"].kill()
        services.running["dispatcher-0"].wait()
        services.start("dispatcher-0")
        await services.ready("dispatcher-0")
        await send("evt-2")
        await receiver.wait_for(3, timeout_s=SESSION_S / 2)

        # One that is told to go leaves at once: what it had is another's before its session ends.
        services.start("dispatcher-1")
        await services.ready("dispatcher-0", "dispatcher-1")
        services.running["dispatcher-0"].terminate()
        await eventually(lambda: services.running["dispatcher-0"].poll() is not None, 30)
        await services.ready("dispatcher-1")
        await send("evt-3")
        await receiver.wait_for(4, timeout_s=SESSION_S / 2)
        said = {name: services.said(name) for name in services.running}

    bodies = [json.loads(each.body)["id"] for each in receiver.received]
    assert bodies == ["evt-1", "evt-1", "evt-2", "evt-3"]
    assert "delivered" in traced
    assert planned["events"] == 1
    assert said["dispatcher-0"].count("group.left_for_predecessor") == 1
    assert "group.left_for_predecessor" not in said["dispatcher-1"]
    for name, text in said.items():
        assert "AuthorizationFailed" not in text, name
        assert not [password for password in cluster.passwords.values() if password in text], name


class _PastedAcls(_Acls):
    """What `kafka-acls.sh` was called for, call by call: as many starts of Java would take minutes."""

    def __init__(self, calls: Iterable[list[str]]) -> None:
        self._rows = [row for call in calls for row in self._of(call)]

    @staticmethod
    def _of(call: list[str]) -> Iterator[tuple[int, str, int, str, str, int, int]]:
        given = defaultdict(list)
        for option, value in pairwise(call):
            given[option].append(value)
        assert {"--bootstrap-server", "--command-config", "--add"} <= set(given)
        pattern = _PREFIXED if given["--resource-pattern-type"] == ["prefixed"] else _LITERAL
        for kind, number in _KINDS.items():
            for name in given[f"--{kind.replace('_', '-')}"]:
                for operation in given["--operation"]:
                    yield number, name, pattern, given["--allow-principal"][0], "*", _OPERATIONS[operation], _ALLOW


@pytest.mark.long
@pytest.mark.timeout(480)
async def test_the_page_s_first_event_as_it_is_read(cluster, tmp_path):
    """docs/deploying.md, from its users to its event: every block pasted, with Kafka's own tool for users."""
    page = [block.text for block in blocks() if block.page == "docs/deploying.md"][:10]
    ports = dict(zip(("ingest", "admin", "dispatcher", "breaker"), free_ports(4), strict=True))
    tools, login = tmp_path / "bin", "org.apache.kafka.common.security.scram.ScramLoginModule"
    tools.mkdir()
    for name, does in {
        "kafka-configs.sh": f'exec java -Xmx128m -cp "{JARS}/*" kafka.admin.ConfigCommand "$@"',
        "kafka-acls.sh": f'echo "$*" >> {tmp_path}/acls',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    properties = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": f'{login} required username="{BROKER}" password="{cluster.passwords[BROKER]}";',
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": cluster.files / "ca.pem",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": cluster.files / "broker.pem",
    }
    (tmp_path / "admin.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    shutil.copy(cluster.files / "ca.pem", tmp_path / "ca.crt")
    shutil.copy(cluster.files / f"{BROKER}.password", tmp_path / "kafka-admin.password")
    own = {f"{name.upper()}__PORT": port for name, port in ports.items()} | {
        "TOPIC_PREFIX": "page.",
        "PARTITIONS__BY_APP": PARTITIONS.by_app,
        "PARTITIONS__BY_INTEGRATION": PARTITIONS.by_integration,
        "DISPATCHER__ALLOW_PRIVATE_ADDRESSES": "true",
        "INGEST_URL": f"http://127.0.0.1:{ports['ingest']}",
        "ADMIN_URL": f"http://127.0.0.1:{ports['admin']}",
        # Here a client proves itself to TLS too.
        "KAFKA__CERTIFICATE_FILE": cluster.files / "client.pem",
        "KAFKA__KEY_FILE": cluster.files / "client.key",
    }
    environment = {f"TENTERHOOK_{name}": str(value) for name, value in own.items()}
    environment["PATH"] = f"{tools}:{BIN}:{os.environ['PATH']}"

    async with endpoint() as receiver:
        replaced = {
            "kafka-1.example:9093,kafka-2.example:9093,kafka-3.example:9093": cluster.bootstrap,
            "deploy/kafka/acls.sh": ROOT / "deploy" / "kafka" / "acls.sh",
            "USER=kafka-admin": f"USER={BROKER}",
            "8080 8081 8090 8091": " ".join(map(str, ports.values())),
            "--types order_paid": "--types order_paid --allow-http",
            "https://crm.example": receiver.url,
        }
        terminal = Terminal(tmp_path, environment=environment, replaced=replaced)
        with closing(terminal):

            async def paste(start: str) -> str:
                block = page.pop(0)
                assert block.startswith(start)
                return await asyncio.to_thread(terminal.paste, block)

            await paste("export BROKER=")
            await paste("for service in ingest dispatcher breaker admin operator maintainer")
            calls = (tmp_path / "acls").read_text().replace(PREFIX, "page.").splitlines()
            await cluster.send(_PastedAcls([call.split() for call in calls]))
            await paste("openssl rand")
            await paste("export TENTERHOOK_BROKER=")
            making = terminal.leave_running(page.pop(0))
            await asyncio.to_thread(terminal.wait_for, r"ingest\.ready", 60, making)
            assert await asyncio.to_thread(terminal.interrupt, making) == 0
            assert "all are there" in await paste("TENTERHOOK_KAFKA__USER=tenterhook-operator")
            await paste("for service in ingest dispatcher breaker admin; do")
            await paste("field()")
            await receiver.wait_for(1, timeout_s=30)
            assert "delivered" in await paste("TENTERHOOK_KAFKA__USER=tenterhook-operator")

    assert page[0].startswith("docker build")
    for name in ports:
        assert "AuthorizationFailed" not in (tmp_path / f"{name}.log").read_text(), name


def put_aside(connection, topic, record):
    """As whoever could not read it puts it aside."""
    return Quarantined(
        topic=connection.topic(topic),
        partition=0,
        offset=7,
        key=b"demo",
        value=codec.encode(record),
        headers=[],
        code="record.unreadable",
        reason="written by a newer release",
        agent="test",
        at_ms=1_700_000_000_000,
    )


async def before_the_commands(connection, quarantined):
    """Topics as Strimzi makes them, with nothing on them but what was put aside."""
    admin = AIOKafkaAdminClient(**connection.client_options)
    await admin.start()
    try:
        made = [
            NewTopic(
                connection.topic(each),
                topics.partition_count(each, PARTITIONS),
                3,
                topic_configs=topics.configs(each, 3),
            )
            for each in topics.TOPICS
        ]
        answered = await admin.create_topics(made)
        assert {code for _, code, *_ in answered.topic_errors} == {0}, answered
    finally:
        await admin.close()
    producer = await open_producer(connection, client_id="test")
    try:
        for each in quarantined:
            await producer.send_and_wait(connection.topic(topics.QUARANTINE), codec.encode(each))
    finally:
        await producer.stop()


async def lose(connection, read):
    """The first partitions of these topics end before what their groups have read of them."""
    for group, topic in read.items():
        partition = TopicPartition(connection.topic(topic), 0)
        reader = AIOKafkaConsumer(
            **connection.client_options, group_id=f"{connection.prefix}{group}", enable_auto_commit=False
        )
        await reader.start()
        try:
            reader.assign([partition])
            await reader.commit({partition: OffsetAndMetadata(9, "")})
        finally:
            await reader.stop()


async def test_the_maintainer_restores_puts_back_and_mends(cluster, tmp_path, monkeypatch, capsys):
    """The commands that write to the log by themselves, `tokens first` aside, in an installation of their own."""
    structlog.reset_defaults()  # as at the start of a command: `capture_logs` of a test before leaves it configured
    prefix = "kept."
    connection = cluster.connection(BROKER, prefix)
    event, delivery = (topics.EVENTS, make_event()), (topics.RETRIES[1], make_delivery())
    await before_the_commands(connection, [put_aside(connection, *each) for each in (event, delivery)])
    await cluster.allow(prefix)

    def environment(user):
        own = {
            "BROKER": cluster.bootstrap,
            "TOPIC_PREFIX": prefix,
            "PARTITIONS__BY_APP": str(PARTITIONS.by_app),
            "PARTITIONS__BY_INTEGRATION": str(PARTITIONS.by_integration),
        }
        return {f"TENTERHOOK_{name}": value for name, value in own.items()} | cluster.environment(user)

    async def said(user, command, *arguments, **options):
        for name, value in environment(user).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = await asyncio.to_thread(command, *arguments, as_json=True, **options)
        return code, json.loads(capsys.readouterr().out)

    kept = [Kept(topic.name, b"k", b"v", 1_700_000_000_000) for topic in KEPT]
    with gzip.open(tmp_path / "backup", "wt") as file:
        file.writelines(f"{line}\n" for line in lines_of(kept, at_ms=0))
    _, restored = await said("maintainer", restore, tmp_path / "backup")
    _, backed_up = await said("operator", backup, tmp_path / "again")

    page = [block.text for block in blocks() if block.page == "docs/commands.md"]
    [show] = [text for text in page if text.startswith("tenterhook quarantine show 17 ")]
    [block] = [text for text in page if text.startswith("tenterhook quarantine put-back 17\n")]
    terminal = Terminal(
        tmp_path, "maintainer", environment("maintainer"), {"put-back 17": "put-back 0", "show 17": "show 0"}
    )
    with closing(terminal):
        shown = await asyncio.to_thread(terminal.paste, show)
        put_back = await asyncio.to_thread(terminal.paste, block)

    monkeypatch.setattr(mending, "BEYOND_COMMITTED", 100)
    lost = {"dispatcher": topics.EVENTS, "breaker": topics.RESULTS, "admin": topics.COMMANDS}
    await lose(connection, lost)
    listed = await said("operator", mend.command)
    mended = await said("maintainer", mend.command, yes=True)
    whole = await said("operator", mend.command)

    assert restored == {"records": {topic.name: 1 for topic in KEPT}, "unreadable": 4}
    assert backed_up == {"records": {topic.name: 1 for topic in KEPT}}
    assert "written by a newer release" in shown
    assert "0 is put back to kept.events 0@0\n1 is put back to kept.retry.5s 0@0\n" in put_back
    assert (listed[0], mended[0]) == (1, 0)
    assert {each["topic"]: each["moved"] for each in mended[1]["lost"]} == {
        "kept.events": 1,
        "kept.delivery-results": 0,
        "kept.commands": 0,
    }
    assert whole == (0, {"lost": []})


async def test_a_user_may_no_more_than_its_service_does(cluster):
    for user, topic in (
        ("dispatcher", topics.EVENTS),
        ("ingest", topics.DELIVERIES),
        ("breaker", topics.APP_CONFIG),
        ("maintainer", topics.FAN_OUT),
    ):
        connection = cluster.connection(user, PREFIX)
        producer = await open_producer(connection, client_id="test")
        try:
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(connection.topic(topic), b"forged", key=b"k")
        finally:
            await producer.stop()

    with pytest.raises(ClusterAuthorizationFailedError):  # who may write nothing gets no producer
        await open_producer(cluster.connection("operator", PREFIX), client_id="test")

    connection = cluster.connection("ingest", PREFIX)
    reader = AIOKafkaConsumer(**connection.client_options)
    await reader.start()
    try:
        reader.assign([TopicPartition(connection.topic(topics.DELIVERIES), 0)])
        with pytest.raises(TopicAuthorizationFailedError):
            await asyncio.wait_for(reader.getone(), 20)
    finally:
        await reader.stop()


async def test_who_is_not_let_in_is_told_why_without_a_secret(cluster):
    wrong = cluster.connection("ingest", password="not-the-pa55word", password_file=None)
    plain = cluster.connection("ingest", sasl_mechanism="PLAIN")
    other_ca = cluster.connection("ingest", ca_file=cluster.files / "other-ca.pem")
    no_certificate = cluster.connection("ingest", certificate_file=None, key_file=None)
    allowed = cluster.connection("ingest")
    other_name = Connection(cluster.bootstrap.replace("127.0.0.1", "localhost"), security=allowed.security)

    with pytest.raises(BrokerRefused, match=r"broker\.refused: .* does not let the user 'ingest' in") as refused:
        await brokers_at(wrong)
    with pytest.raises(BrokerRefused, match=r"does not take PLAIN"):
        await brokers_at(plain)
    with pytest.raises(BrokerUntrusted, match=r"broker\.untrusted: .* not to be trusted \(") as other:
        await brokers_at(other_ca)
    with pytest.raises(BrokerAway, match="wants a certificate"):
        await brokers_at(no_certificate)
    with pytest.raises(BrokerAway, match="over PLAINTEXT"):
        await brokers_at(Connection(cluster.bootstrap))
    with pytest.raises(BrokerUntrusted, match="localhost"):
        await brokers_at(other_name)
    assert await brokers_at(allowed) == 3
    assert (refused.value.code, other.value.code) == ("broker.refused", "broker.untrusted")
    assert "not-the-pa55word" not in f"{refused.value} {refused.value.remedy} {wrong!r}"


async def test_who_follows_a_topic_stops_without_waiting_for_its_fetch(cluster):
    """A broker looks at the end of a TLS connection when it has answered what it was asked there: after 5 s."""
    follower = Follower(cluster.connection("operator"), topics.INTEGRATION_CONFIG, lambda *_: None)
    await follower.start()
    await asyncio.sleep(0.5)  # until a fetch waits
    async with asyncio.timeout(2.5):
        await follower.stop()


async def test_a_service_with_a_wrong_password_waits_and_says_so(cluster, tmp_path):
    services = Services(cluster, tmp_path)
    (tmp_path / "wrong").write_text("not-the-pa55word")
    environment = services.environment("breaker") | {"TENTERHOOK_KAFKA__PASSWORD_FILE": str(tmp_path / "wrong")}
    environment["TENTERHOOK_BREAKER__PORT"] = "0"
    with (tmp_path / "said").open("wb") as output:
        command = (sys.executable, "-m", "services.cli", "breaker")
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=output, stderr=output)
    try:
        await eventually(lambda: "broker.refused" in (tmp_path / "said").read_text(), 30)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    text = (tmp_path / "said").read_text()
    assert "Correct TENTERHOOK_KAFKA__USER" in text
    assert "not-the-pa55word" not in text
