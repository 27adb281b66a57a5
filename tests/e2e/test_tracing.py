"""A trace through a whole stack: `tenterhook up`, a collector, and a receiver that fails once."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition

from services.runtime.spans import DECLARED
from streams import codec, topics
from streams.connection import Connection
from streams.reading import started
from streams.records import Result
from streams.takeover import read_back
from tests.collecting import Collected, Collector, collecting
from tests.e2e.test_up import up
from tests.endpoints import answer, endpoint
from tests.waiting import eventually

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
OTHER = "a3ce929d0e0e47364bf92f3577b34da6"
HELD = "b34da6a3ce929d0e0e47364bf92f3577"
#: In payload, header, URL and the receiver's answer: nothing that a collector may see.
SECRETS = ("somebody@private.example", "hunter2-hunter2", "path-secret-7", "the receiver's own words")


def told(trace: str, flags: str = "01") -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{SPAN}-{flags}", "tracestate": "vendor=1"}


def only(found: list[Collected]) -> Collected:
    [one] = found
    return one


def named(collector: Collector, trace: str, *names: str) -> list[Collected]:
    return [each for each in collector.spans if each.trace_id == trace and each.name in names]


async def test_one_trace_from_the_request_to_every_attempt(tmp_path: Path):  # noqa: PLR0915  # one stack for all
    async with collecting() as collector, endpoint() as receiver:
        environment = {"TENTERHOOK_TRACING__ENDPOINT": collector.url, "TENTERHOOK_TRACING__SAMPLED_SHARE": "0"}
        async with up(tmp_path, "--broker", "embedded", **environment) as running:
            ready = await running.ready()
            receiver.behave(answer(status=500, body=SECRETS[3].encode()), answer())
            app = f"/v1/apps/{ready['app']}"
            async with (
                httpx.AsyncClient(
                    base_url=ready["admin"], headers={"Authorization": f"Bearer {ready['token']}"}
                ) as api,
                httpx.AsyncClient(base_url=ready["ingest"]) as ingest,
            ):
                settings = {
                    "name": "CRM",
                    "url": f"{receiver.url}/crm/{{secret.path}}",
                    "events": ["call_ended"],
                    "headers": {"Authorization": "Bearer {secret.token}"},
                    "secrets": {"token": SECRETS[1], "path": SECRETS[2]},
                    "retry": {"maxAttempts": 2, "delaysMs": [1_000]},
                    "sendTraceparent": True,
                }
                created = await api.post(f"{app}/integrations", json=settings)
                assert created.status_code == 201, created.text
                integration = created.json()["id"]

                server = {"Authorization": f"Bearer {ready['secretKey']}"}
                page = {"X-Tenterhook-Key": ready["publicKey"], "Origin": "http://localhost:3000"}

                async def post(event: str, headers: dict[str, str]) -> None:
                    body = {"type": "call_ended", "id": event, "payload": {"who": SECRETS[0]}}
                    posted = await ingest.post(f"{app}/events", json=body, headers=headers)
                    assert posted.status_code == 202, posted.text

                await post("traced", server | told(TRACE))
                received = await receiver.wait_for(2, 40)
                # It decides for itself, and a page for nothing; what nobody decides about, the share does: 0 here.
                await post("unsampled", server | told(OTHER, "00"))
                await post("page", page | told(OTHER))
                await post("untold", server)
                await receiver.wait_for(5, 20)

                [listed] = [
                    each for each in (await _listed(api, f"{app}/deliveries", 4)) if each["eventId"] == "traced"
                ]
                again = await api.post(f"{app}/deliveries/{listed['id']}/retry")
                assert again.status_code in (200, 201, 202), again.text
                received = await receiver.wait_for(6, 20)
                # Held while it is paused, read from the log again; and once more, by a replay.
                one = f"{app}/integrations/{integration}"
                assert (await api.post(f"{one}/pause")).status_code == 200
                began = datetime.now(UTC)
                await post("held", server | told(HELD))
                await asyncio.sleep(1.5)
                activated = await api.post(f"{one}/activate", json={"held": "drain"})
                assert activated.status_code == 200, activated.text
                await receiver.wait_for(7, 30)
                span = {"from": began.isoformat(), "until": datetime.now(UTC).isoformat(), "eventIds": ["held"]}
                replayed = await api.post(f"{one}/replay", json=span)
                assert replayed.status_code == 202, replayed.text
                received = await receiver.wait_for(8, 40)
                await eventually(lambda: len(named(collector, HELD, "POST")) == 2, 20)
            results = await _results(ready["broker"])
            assert await running.stop() == 0, running.said

    root, of_held = (
        only([each for each in collector.spans if each.parent_id == SPAN and each.trace_id == trace])
        for trace in (TRACE, HELD)
    )
    append = only(collector.children(root))
    fan_out = only(collector.children(append))
    first = only(collector.children(fan_out))
    put_back = only(collector.children(first))
    second, third = collector.children(put_back)

    held = only(collector.children(of_held))
    held_fan_out, replayed_attempt = collector.children(held)
    held_attempt = only(collector.children(held_fan_out))

    assert Counter(each.trace_id for each in collector.spans) == {TRACE: 7, HELD: 5}
    assert [each.attributes["tenterhook.cause"] for each in (held_attempt, replayed_attempt)] == ["live", "replay"]
    assert held_attempt.started_ns - held_fan_out.ended_ns > 1e9, "the wait is the gap"
    assert {each.state for each in collector.spans} == {"vendor=1"}
    assert [
        (each.service, each.kind, each.name) for each in (root, append, fan_out, first, put_back, second, third)
    ] == [
        ("tenterhook-ingest", "SERVER", "POST /v1/apps/{app}/events"),
        ("tenterhook-ingest", "PRODUCER", "send events"),
        ("tenterhook-dispatcher", "CONSUMER", "process events"),
        ("tenterhook-dispatcher", "CLIENT", "POST"),
        ("tenterhook-dispatcher", "CONSUMER", "process retry.1s"),
        ("tenterhook-dispatcher", "CLIENT", "POST"),
        ("tenterhook-dispatcher", "CLIENT", "POST"),
    ]
    assert [each.is_failed for each in (root, append, fan_out, first, put_back, second, third)] == [
        False, False, False, True, False, False, False
    ]  # fmt: skip

    # The wait is the gap before the put-back, by the shortest of the line's jitter.
    assert put_back.started_ns - first.ended_ns > 0.7e9
    assert first.attributes["error.type"] == "status_500"
    assert [each.attributes["http.response.status_code"] for each in (root, first, second)] == [202, 500, 200]
    assert [each.attributes["tenterhook.attempt"] for each in (first, second, third)] == [1, 2, 3]
    assert [each.attributes["tenterhook.cause"] for each in (first, second, third)] == ["live", "live", "retry"]
    assert [each.attributes.get("tenterhook.outcome") for each in (first, second, third)] == [None, *["delivered"] * 2]
    assert (first.attributes["server.address"], first.attributes["server.port"]) == ("127.0.0.1", receiver.port)
    assert first.attributes["tenterhook.connect_us"] > 0
    assert fan_out.attributes["tenterhook.integrations"] == 1
    assert {each.attributes.get("tenterhook.integration") for each in (first, put_back, second)} == {integration}
    allowed = {name for span in DECLARED for name in span.attributes}
    assert set().union(*(each.attributes for each in collector.spans)) <= allowed

    # A receiver hears of the attempt that the request is; of one that is not sampled what its sender said.
    heard = [(json.loads(each.body)["id"], each.header("traceparent"), each.header("tracestate")) for each in received]
    assert heard == [
        ("traced", first.traceparent, None),
        ("traced", second.traceparent, None),
        ("unsampled", told(OTHER, "00")["traceparent"], None),
        ("page", None, None),
        ("untold", None, None),
        ("traced", third.traceparent, None),
        ("held", held_attempt.traceparent, None),
        ("held", replayed_attempt.traceparent, None),
    ]
    # So do those who follow the results.
    assert results == {
        ("traced", 1): first.traceparent,
        ("traced", 2): second.traceparent,
        ("traced", 3): third.traceparent,
        ("unsampled", 1): told(OTHER, "00")["traceparent"],
        ("page", 1): None,
        ("untold", 1): None,
        ("held", 1): [held_attempt.traceparent, replayed_attempt.traceparent],
    }
    exported = b"".join(collector.bodies)
    assert received[0].header("Authorization") == f"Bearer {SECRETS[1]}"
    assert [each for each in (*SECRETS, ready["secretKey"], ready["token"]) if each.encode() in exported] == []


async def _results(broker: str) -> dict[tuple[str, int], object]:
    """What the header of each attempt's record on `delivery-results` names; several where a number stands twice."""
    log = Connection(broker, "tenterhook.")
    count = topics.partition_count(topics.RESULTS, topics.Partitions())
    partitions = [TopicPartition(log.topic(topics.RESULTS), number) for number in range(count)]
    async with started(AIOKafkaConsumer(**log.client_options)) as consumer:
        ends = await consumer.end_offsets(partitions)
    found: dict[tuple[str, int], list[str | None]] = {}

    def see(record: Any) -> None:
        result = codec.decode(record.value)
        if isinstance(result, Result) and result.attempt:
            header = dict(record.headers).get("traceparent")
            found.setdefault((result.event_id, result.attempt), []).append(header and header.decode())

    await read_back(log, {each: (0, end) for each, end in ends.items()}, see)
    return {which: each[0] if len(each) == 1 else each for which, each in found.items()}


async def _listed(api: httpx.AsyncClient, path: str, count: int) -> list[dict]:
    """The deliveries, once so many have ended."""
    async with asyncio.timeout(30):
        while True:
            items = (await api.get(path)).json()["items"]
            if sum(each["outcome"] is not None for each in items) >= count:
                return items
            await asyncio.sleep(0.2)
