"""A log that older releases wrote, under a dispatcher of today; and what those would make of what it writes then."""

import pytest

from streams import codec, topics
from streams.connection import Connection
from streams.records import IntegrationState
from tests.apps import make_app
from tests.dispatching import dispatching
from tests.logs import log_of, make_event
from tests.older import NEWEST, OLDER, RELEASED, as_read_then, as_written_then, fields_of
from tests.receiving import receiver
from tests.records import make_delivery

COUNTS = dict.fromkeys(("consecutive_failures", "delivered", "ended"), 0) | {"applied_offset": -1}
#: The oldest schema of each kind that has several.
OLDEST = {RELEASED[number][0]: number for number in reversed(OLDER)}


@pytest.mark.slow
async def test_a_log_of_the_oldest_release_is_delivered_and_can_be_read_by_it(embedded_connection: Connection):
    async with log_of(embedded_connection) as log, receiver() as to:
        config = to.integration("int_old")
        waiting = make_event(1)
        state = IntegrationState(integration="int_old", app="demo", state="active", epoch=1, **COUNTS)
        delivery = make_delivery(
            delivery_id="dlv_of_then",
            integration="int_old",
            record_id=waiting.record_id,
            event_id=waiting.event_id,
            payload=waiting.payload,
            config_offset=0,
        )
        for topic, key, record in (
            (topics.APP_CONFIG, "demo", make_app()),
            (topics.INTEGRATION_CONFIG, "int_old", config),
            (topics.INTEGRATION_STATE, "int_old", state),
            (topics.DELIVERIES, "int_old", delivery),
        ):
            name = topic.values[0]
            await log.raw(topic, as_written_then(OLDEST[name], record), key.encode())
        async with dispatching(embedded_connection):
            await log.events(make_event(2))
            await log.results_come(2)

        assert sorted(to.numbers("int_old")) == [1, 2]
        assert [each.outcome for each in log.results] == ["delivered", "delivered"]
        assert "dlv_of_then" in {each.delivery_id for each in log.results}
        assert not log.seen[topics.QUARANTINE]
        written = [each for seen in log.seen.values() for each in seen if each.record is not None]
        names = {codec.decode(each.raw.value).__class__.__name__ for each in written}
        for each in written:
            number = int.from_bytes(each.raw.value[1:5], "big")
            name = RELEASED[number][0]
            if number == NEWEST[name]:
                then = as_read_then(OLDEST.get(name, number), each.raw.value)
                assert then.items() <= fields_of(each.record).items()

        assert names == {"FanOutReceipt", "Delivery", "Result", "Marker"}
