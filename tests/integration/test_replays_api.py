"""Replays over the API: counted first, then sent by a dispatcher, then listed; cancelled; recorded."""

import time

import pytest

from services.admin.bootstrap import bootstrap
from services.runtime.settings import PartitionSettings
from services.runtime.times import iso
from tests.admins import KNOWN, admin_at, client_of
from tests.dispatching import dispatching
from tests.integration.test_admin_api import INTEGRATIONS, SUBSCRIPTIONS, problem_of
from tests.logs import log_of, make_event
from tests.receiving import receiver
from tests.replays import HEADER, replayed
from tests.waiting import eventually


async def ended(api, path):
    async def is_over():
        return (await api.get(path)).json()["status"] != "running"

    for _ in range(600):
        if await is_over():
            return (await api.get(path)).json()
    pytest.fail("the replay did not end")


async def test_past_events_are_counted_sent_and_listed(kafka_connection):
    now_ms = time.time_ns() // 1_000_000
    async with (
        log_of(kafka_connection) as log,
        receiver() as to,
        admin_at(kafka_connection, partitions=PartitionSettings(by_app=2, by_integration=3)) as admin,
        client_of(admin) as api,
        dispatching(kafka_connection),
    ):
        await bootstrap(kafka_connection, now_ms=1_000, random=bytes, known=KNOWN)
        events = [make_event(number, accepted_at_ms=now_ms - 5_000 + number) for number in range(10)]
        await log.events(*events)
        await eventually(lambda: len(log.receipts) == 10, 30)
        made = await api.post(
            INTEGRATIONS,
            json={
                "name": "New",
                "url": to.integration("int_1").url,
                "events": ["call_ended"],
                "headers": {"X-A": "LITERAL"},
            },
        )
        path = made.headers["Location"]
        body = {"from": iso(now_ms - 5_000 + 4), "until": iso(now_ms)}
        dry = await api.post(f"{path}/replay", json=body | {"dryRun": True, "sample": 1})
        started = await api.post(f"{path}/replay", json=body | {"rate": 1_000})
        over = await ended(api, started.headers["Location"])
        listed = (await api.get(f"{path}/replays")).json()
        of_app = (await api.get("/v1/apps/demo/replays")).json()
        slow = (await api.post(f"{path}/replay", json=body | {"rate": 1})).headers["Location"]
        cancelled = await api.post(f"{slow}/cancel")
        again = await api.post(f"{slow}/cancel")
        told = (await api.get("/v1/apps/demo/audit")).json()["items"]
        wrong = await api.post(f"{path}/replay", json={"from": "yesterday", "rate": 0})
        elsewhere = await api.get(started.headers["Location"].replace(INTEGRATIONS, SUBSCRIPTIONS))

    assert dry.status_code == 200
    assert (dry.json()["events"], dry.json()["byType"]) == (6, {"call_ended": 6})
    assert [each["eventId"] for each in dry.json()["sample"]] == [events[4].event_id]
    assert "LITERAL" not in dry.text
    assert started.status_code == 202
    assert (over["status"], over["progress"]["outcomes"]) == ("done", {"delivered": 6})
    assert listed == of_app == {"items": [over], "next": None}
    arrived = replayed(to, "int_1", over["id"])
    assert [each.event_id for each in arrived][:6] == [each.event_id for each in events[4:]]
    assert arrived[0].request.header(HEADER) == over["id"]
    assert cancelled.json()["status"] == "cancelled"
    assert problem_of(again) == (409, "replay_ended")
    assert [each["action"] for each in told[:4]] == [
        "replay.cancel",
        "replay.start",
        "replay.start",
        "integration.create",
    ]
    assert {each["field"] for each in wrong.json()["errors"]} == {"from", "rate"}
    assert problem_of(elsewhere)[0] == 404
