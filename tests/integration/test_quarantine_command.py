"""`tenterhook quarantine` on a real broker: what a release could not read is put back under one that can."""

import asyncio
import json
from typing import Any

import pytest

from services.cli.errors import Failed
from services.cli.log_access import LogOptions
from services.cli.quarantine import list_, put_back, show
from services.cli.reconcile import reconcile
from services.cli.trace import trace
from streams import codec, topics
from streams.connection import Connection
from streams.records import Event, Quarantined
from tests.dispatching import dispatching
from tests.logs import Log, log_of, make_event
from tests.older import NEWEST
from tests.receiving import receiver
from tests.waiting import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

#: Ids that a newer release writes with.
NEWER = {NEWEST["delivery"]: 900, NEWEST["event"]: 901}


def write_as_newer(*names: str) -> None:
    """From now on these are written so that this release cannot read them."""
    codec.use_registry({NEWEST[name]: NEWER[NEWEST[name]] for name in names}, lambda _: None)
    codec._registry.schemas.clear()


@pytest.fixture(autouse=True)
def _with_its_own_schemas():
    yield
    codec.use_no_registry()


async def said(command: Any, connection: Connection, capsys: Any, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Exit code, and what it prints as JSON."""
    log = LogOptions(broker=connection.bootstrap, topic_prefix=connection.prefix)
    capsys.readouterr()
    code = await asyncio.to_thread(command, *args, log=log, as_json=True, **options)
    # The dispatcher in this process may log something before.
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


async def met_by_an_older_release(log: Log, first: Event, second: Event) -> None:
    """It cannot read the delivery of the first event, and nothing of the second."""
    async with dispatching(log.connection):
        write_as_newer("delivery")
        await log.events(first)
        await log.quarantined_come(1)
        write_as_newer("delivery", "event")
        await log.events(second)
        await log.quarantined_come(2)


async def test_what_was_put_aside_is_delivered_once_when_it_is_put_back(kafka_connection, capsys):
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.integration(to.integration("int_a"))
        first, second = make_event(1), make_event(2)
        await met_by_an_older_release(log, first, second)
        # Another owner: by its marker, a delivery that its forerunner made comes late.
        async with dispatching(kafka_connection):
            await log.raw(topics.QUARANTINE, b"nobody's")
            log_options = LogOptions(broker=kafka_connection.bootstrap, topic_prefix=kafka_connection.prefix)
            code, refused = await said(put_back, kafka_connection, capsys, 0, 1)
            assert (code, refused["putBack"], len(refused["refused"])) == (1, [], 2)
            assert "cannot read it either" in refused["refused"][0]["why"]

            codec.use_registry(NEWER, lambda _: None)
            _, listed = await said(list_, kafka_connection, capsys, left=True)
            with pytest.raises(Failed, match="--yes"):
                await asyncio.to_thread(put_back, code="record.unreadable", log=log_options)
            code, done = await said(put_back, kafka_connection, capsys, code="record.unreadable", yes=True)
            results = await log.results_come(2)
            await eventually(log.all_is_committed)
            proven = await said(reconcile, kafka_connection, capsys)
            twice = await said(put_back, kafka_connection, capsys, 0)
            _, none = await said(put_back, kafka_connection, capsys, code="record.unreadable", yes=True)
            _, shown = await said(show, kafka_connection, capsys, 0, payload=True)
            with pytest.raises(Failed, match="has the id 2"):
                await asyncio.to_thread(show, 2, log=log_options)
            await asyncio.to_thread(trace, second.event_id, log=log_options)
            traced = capsys.readouterr().out

            # What was too large to be copied stands where it stood.
            [aside] = [each for each in log.quarantined if each.topic == kafka_connection.topic(topics.DELIVERIES)]
            bare = {name: getattr(aside, name) for name in aside.__struct_fields__}
            bare |= {"key": None, "value": None, "code": "attempt.raised"}
            await log.raw(topics.QUARANTINE, codec.encode(Quarantined(**bare)))
            _, large = await said(put_back, kafka_connection, capsys, code="attempt.raised", yes=True)
            await to.wait_for("int_a", 3)
        await asyncio.to_thread(list_, log=log_options)

    assert [(each["id"], each["kind"], each["topic"]) for each in listed["items"]] == [
        (0, "Delivery", "deliveries"),
        (1, "Event", "events"),
    ]
    assert (code, [each["id"] for each in done["putBack"]], done["refused"]) == (0, [0, 1], [])
    assert sorted(each.event_id for each in results) == sorted([first.event_id, second.event_id])
    assert [each.event_id for each in to.arrivals["int_a"]].count(second.event_id) == 1
    assert (proven[0], proven[1]["proven"]) == (0, True)
    assert proven[1]["pairs"]["outcomes"] == {"delivered": 2}
    assert (proven[1]["pairs"]["quarantined"], proven[1]["events"]["quarantined"]) == (0, 1)
    assert (twice[0], twice[1]["putBack"]) == (1, [])
    assert "--again" in twice[1]["refused"][0]["why"]
    assert none == {"putBack": [], "refused": []}
    assert shown["putBack"]["by"]
    assert json.loads(shown["payload"])["n"] == 1
    assert "delivered" in traced
    assert len(large["putBack"]) == 1
    assert to.numbers("int_a") in ([1, 2, 1], [2, 1, 1])
    assert "record.unreadable" in capsys.readouterr().out
