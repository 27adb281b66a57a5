from services.cli.bench.findings import Arrival, Spread
from services.cli.bench.log import Written, order_of
from services.cli.bench.stages import STAGES, stages
from streams.records import Delivery, Event, FanOutReceipt, Result

MS = 1_000_000
SENT_MS = 1_795_000_000_000
SOURCE = {"source_partition": 0, "source_offset": 0, "source_generation": 1}
OF_EVENT = {"app": "shop", "record_id": "rec_1", "event_id": "evt_1", "type": "call_ended", "accepted_at_ms": SENT_MS}


def event(number: int = 1, app: str = "shop", sent_ms: int = SENT_MS) -> Event:
    payload = b'{"sentNs":%d,"n":%d}' % (sent_ms * MS, 1_000_000_000 + number)
    more = {"id_space": "secret", "id_supplied": False, "occurred_at_ms": SENT_MS, "payload": payload}
    return Event(**{**OF_EVENT, "app": app}, **more)


def result(integration: str, started_at_ms: int) -> Result:
    return Result(
        **OF_EVENT,
        **SOURCE,
        delivery_id="dlv_1",
        integration=integration,
        cause="live",
        attempt=1,
        outcome="delivered",
        reason="delivered",
        epoch=1,
        config_version=1,
        url="http://127.0.0.1/",
        request_headers={},
        response_headers={},
        response_body=b"",
        response_truncated=False,
        started_at_ms=started_at_ms,
        finished_at_ms=started_at_ms,
    )


def delivery(integration: str) -> Delivery:
    more = {"occurred_at_ms": SENT_MS, "payload": b"null", "config_offset": 0}
    return Delivery(**OF_EVENT, **SOURCE, **more, delivery_id="dlv_1", integration=integration)


def test_each_stage_lasts_from_the_end_of_the_one_before():
    receipt = FanOutReceipt(**OF_EVENT, **SOURCE, config_offset=0, integrations=["int_1"])
    written = [
        Written(SENT_MS + 1, event()),
        Written(SENT_MS + 3, receipt),
        Written(SENT_MS + 6, delivery("int_1")),
        Written(SENT_MS + 21, result("int_1", SENT_MS + 10)),
        # Not one of this run's integrations.
        Written(SENT_MS + 6, delivery("int_else")),
        Written(SENT_MS + 900, result("int_else", SENT_MS + 800)),
    ]
    arrivals = [Arrival((SENT_MS + 15) * MS, 0, 1, SENT_MS * MS)]

    found = stages(written, arrivals, {"int_1": 0})

    assert found == {name: Spread(ms, ms, ms) for name, ms in zip(STAGES, (1, 2, 3, 4, 5, 6), strict=True)}


def test_the_order_on_the_log_is_that_of_the_apps_own_events_of_this_run():
    written = [
        Written(0, event(7, sent_ms=SENT_MS - 1)),
        Written(0, event(3)),
        Written(0, event(9, app="else")),
        Written(0, delivery("int_1")),
        Written(0, event(1)),
    ]

    assert order_of(written, "shop", SENT_MS * MS) == [3, 1]
