"""Deliveries over the API: listed, shown with their attempts, sent again one by one and by filter, samples."""

import asyncio

from services.admin.app import running
from services.admin.bootstrap import bootstrap
from services.history.follow import ResultsFollower
from services.runtime.settings import PartitionSettings
from tests.admins import KNOWN, admin_at, admin_settings, client_of
from tests.breaking import make_result, put_results
from tests.dispatching import dispatching
from tests.integration.test_admin_api import BODY, INTEGRATIONS, problem_of
from tests.logs import log_of, make_event
from tests.receiving import after, receiver

DELIVERIES = "/v1/apps/demo/deliveries"


async def listed(api, count, **query):
    """The list, when it has so many."""
    for _ in range(400):
        items = (await api.get(DELIVERIES, params=query)).json()["items"]
        if len(items) == count:
            return items
        await asyncio.sleep(0.05)
    raise AssertionError(f"{len(items)} and not {count}: {items}")


async def test_nothing_is_said_of_deliveries_before_the_history_is_read(kafka_connection, monkeypatch):
    """With an empty folder, or a long way behind: the newest would be missing, and nobody could tell."""
    goes_on = asyncio.Event()
    fetched = ResultsFollower._fetched

    async def held(follower, *arguments):
        await goes_on.wait()
        return await fetched(follower, *arguments)

    monkeypatch.setattr(ResultsFollower, "_fetched", held)
    settings = admin_settings(kafka_connection, partitions=PartitionSettings(by_app=2, by_integration=3))
    async with log_of(kafka_connection) as log:
        await bootstrap(kafka_connection, now_ms=1_000, random=bytes, known=KNOWN)
        await put_results(log, make_result(1, outcome="exhausted"))
        async with running(settings) as admin, client_of(admin) as api:
            await admin.opened
            one = f"{DELIVERIES}/{make_result(1).delivery_id}"
            made = await api.post(INTEGRATIONS, json=BODY)
            asked = [
                await api.get(DELIVERIES),
                await api.get(one),
                await api.get(f"{made.headers['Location']}/rates"),
                await api.post(f"{one}/retry"),
                await api.post(f"{DELIVERIES}/retry", json={"outcome": "exhausted"}),
            ]
            ready = await api.get("/health/ready")
            await api.post("/sign-in", data={"token": KNOWN.token}, headers={"Sec-Fetch-Site": "same-origin"})
            pages = [await api.get("/apps/demo"), await api.get("/apps/demo/deliveries")]
            goes_on.set()
            await admin.opened
            await admin.history.caught_up()
            told = (await api.get(DELIVERIES)).json()["items"]
            after_it = (await api.get("/health/ready")).status_code, (await api.get("/apps/demo")).text

    assert [problem_of(each) for each in asked] == [(503, "history_unavailable")] * 5
    assert {each.headers["Retry-After"] for each in asked} == {"5"}
    assert made.status_code == 201
    assert (ready.status_code, ready.json()["reason"]) == (503, "the delivery history is being read: 1 results to go")
    assert [each.status_code for each in pages] == [200, 503]
    assert "1 results to go" in pages[0].text
    assert [each["outcome"] for each in told] == ["exhausted"]
    assert after_it[0] == 200
    assert "results to go" not in after_it[1]


