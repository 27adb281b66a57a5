"""Templates on real HTTP: what a destination of another shape gets, and that nothing is sent where one fails."""

import base64
import json

from standardwebhooks.webhooks import Webhook

from services.dispatcher.sign import brand_signature
from streams.connection import Connection
from tests.admins import admin_at, client_of, furnish
from tests.dispatching import dispatching, sealed_signing
from tests.endpoints import answer, endpoint
from tests.logs import log_of, make_event
from tests.records import make_integration

SIGNING_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SLACK = '{"text": "Call {{ payload.callId }} ended after {{ payload.durationS }} s"}'
BOOKED = '{"text": "{{ payload.scheduled_call.guest }}: {{ event }}, attempt {{ attempt }}"}'


async def test_slack_gets_a_text_signed_as_sent_and_a_booking_another(connection: Connection):
    async with log_of(connection) as log, endpoint(answer(200, b"ok")) as slack:
        signed = {"signing": True, "signing_secrets": [sealed_signing("demo", "int_slack", SIGNING_SECRET)]}
        await log.integration(make_integration("int_slack", url=f"{slack.url}/calls", template=SLACK, **signed))
        await log.integration(
            make_integration(
                "sub_slack",
                profile="booking",
                events=["*"],
                url=f"{slack.url}/bookings",
                template=BOOKED,
                signing=False,
            )
        )
        booking = b'{"scheduled_call": {"guest": "Ada \\"x\\", \\"channel\\": \\"#ceo"}}'
        async with dispatching(connection):
            await log.events(
                make_event(1, payload=b'{"callId": "call_1", "durationS": 42}'),
                make_event(2, type="scheduled.created", payload=booking),
            )
            await log.results_come(2)

    assert {(each.outcome, each.reason) for each in log.results} == {("delivered", "status_200")}
    sent = {received.target.rpartition("/")[2]: received for received in slack.received}
    calls, bookings = sent["calls"], sent["bookings"]
    assert calls.body == b'{"text": "Call call_1 ended after 42 s"}'
    assert calls.header("Content-Type") == "application/json"
    assert calls.header("Content-Length") == str(len(calls.body))
    assert calls.header("X-ApifyCloud-Signature") == brand_signature(SIGNING_SECRET, calls.body)
    Webhook(SIGNING_SECRET).verify(calls.body, {name.lower(): value for name, value in calls.headers})
    assert json.loads(bookings.body) == {"text": 'Ada "x", "channel": "#ceo: scheduled.created, attempt 1'}


async def test_one_that_fails_is_blocked_and_nothing_is_sent(connection: Connection):
    """Neither tried again nor in the way: the next event, which it can render, is sent."""
    template = '{"text":\n"{{ payload.callId }} {{ 60 | divided_by: payload.n }}"}'
    async with log_of(connection) as log, endpoint(answer(200, b"ok")) as slack:
        await log.integration(make_integration("int_slack", url=f"{slack.url}/", template=template))
        await log.integration(make_integration("int_broken", url=f"{slack.url}/broken", template="{% if %}"))
        async with dispatching(connection):
            await log.events(
                make_event(1, payload=b'{"callId": "call_secret", "n": 0}'),
                make_event(2, payload=b'{"callId": "call_2", "n": 2}'),
            )
            await log.results_come(4)

    assert [received.body for received in slack.received] == [b'{"text":\n"call_2 30"}']
    ended = [result for result in log.results if result.integration == "int_slack"]
    assert [(each.outcome, each.reason, each.attempt) for each in ended] == [
        ("blocked", "template_failed", 0),
        ("delivered", "status_200", 1),
    ]
    assert (
        ended[0].detail == "the template gives no body: line 2: the filter divided_by cannot work with what it is given"
    )
    assert ended[0].status is None
    assert ended[0].next_attempt is None
    broken = [(each.outcome, each.reason) for each in log.results if each.integration == "int_broken"]
    assert broken == [("blocked", "template_failed")] * 2


async def test_the_admin_api_takes_what_can_be_rendered_and_names_the_line_of_what_cannot(
    embedded_connection: Connection,
):
    wanted = {"name": "Slack", "url": "https://hooks.example/x", "events": ["call_ended"]}
    await furnish(embedded_connection)
    async with admin_at(embedded_connection) as admin, client_of(admin) as api:
        made = await api.post("/v1/apps/demo/integrations", json=wanted | {"template": SLACK})
        shown = await api.get(made.headers["Location"])
        refused = await api.post("/v1/apps/demo/integrations", json=wanted | {"template": '{"text":\n{{ nope }}}'})

    assert made.status_code == 201
    assert shown.json()["template"] == SLACK
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_fields")
    [error] = refused.json()["errors"]
    assert error["field"] == "template"
    assert error["detail"].startswith("line 2: there is nothing called 'nope'")
