"""The dispatcher on Apache Kafka and real HTTP: what becomes of an event, and of what is not as it should be."""

import asyncio
import base64
import hashlib
import hmac
from collections import Counter

import pytest
from standardwebhooks.webhooks import Webhook

from services.cli.brokers.ports import free_ports
from services.vault.seal import Context
from streams import codec, topics
from streams.connection import Connection
from streams.records import FanOutReceipt, Result, Secret
from tests.apps import make_app
from tests.dispatching import KEYRING, dispatching, sealed_header, sealed_signing
from tests.endpoints import answer, echo_headers, hang, redirect, reset
from tests.logs import log_of, make_event
from tests.receiving import held_until, receiver
from tests.records import make_delivery, make_integration
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

SIGNING_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


async def test_an_event_becomes_a_receipt_deliveries_to_who_selected_it_and_a_result_of_each(
    kafka_connection: Connection,
):
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.app(make_app("other"))
        await log.app(make_app("lonely"))
        for config in (
            to.integration("int_chosen"),
            to.integration("int_all", events=["*"]),
            to.integration("int_none", events=[]),
            to.integration("int_else", events=["call_started", "call_ended.later"]),
            to.integration("int_foreign", app="other", events=["*"]),
        ):
            config_offset = await log.integration(config)
        ended, started = make_event(1), make_event(2, type="nobody_chose_this")
        lonely = make_event(3, app="lonely")
        async with dispatching(kafka_connection):
            at = await log.events(ended, started, lonely)
            await log.results_come(3)
            await eventually(lambda: len(log.receipts) == 3)

        receipts = {receipt.record_id: receipt for receipt in log.receipts}
        assert {
            ended.record_id: ["int_all", "int_chosen"],
            started.record_id: ["int_all"],
            lonely.record_id: [],
        } == {record_id: receipt.integrations for record_id, receipt in receipts.items()}
        for event, place in zip((ended, started, lonely), at, strict=True):
            receipt = receipts[event.record_id]
            assert (place.partition, place.offset) == (receipt.source_partition, receipt.source_offset)
            assert (event.app, event.event_id, event.type) == (receipt.app, receipt.event_id, receipt.type)
            assert receipt.config_offset == config_offset + 1

        assert Counter({"int_all": 2, "int_chosen": 1}) == Counter(each.integration for each in log.deliveries)
        assert to.numbers("int_chosen") == [1]
        assert to.numbers("int_all") == [1, 2]
        assert {"int_chosen", "int_all"} == set(to.arrivals)

        places = {
            (seen.raw.partition, seen.raw.offset): seen
            for seen in log.seen[topics.DELIVERIES]
            if seen.record is not None
        }
        announced_ms = {
            seen.record.record_id: seen.raw.timestamp
            for seen in log.seen[topics.FAN_OUT]
            if isinstance(seen.record, FanOutReceipt)
        }
        assert {each.delivery_id for each in log.deliveries} == {each.delivery_id for each in log.results}
        for seen in log.seen[topics.RESULTS]:
            result = seen.record
            if not isinstance(result, Result):
                continue
            delivery = places[result.source_partition, result.source_offset].record
            assert (delivery.delivery_id, delivery.record_id) == (result.delivery_id, result.record_id)
            assert seen.raw.partition == result.source_partition
            assert seen.raw.key == result.integration.encode()
            assert (result.outcome, result.attempt, result.reason) == ("delivered", 1, "status_200")
            receipt = receipts[result.record_id]
            assert (receipt.source_partition, receipt.source_offset) == (
                delivery.source_partition,
                delivery.source_offset,
            )
            assert announced_ms[result.record_id] <= places[result.source_partition, result.source_offset].raw.timestamp