async def test_deliveries_are_listed_shown_and_sent_again(kafka_connection):  # noqa: PLR0915  # one stack for all
    async with log_of(kafka_connection) as log, receiver() as to:
        await bootstrap(kafka_connection, now_ms=1_000, random=bytes, known=KNOWN)
        async with (
            admin_at(kafka_connection, partitions=PartitionSettings(by_app=2, by_integration=3)) as admin,
            client_of(admin) as api,
            dispatching(kafka_connection),
        ):
            to.policies["int_1"] = after(0, 400)
            url = to.integration("int_1").url
            made = await api.post(
                INTEGRATIONS,
                json={
                    "name": "A",
                    "url": url,
                    "events": ["call_ended"],
                    "headers": {"Authorization": "Bearer {secret.token}"},
                    "secrets": {"token": "PLAIN-TOKEN-VALUE"},
                },
            )
            path, integration = made.headers["Location"], made.json()["id"]
            events = [make_event(number) for number in range(3)]
            await log.events(*events)
            rejected = await listed(api, 3, integration=integration, outcome="rejected")
            by_event = await listed(api, 1, event=events[1].event_id)
            shown = (await api.get(f"{DELIVERIES}/{by_event[0]['id']}")).json()
            to.policies.clear()
            again = await api.post(f"{DELIVERIES}/{by_event[0]['id']}/retry")
            delivered = await listed(api, 1, outcome="delivered", cause="retry")
            many = await api.post(f"{DELIVERIES}/retry", json={"outcome": "rejected", "limit": 1})
            rest = await api.post(f"{DELIVERIES}/retry", json={"outcome": "rejected", "integration": integration})
            # At once: that they are on their way is known before they have a result.
            none = await api.post(f"{DELIVERIES}/retry", json={"outcome": "rejected"})
            goes_on = {"cursor": many.json()["next"]}
            on = await api.post(f"{DELIVERIES}/retry", json={"outcome": "rejected"} | goes_on)
            of_another_list = await api.post(f"{DELIVERIES}/retry", json={"outcome": "blocked"} | goes_on)
            await listed(api, 3, outcome="delivered", cause="retry")
            test = await api.post(f"{path}/test", json={"type": "call_started"})
            sample = await listed(api, 1, cause="test")
            rates = (await api.get(f"{path}/rates")).json()["items"]
            pages = [(await api.get(DELIVERIES, params={"limit": 4})).json()]
            pages.append((await api.get(DELIVERIES, params={"limit": 4, "cursor": pages[0]["next"]})).json())
            told = (await api.get("/v1/apps/demo/audit")).json()["items"]
            missing = await api.get(f"{DELIVERIES}/dlv_{'0' * 32}")
            wrong = await api.get(DELIVERIES, params={"outcome": "lost"})
            refused = await api.post(f"{DELIVERIES}/retry", json={"since": "x"})
            await api.delete(path)
            gone = await api.post(f"{DELIVERIES}/{rejected[0]['id']}/retry")

    assert [each["eventId"] for each in rejected] == [event.event_id for event in reversed(events)]
    [attempt] = shown["attempts"]
    assert (attempt["number"], attempt["status"], attempt["outcome"]) == (1, 400, "rejected")
    assert "PLAIN-TOKEN-VALUE" not in str(shown)
    assert "Authorization" in attempt["requestHeaders"]
    assert attempt["timing"]["waitMs"] is not None
    assert again.status_code == 202
    assert (again.json()["of"], again.json()["attempt"]) == (by_event[0]["id"], 2)
    assert (delivered[0]["id"], delivered[0]["eventId"]) == (again.json()["id"], events[1].event_id)
    assert (len(many.json()["items"]), many.json()["more"]) == (1, True)
    assert (len(rest.json()["items"]), rest.json()["more"]) == (1, False)
    assert none.json() == {"items": [], "refused": [], "more": False, "next": None}
    assert on.json()["next"] is None
    assert problem_of(of_another_list) == (400, "cursor_invalid")
    assert (test.status_code, test.json()["event"]) == (202, "call_started")
    assert sample[0]["id"] == test.json()["id"]
    assert sum(each["delivered"] for each in rates) == 4
    assert len({each["id"] for page in pages for each in page["items"]}) == 7
    assert [each["action"] for each in told[:4]] == ["integration.test", *["delivery.retry"] * 3]
    assert problem_of(missing) == (404, "delivery_unknown")
    assert problem_of(wrong) == (400, "invalid_query")
    assert {each["field"] for each in refused.json()["errors"]} == {"outcome", "since"}
    assert problem_of(gone) == (409, "integration_deleted")
