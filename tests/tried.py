"""Deliveries as if they had been tried: written straight onto the log, with what a dispatcher tells of them."""

import asyncio
from hashlib import sha256
from typing import Any

import httpx
import msgspec
from aiokafka import AIOKafkaProducer

from services.admin.app import Admin
from services.dispatcher.plan import Planned, plan
from services.vault.opened import OpenedSecrets
from streams import codec
from streams.connection import Connection
from streams.producer import open_producer
from streams.records import Delivery, IntegrationConfig, IntegrationState, Result
from streams.topics import DELIVERIES, INTEGRATION_STATE, RESULTS, Topic
from tests.breaking import make_result
from tests.records import make_delivery

HOUR_MS = 3_600_000

#: Milliseconds of look-up, connect, TLS and read.
NEW, REUSED, UNREACHED = (12.4, 21.7, 38.2, 0.4), (None, None, None, 0.3), (11.8, None, None, None)

#: Of each attempt: status, outcome, the parts of its time, the milliseconds waited, the answer's body.
Attempts = list[tuple[int | None, str | None, tuple[float | None, ...], int, bytes]]
DELIVERED: Attempts = [(200, "delivered", REUSED, 44, b'{"ok":true}')]
REJECTED: Attempts = [(422, "rejected", REUSED, 61, b'{"error":"unknown field: agent"}')]
EXHAUSTED: Attempts = [
    (503, None, NEW, 180, b"upstream is busy"),
    (None, None, UNREACHED, 4_988, b""),
    (503, "exhausted", NEW, 420, b"upstream is busy"),
]


class Tried:
    """Writes them, for one integration."""

    def __init__(
        self, connection: Connection, producer: "AIOKafkaProducer[Any, Any]", config: IntegrationConfig
    ) -> None:
        self._connection = connection
        self._producer = producer
        self._config = config

    async def put(self, number: int, began_ms: int, attempts: Attempts) -> str:
        """One delivery; its id."""
        config = self._config
        digits = sha256(f"{config.id} {number}".encode()).hexdigest()[:32]
        delivery = make_delivery(
            delivery_id=f"dlv_{digits}",
            integration=config.id,
            app=config.app,
            event_id=f"evt_{digits}",
            payload=b'{"callId":"call_%d","seconds":%d,"agent":"Ana"}' % (number, 40 + number % 300),
            accepted_at_ms=began_ms - 5,
        )
        sent = await self._send(DELIVERIES, delivery)
        place = {"source_partition": sent.partition, "source_offset": sent.offset}
        at_ms = began_ms
        for at, attempt in enumerate(attempts, 1):
            told = self._told(delivery, at, at_ms, attempt) | place
            if at < len(attempts):
                told |= {"next_attempt": at + 1, "next_due_at_ms": at_ms + 5_000 * 4 ** (at - 1)}
            await self._send(RESULTS, make_result(**told))
            at_ms += 5_000 * 4 ** (at - 1)
        return delivery.delivery_id

    def _told(self, delivery: Delivery, number: int, at_ms: int, attempt: Any) -> dict[str, Any]:
        status, outcome, parts, wait_ms, body = attempt
        dns, connect, tls, read = [None if each is None else int(each * 1_000) for each in parts]
        took = sum(each or 0 for each in (dns, connect, tls, read)) // 1_000 + wait_ms
        planned = plan(delivery, self._config, OpenedSecrets({}, {}, []), at_ms, "X-ApifyCloud", "0.1.0")
        assert isinstance(planned, Planned)
        return {
            "delivery_id": delivery.delivery_id,
            "integration": delivery.integration,
            "event_id": delivery.event_id,
            "type": delivery.type,
            "cause": delivery.cause,
            "attempt": number,
            "outcome": outcome,
            "status": status,
            "reason": f"status_{status}" if status else "timeout",
            "detail": None if status else "no answer within the timeout: it ran out while connecting",
            "config_version": self._config.version,
            "url": planned.url,
            "request_headers": dict(planned.headers) | {"Authorization": "Bearer ***"},
            "response_headers": {"Content-Type": "application/json", "Server": "nginx"} if status else {},
            "response_body": body,
            "started_at_ms": at_ms,
            "finished_at_ms": at_ms + took,
            "accepted_at_ms": delivery.accepted_at_ms,
            "dns_us": dns,
            "connect_us": connect,
            "tls_us": tls,
            "wait_us": wait_ms * 1_000 if status else None,
            "read_us": read,
        }

    async def _send(self, topic: Topic, record: Delivery | Result) -> Any:
        return await self._producer.send_and_wait(
            self._connection.topic(topic), codec.encode(record), key=self._config.id.encode()
        )


async def put_tried(
    connection: Connection, config: IntegrationConfig, kinds: list[Attempts], now_ms: int, *, start: int = 0
) -> list[str]:
    """
    Deliveries of the last day, the last of *kinds* the newest; their ids.

    Args:
        start: number of the first: others have other ids.
        config: as it stands, but with *** in place of secrets in its URL, and without headers.
    """
    producer = await open_producer(connection, client_id="tried")
    try:
        tried = Tried(connection, producer, config)
        step_ms = 24 * HOUR_MS // (len(kinds) + 1)
        return [
            await tried.put(start + at, now_ms - (len(kinds) - at) * step_ms, kind) for at, kind in enumerate(kinds)
        ]
    finally:
        await producer.stop()


async def put_states(connection: Connection, *states: IntegrationState) -> None:
    """What the breaker says."""
    producer = await open_producer(connection, client_id="tried")
    try:
        for each in states:
            await producer.send_and_wait(
                connection.topic(INTEGRATION_STATE), codec.encode(each), key=each.integration.encode()
            )
    finally:
        await producer.stop()


def sent_of(admin: Admin, integration: str) -> IntegrationConfig:
    """Its settings, as far as its requests show them."""
    config = admin.config.integrations.get(integration)
    assert config is not None
    return msgspec.structs.replace(config, url=config.url.replace("{secret.path}", "***"), headers={}, signing=False)


async def until_known(api: httpx.AsyncClient, deliveries: list[str]) -> None:
    """Returns when the history has them."""
    for each in deliveries:
        while (await api.get(f"/v1/apps/demo/deliveries/{each}")).status_code != 200:  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.1)


def state(integration: str, now_ms: int, **changes: Any) -> IntegrationState:
    """What the breaker says of one that is well, but for the changes."""
    fields: dict[str, Any] = {
        "integration": integration,
        "app": "demo",
        "state": "active",
        "epoch": 1,
        "consecutive_failures": 0,
        "delivered": 1,
        "ended": 1,
        "last_delivery_id": "dlv_1",
        "last_outcome": "delivered",
        "last_event_type": "call_ended",
        "last_status": 200,
        "last_attempt": 1,
        "last_at_ms": now_ms - 4_000,
        "applied_offset": 1,
    }
    return IntegrationState(**fields | changes)