async def test_what_is_sent_carries_both_signatures_and_what_is_kept_carries_no_secret(kafka_connection: Connection):
    """The receiver answers with the whole request, which is the worst that it can do with our secrets."""
    token, path = "tok-5f0c9a7e31", "p4th-77aa01bc"
    async with log_of(kafka_connection) as log, receiver() as to:
        config = to.integration(
            "int_1",
            profile="booking",
            events=["scheduled.created"],
            url=f"{to.endpoint.url}/{{secret.path}}/int_1",
            headers={
                "Authorization": sealed_header("demo", "int_1", "Authorization", "Bearer {secret.token}"),
                "X-Literal": sealed_header("demo", "int_1", "X-Literal", "literal-9081726354"),
            },
            secrets={
                name: Secret(
                    version=2,
                    sealed=KEYRING.seal(value.encode(), Context.of_secret("demo", "int_1", name, 2)),
                    created_at_ms=0,
                )
                for name, value in {"token": token, "path": path}.items()
            },
            signing=True,
            signing_secrets=[sealed_signing("demo", "int_1", SIGNING_SECRET)],
        )
        to.behaviours["int_1"] = echo_headers()
        await log.integration(config)
        payload = b'{ "scheduled_call" : {"id":"b_1",  "note":"\xc3\xa9"} }'
        event = make_event(type="scheduled.created", payload=payload)
        async with dispatching(kafka_connection):
            await log.events(event)
            await log.results_come(1)

        [arrival] = to.arrivals["int_1"]
        sent = arrival.request
        assert sent.method == "POST"
        assert f"/hook/{path}/int_1" == sent.target
        assert f"Bearer {token}" == sent.header("Authorization")
        assert sent.body.endswith(b'"payload":' + payload + b"}")
        assert sent.header("X-ApifyCloud-Delivery") == "int_1:1"
        assert sent.header("X-ApifyCloud-Event") == "scheduled.created"
        digest = hmac.new(SIGNING_SECRET.encode(), sent.body, hashlib.sha256).hexdigest()
        assert f"sha256={digest}" == sent.header("X-ApifyCloud-Signature")
        assert event.event_id == sent.header("webhook-id")
        Webhook(SIGNING_SECRET).verify(sent.body, {name.lower(): value for name, value in sent.headers})

        result = log.result_of("int_1")
        assert (result.outcome, result.status) == ("delivered", 200)
        assert to.endpoint.url + "/***/int_1" == result.url
        assert "***" in result.request_headers["Authorization"]
        assert result.request_headers["X-Literal"] == "***"
        assert "***" in result.response_headers["Echo-Authorization"]
        assert b"X-ApifyCloud-Delivery: int_1:1" in result.response_body
        [kept] = [seen.raw.value for seen in log.seen[topics.RESULTS] if seen.record == result]
        for secret in (token, path, "literal-9081726354", SIGNING_SECRET):
            assert secret.encode() not in kept
        assert result.wait_us > 0
        assert result.connect_us > 0
        assert result.read_us >= 0
        assert result.started_at_ms <= result.finished_at_ms


