"""
`delivery-results` of a running `up`, read by clients that are not ours: the program of docs/topics.md, with Confluent's
client and Avro deserializer, and kcat. `up` uses a schema registry; one result is of a time when it did not.
"""

import asyncio
import io
import json
import os
import re
import shutil
import struct
import sys
from pathlib import Path

import fastavro
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from services.cli.brokers.choose import kafka_lacks
from streams import codec
from streams.codec import FIRST_COMMITTED_ID, full_name
from streams.topics import FILLER_HEADER, TOPICS
from tests.breaking import make_result
from tests.brokers import lacking
from tests.e2e.test_up import up
from tests.endpoints import answer, endpoint
from tests.registries import listening_registry

PAGE = (Path(__file__).parents[2] / "docs" / "topics.md").read_text(encoding="utf-8")
PROGRAM = re.search(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[1]
RESULTS = "tenterhook.delivery-results"
BEFORE = make_result(7, integration="int_before", attempt=3, outcome="exhausted")

pytestmark = pytest.mark.kafka
needs_kcat = pytest.mark.skipif(not shutil.which("kcat"), reason="needs kcat: make languages")


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """What `up` has said, with two results of its own and one from before on the log, and all records of all topics."""
    if (missing := kafka_lacks()) is not None:
        lacking(missing)
    folder = tmp_path_factory.mktemp("up")
    with listening_registry() as registry:
        loop = asyncio.new_event_loop()
        running = up(folder, "--broker", "kafka", TENTERHOOK_SCHEMA_REGISTRY_URL=registry.url)
        try:
            ready = loop.run_until_complete(_started(running))
            yield ready, registry, loop.run_until_complete(_everything(ready))
        finally:
            loop.run_until_complete(running.__aexit__(None, None, None))
            loop.close()


async def _started(running):
    found = await running.__aenter__()
    ready = await found.ready()
    bearer = {"Authorization": f"Bearer {ready['secretKey']}"}
    async with endpoint(answer(404), answer(200)) as there, httpx.AsyncClient() as http:
        await found.run(
            *("integrations", "create", "--name", "CRM", "--url", there.url, "--events", "call_ended", "--signing")
        )
        for number in range(2):
            posted = await http.post(
                f"{ready['ingest']}/v1/apps/{ready['app']}/events",
                json={"type": "call_ended", "id": f"call_{number}"},
                headers=bearer,
            )
            assert posted.status_code == 202, posted.text
        await there.wait_for(2, 30)
    producer = AIOKafkaProducer(bootstrap_servers=ready["broker"])
    await producer.start()
    # As `tenterhook mend` fills an offset; the result behind it is printed.
    filler = producer.create_batch()
    filler.append(key=None, value=None, timestamp=None, headers=[(FILLER_HEADER, b"")])
    filler.close()
    await (await producer.send_batch(filler, RESULTS, partition=0))
    await producer.send_and_wait(RESULTS, codec.encode(BEFORE), key=b"int_before", partition=0)
    await producer.stop()
    return ready


async def _everything(ready):
    """Every record, by its topic's name, once both results are there."""
    found = {topic.name: {} for topic in TOPICS}
    consumer = AIOKafkaConsumer(
        *(f"tenterhook.{name}" for name in found), bootstrap_servers=ready["broker"], auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            while len([each for each in found["delivery-results"].values() if each.key and each.value]) < 3:
                for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                    name = partition.topic.removeprefix("tenterhook.")
                    found[name] |= {(partition.partition, each.offset): each for each in records}
    finally:
        await consumer.stop()
    return {name: list(records.values()) for name, records in found.items()}


def id_of(value: bytes) -> int:
    return struct.unpack_from(">I", value, 1)[0]


def test_every_record_is_what_its_topic_is_described_with_and_has_an_id_of_the_registry(installation):
    _, registry, records = installation
    wrong = [
        (topic.name, names, headers)
        for topic in TOPICS
        for record in records[topic.name]
        if record.value is not None and record.key != b"int_before"
        for names in [full_name(registry.schemas[id_of(record.value)])]
        for headers in [{name for name, _ in record.headers}]
        if names not in {full_name(codec.schema_text(name)) for name in topic.values}
        or not headers <= {name for name, _ in topic.headers}
    ]

    assert wrong == []
    assert [name for name in ("events", "fan-out", "deliveries", "app-config", "audit") if not records[name]] == []


async def test_the_page_s_program_prints_every_result(installation, tmp_path):
    ready, _, _ = installation
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM),
        cwd=tmp_path,
        env=os.environ | {"BROKER": ready["broker"], "SCHEMAS": ready["admin"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(40):
            lines = sorted([(await process.stdout.readline()).decode().split() for _ in range(3)])
    finally:
        process.kill()
        _, err = await process.communicate()

    assert sorted(line[1:] for line in lines) == [
        ["1", "status_200", "delivered"],
        ["1", "status_404", "rejected"],
        ["3", "status_503", "exhausted"],
    ], err.decode()
    assert BEFORE.delivery_id in [line[0] for line in lines]


async def test_the_admin_service_answers_for_the_ids_of_both(installation):
    ready, registry, records = installation
    ids = {id_of(record.value) for record in records["delivery-results"] if record.value}
    async with httpx.AsyncClient(base_url=ready["admin"]) as http:
        texts = {number: (await http.get(f"/schemas/ids/{number}")).json()["schema"] for number in ids}
        refused = [(await http.get(f"/schemas/ids/{each}")).json()["code"] for each in ("99999", "99999999999", "x")]

    assert min(ids) < FIRST_COMMITTED_ID <= max(ids)
    assert {json.loads(text)["name"] for text in texts.values()} >= {"Result", "Marker"}
    assert all(
        json.loads(registry.schemas[number]) == json.loads(texts[number]) for number in ids & {*registry.schemas}
    )
    assert refused == ["schema_unknown"] * 3


@needs_kcat
async def test_kcat_prints_them_as_the_page_says_and_their_bytes_are_the_records(installation):
    ready, registry, records = installation
    command = re.search(r"^kcat (.*)$", PAGE, re.MULTILINE)[1].replace("127.0.0.1:9092", ready["broker"])
    printed = await printed_by("kcat", *(each.strip("'") for each in re.findall(r"'[^']*'|\S+", command)))
    # Its own framing: the value's length in four bytes, -1 where there is none, then the value.
    framed = await printed_by(
        "kcat", "-C", "-b", ready["broker"], "-t", RESULTS, "-o", "beginning", "-eq", "-f", "%R%s"
    )
    values = []
    while framed:
        (length,) = struct.unpack_from(">i", framed)
        end = 4 + max(length, 0)
        values.append(framed[4:end])
        framed = framed[end:]
    results = [value for value in values if value and full_name(text_of(value, registry)) == "tenterhook.Result"]
    read = [
        fastavro.schemaless_reader(io.BytesIO(value[5:]), json.loads(text_of(value, registry)), None)
        for value in results
    ]

    assert sorted(values) == sorted(record.value or b"" for record in records["delivery-results"])
    assert sorted(each["outcome"] for each in read) == ["delivered", "exhausted", "rejected"]
    assert "int_before" in printed.decode()
    assert len(printed.decode().splitlines()) == len(values)


def text_of(value: bytes, registry) -> str:
    return registry.schemas.get(id_of(value)) or codec.text_of(id_of(value))


async def printed_by(*command) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return out


def test_the_registry_was_asked_by_every_process_and_told_by_the_first(installation):
    _, registry, _ = installation
    registered = [path for _, path in registry.asked if path.endswith("/versions")]

    assert len(registry.schemas) == len(codec.released())
    # As many ask at once, two may tell it the same; that changes nothing.
    assert len(registered) <= 5 * len(codec.released())
    assert len(registry.asked) >= 5 * len(codec.released())