@pytest.mark.alone
async def test_every_way_to_fail_is_recorded_with_its_reason_and_outcome(kafka_connection: Connection):
    async with log_of(kafka_connection) as log, receiver() as to:
        [nobody] = free_ports(1)
        elsewhere = f"{to.endpoint.url}/int_elsewhere"
        # Name: (what it does, its configuration) and (outcome, reason, status, number of attempts).
        table = {
            "int_204": (answer(204, b""), {}, ("delivered", "status_204", 204, 1)),
            "int_302": (redirect(elsewhere), {}, ("rejected", "redirect_302", 302, 1)),
            "int_404": (answer(404), {}, ("rejected", "status_404", 404, 1)),
            "int_429": (answer(429), {}, ("rejected", "status_429", 429, 1)),
            "int_429_retried": (answer(429), {"retry_on_429": True}, ("exhausted", "status_429", 429, 1)),
            "int_500": (answer(500), {}, ("exhausted", "status_500", 500, 1)),
            "int_404_retried": (answer(404), {"retry_policy": "any_failure"}, ("exhausted", "status_404", 404, 1)),
            "int_hang": (hang(), {"timeout_ms": 1_500}, ("exhausted", "timeout", None, 1)),
            "int_half": (
                hang(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"),
                {"timeout_ms": 1_500},
                ("exhausted", "timeout", 200, 1),
            ),
            "int_reset": (reset(), {}, ("exhausted", "reset", None, 1)),
            "int_refused": (None, {"url": f"http://127.0.0.1:{nobody}/"}, ("exhausted", "connect_refused", None, 1)),
            "int_scheme": (None, {"url": "ftp://127.0.0.1/"}, ("blocked", None, None, 0)),
            "int_template": (
                None,
                {"url": to.endpoint.url + "/{secret.missing}/int_template"},
                ("blocked", "secret_unknown", None, 0),
            ),
            "int_unsigned": (None, {"signing": True}, ("blocked", "signing_secret_missing", None, 0)),
        }
        for name, (behaviour, changes, _) in table.items():
            if behaviour is not None:
                to.behaviours[name] = behaviour
            await log.integration(to.integration(name, max_attempts=1, **changes))
        foreign = sealed_header("demo", "int_another", "Authorization", "Bearer abc-def-ghi")
        await log.integration(to.integration("int_unsealable", headers={"Authorization": foreign}))
        async with dispatching(kafka_connection):
            await log.events(make_event())
            await log.results_come(len(table))
            [aside] = await log.quarantined_come(1)
            await eventually(log.all_is_committed)

        for name, (behaviour, _, (outcome, reason, status, attempt)) in table.items():
            result = log.result_of(name)
            assert (outcome, status, attempt) == (result.outcome, result.status, result.attempt), name
            assert reason in (None, result.reason), name
            assert result.detail, name
            assert len(to.arrivals[name]) == (1 if behaviour is not None else 0), name
        assert to.arrivals["int_elsewhere"] == []
        assert log.result_of("int_half").response_body == b"half"
        assert log.result_of("int_half").response_truncated
        assert log.result_of("int_hang").finished_at_ms - log.result_of("int_hang").started_at_ms >= 1_500
        assert log.result_of("int_refused").wait_us is None

        # Secrets that do not open are our fault, and no failure of the integration.
        assert (aside.agent, aside.code) == ("lanes", "attempt.raised")
        assert codec.decode(aside.value).integration == "int_unsealable"
        assert not {"int_unsealable"} & ({each.integration for each in log.results} | set(to.arrivals))


async def test_an_address_that_may_not_be_reached_is_blocked_and_never_dialled(kafka_connection: Connection):
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.app(make_app("secure", allow_http=False))
        await log.integration(to.integration("int_loopback"))
        await log.integration(to.integration("int_plain", app="secure"))
        async with dispatching(kafka_connection, allow_private_addresses=False):
            await log.events(make_event(), make_event(app="secure"))
            await log.results_come(2)

        assert _ended(log.result_of("int_loopback")) == ("blocked", "address_refused")
        assert _ended(log.result_of("int_plain")) == ("blocked", "url_refused")
        assert to.endpoint.connections == 0


def _ended(result: Result) -> tuple[str | None, str]:
    return result.outcome, result.reason


async def test_deliveries_that_wait_when_their_integration_is_deleted_are_discarded(kafka_connection: Connection):
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.integration(to.integration("int_gone"))
        await log.integration(to.integration("int_stays"))
        go_on = asyncio.Event()
        to.policies["int_gone"] = held_until(go_on)
        async with dispatching(kafka_connection):
            await log.events(*(make_event(number) for number in range(50)))
            await to.wait_for("int_gone", 1)
            await to.wait_for("int_stays", 50)
            await log.delete("int_gone")
            # Events from now on do not meet it; so when this one is fanned out the dispatcher knows.
            await log.events(make_event(50))
            await to.wait_for("int_stays", 51)
            go_on.set()
            await log.results_come(50 + 51)
            await eventually(log.all_is_committed)

        gone = [_ended(each) for each in log.results if each.integration == "int_gone"]
        assert sorted(gone) == [("delivered", "status_200")] + 49 * [("discarded", "integration_deleted")]
        assert to.numbers("int_gone") == [0]
        assert list(range(51)) == to.numbers("int_stays")


async def test_an_event_meets_the_change_that_was_made_right_before_it(kafka_connection: Connection):
    """Fifty integrations are created, each followed at once by an event for it; then deleted, in the same way."""
    rounds = 50
    created, deleted = range(rounds), range(rounds, 2 * rounds)
    async with log_of(kafka_connection) as log, receiver() as to, dispatching(kafka_connection):
        await log.integration(to.integration("int_stays", events=["*"]))
        for number in created:
            await log.integration(to.integration(f"int_{number}", events=[f"type_{number}"]))
            await log.events(make_event(number, type=f"type_{number}"))
        await eventually(lambda: to.count == 2 * rounds, 60)
        for number in deleted:
            await log.delete(f"int_{number - rounds}")
            await log.events(make_event(number, type=f"type_{number - rounds}"))
        await to.wait_for("int_stays", 2 * rounds, 60)

    assert [[number] for number in created] == [to.numbers(f"int_{number}") for number in created]
    assert [*created, *deleted] == to.numbers("int_stays")
    selected = [receipt.integrations for receipt in sorted(log.receipts, key=lambda each: each.source_offset)]
    assert [sorted([f"int_{number}", "int_stays"]) for number in created] == selected[:rounds]
    assert rounds * [["int_stays"]] == selected[rounds:]


async def test_what_cannot_be_read_is_put_aside_as_it_was_and_everything_else_goes_on(kafka_connection: Connection):
    truncated = codec.encode(make_event())[:-3]
    result = codec.encode(_some_result())
    unknown = b"\x00" + (2**30 + 999).to_bytes(4, "big") + b"from a newer release"
    bad_events = [b"no avro at all", b"", None, truncated, unknown, codec.encode(make_delivery())]
    bad_deliveries = [b"\xff\xfe", b"", None, codec.encode(make_delivery())[:20], unknown, result]
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.raw(topics.INTEGRATION_CONFIG, b"no avro either", b"int_1")
        await log.raw(topics.INTEGRATION_CONFIG, codec.encode(make_integration("int_other")), b"int_1")
        await log.raw(topics.INTEGRATION_CONFIG, codec.encode(make_integration("int_1")), b"\xff\xfe")
        await log.integration(to.integration("int_1"))
        await log.raw(topics.INTEGRATION_CONFIG, b"", b"int_1")  # leaves what was there before it
        await log.raw(topics.APP_CONFIG, b"nor here", b"demo")
        async with dispatching(kafka_connection) as probe:
            numbers = iter(range(100))
            for value in bad_events:
                await log.events(make_event(next(numbers)))
                for partition in range(2):
                    await log.raw(topics.EVENTS, value, b"demo", partition)
            for value in bad_deliveries:
                await log.events(make_event(next(numbers)))
                for partition in range(3):
                    await log.raw(topics.DELIVERIES, value, b"int_1", partition)
            await log.events(make_event(next(numbers)))
            total = len(bad_events) + len(bad_deliveries) + 1
            await to.wait_for("int_1", total)
            await log.quarantined_come(2 * len(bad_events) + 3 * len(bad_deliveries))
            await eventually(log.all_is_committed)
            assert ((await probe.get("/health/live"))[0], (await probe.get("/health/ready"))[0]) == (200, 200)

        assert list(range(total)) == to.numbers("int_1")
        events = kafka_connection.topic(topics.EVENTS)
        deliveries = kafka_connection.topic(topics.DELIVERIES)
        assert Counter(
            [(events, "fan-out", value) for value in bad_events for _ in range(2)]
            + [(deliveries, "lanes", value) for value in bad_deliveries for _ in range(3)]
        ) == Counter((each.topic, each.agent, each.value) for each in log.quarantined)
        for each in log.quarantined:
            assert each.key == (b"demo" if each.topic == events else b"int_1")
            assert each.code == ("record.unexpected" if each.value == result else "record.unreadable")
            assert each.reason
        assert {"int_1"} == {each.integration for each in log.results}


def _some_result() -> Result:
    return Result(
        delivery_id="dlv_1",
        integration="int_1",
        app="demo",
        record_id="rec_1",
        event_id="evt_1",
        type="call_ended",
        cause="live",
        attempt=1,
        outcome="delivered",
        reason="status_200",
        epoch=1,
        config_version=1,
        url="http://receiver.example/",
        request_headers={},
        response_headers={},
        response_body=b"",
        response_truncated=False,
        started_at_ms=0,
        finished_at_ms=0,
        accepted_at_ms=0,
        source_partition=0,
        source_offset=0,
        source_generation=1,
    )
