"""The client for Python services, against answers that a test gives: what it sends, repeats, reads and raises."""

import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tenterhook
from tenterhook import (
    Accepted,
    Client,
    Conflict,
    Event,
    Invalid,
    NoAnswer,
    NotAllowed,
    NotFound,
    Refused,
    Retries,
    TooMany,
    Unavailable,
    records,
)
from tenterhook.sending import MAX_BATCH_BYTES, MAX_EVENTS, parts

AT_ONCE = Retries(attempts=3, first_s=0, most_s=10)
ACCEPTED = {"id": "e-1", "acceptedAt": "2026-01-02T03:04:05.678Z"}
DOCUMENT = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text(encoding="utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]


def problem(status, code="some_code", headers=None, **members):
    members = {"type": f"urn:tenterhook:problem:{code}", "title": "T", "detail": "Do this.", "code": code} | members
    return httpx.Response(status, json=members | {"status": status}, headers=headers)


def answering(*answers, **given):
    """A client whose requests get these answers, in turn; and the requests."""
    asked, left = [], [*answers]

    def handle(request):
        asked.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    options = {"key": "sk_1", "token": "tok_1", "retries": AT_ONCE, "transport": httpx.MockTransport(handle)} | given
    return Client("demo", **options), asked


async def test_an_event_is_sent_with_its_key_and_its_payload_byte_for_byte():
    client, asked = answering(httpx.Response(202, json=ACCEPTED | {"duplicate": True}), origin="https://a.example")
    accepted = await client.send("call_ended", msgspec.Raw(b'{"a" :  1.50}'), id="e-1", ordering_key="c-1")

    assert accepted == Accepted(id="e-1", accepted_at=datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC), duplicate=True)
    assert asked[0].url == "http://127.0.0.1:8080/v1/apps/demo/events"
    assert (asked[0].headers["Authorization"], asked[0].headers["Origin"]) == ("Bearer sk_1", "https://a.example")
    assert asked[0].content == b'{"type":"call_ended","payload":{"a" :  1.50},"id":"e-1","orderingKey":"c-1"}'


async def test_what_is_put_off_is_sent_again_under_the_same_id_and_what_is_wrong_is_not():
    seen = []
    client, asked = answering(
        problem(503, "broker_unavailable", {"Retry-After": "0"}),
        httpx.ConnectError("refused"),
        httpx.Response(202, json=ACCEPTED),
        problem(422, "unknown_type", field="type"),
        *[problem(429, "too_many_events", {"Retry-After": "0"})] * 3,
        problem(503, headers={"Retry-After": "11"}),
        on_retry=lambda error, wait_s: seen.append((type(error), wait_s)),
    )
    await client.send("call_ended")
    with pytest.raises(Invalid, match="unknown_type: Do this") as wrong:
        await client.send("call_endet")
    with pytest.raises(TooMany):
        await client.send("call_ended")
    with pytest.raises(Unavailable) as later:
        await client.send("call_ended")

    ids = [json.loads(request.content)["id"] for request in asked]
    assert [ids.count(each) for each in dict.fromkeys(ids)] == [3, 1, 3, 1]
    assert seen == [(Unavailable, 0), (NoAnswer, 0), (TooMany, 0), (TooMany, 0)]
    assert (wrong.value.field, wrong.value.status, wrong.value.code) == ("type", 422, "unknown_type")
    assert later.value.retry_after_s == 11


@given(
    attempt=st.integers(1, 20),
    draw=st.floats(0, 1),
    told_s=st.none() | st.integers(0, 60),
    most_s=st.floats(0.5, 60),
)
def test_a_wait_is_never_shorter_than_told_and_never_beyond_what_was_agreed(attempt, draw, told_s, most_s):
    retries = Retries(attempts=15, first_s=0.5, most_s=most_s)
    wait_s = retries.wait_s(attempt, Refused(503, {"code": "c", "detail": "d"}, told_s), draw)
    if attempt >= 15 or (told_s or 0) > most_s:
        assert wait_s is None
    else:
        assert max(told_s or 0, min(0.5 * 2 ** (attempt - 1), most_s) / 2) <= wait_s <= most_s * 1.5


async def test_a_batch_repeats_only_what_was_put_off_and_tells_each_event_its_own():
    later = {"status": 503, "code": "broker_unavailable", "detail": "d", "retryAfter": 0}
    wrong = {"status": 422, "code": "unknown_type", "detail": "d"}
    taken = {"status": 202} | ACCEPTED
    client, asked = answering(
        problem(429, headers={"Retry-After": "0"}),
        httpx.Response(207, json={"items": [taken, later, wrong]}),
        httpx.Response(207, json={"items": [taken]}),
    )
    events = [Event(type=f"t{number}") for number in range(3)]
    told = await client.send_batch(events)

    assert [type(each) for each in told] == [Accepted, Accepted, Invalid]
    sent = [[each["id"] for each in json.loads(request.content)] for request in asked]
    ids = [each.id for each in events]
    assert sent == [ids, ids, [ids[1]]]


@given(st.lists(st.integers(1, 70_000), max_size=600))
def test_every_event_of_a_batch_is_in_one_part_in_order_and_no_part_is_too_large(sizes):
    bodies = [b"x" * size for size in sizes]
    found = list(parts(bodies))

    assert [at for part in found for at in part] == list(range(len(bodies)))
    for part in found:
        assert 0 < len(part) <= MAX_EVENTS
        assert len(b"[%b]" % b",".join(bodies[at] for at in part)) <= MAX_BATCH_BYTES


async def test_lists_are_asked_for_page_by_page_as_they_are_read():
    item = dict.fromkeys(("ip",)) | {
        "id": "aud_1",
        "app": "demo",
        "at": "2026-01-02T03:04:05Z",
        "who": "ada",
        "action": "a",
        "target": "t",
    }
    item |= {"allowed": True, "details": {}, "previousHash": "", "hash": ""}
    client, asked = answering(
        httpx.Response(200, json={"items": [item, item], "next": "c2"}),
        httpx.Response(200, json={"items": [item], "next": None}),
    )
    found = client.audit(who="ada", since=datetime(2026, 1, 2, tzinfo=UTC))
    first = [await anext(found), await anext(found)]
    before = len(asked)
    rest = [each async for each in found]

    assert (len(first), before, len(rest)) == (2, 1, 1)
    assert dict(asked[1].url.params) == {
        "who": "ada",
        "since": "2026-01-02T00:00:00+00:00",
        "limit": "200",
        "cursor": "c2",
    }


async def test_settings_are_named_as_the_api_names_them_and_names_of_headers_stay():
    client, asked = answering(problem(409, "quota_reached"), problem(412, "version_differs"), httpx.Response(204))
    with pytest.raises(Conflict):
        await client.subscriptions.create(
            name="B", url="https://b.example", headers={"x_own": "1"}, retry={"max_attempts": 2, "on_429": True}
        )
    with pytest.raises(Conflict):
        await client.integrations.change("int_1", if_version=7, events=("a",), while_paused="discard", template=None)
    await client.integrations.delete("sub_1")

    assert json.loads(asked[0].content) == {
        "name": "B",
        "url": "https://b.example",
        "headers": {"x_own": "1"},
        "retry": {"maxAttempts": 2, "on429": True},
    }
    assert asked[0].headers["Idempotency-Key"]
    assert json.loads(asked[1].content) == {"events": ["a"], "whilePaused": "discard", "template": None}
    assert asked[1].headers["If-Match"] == '"7"'
    assert [request.url.path for request in asked] == [
        "/v1/apps/demo/subscriptions",
        "/v1/apps/demo/integrations/int_1",
        "/v1/apps/demo/subscriptions/sub_1",
    ]


async def test_what_an_error_is_goes_by_its_status_and_what_is_no_problem_is_no_answer():
    kinds = {
        400: Invalid,
        401: NotAllowed,
        403: NotAllowed,
        404: NotFound,
        410: NotFound,
        409: Conflict,
        500: Unavailable,
    }
    for status, kind in (kinds | {418: Refused}).items():
        client, _ = answering(problem(status))
        with pytest.raises(Refused) as refused:
            await client.deliveries.get("dlv_1")
        assert type(refused.value) is kind
    for answer in (httpx.Response(404, text="<html>"), httpx.Response(200, json={"id": 1}), httpx.ReadTimeout("")):
        client, _ = answering(answer)
        with pytest.raises(NoAnswer):
            await client.deliveries.get("dlv_1")


async def test_what_was_left_out_and_times_that_mean_nothing_are_said_before_anything_is_sent():
    with pytest.raises(ValueError, match="needs a key"):
        await Client("demo").send("call_ended")
    with pytest.raises(ValueError, match="needs a token"):
        await Client("demo").integrations.get("int_1")
    client, asked = answering()
    with pytest.raises(ValueError, match="zone"):
        await client.send("call_ended", occurred_at=datetime(2026, 1, 2))  # noqa: DTZ001
    with pytest.raises(ValueError, match="zone"):
        client.deliveries.list(since=datetime(2026, 1, 2))  # noqa: DTZ001

    assert asked == []


#: Records of the client by the schema of the API that they read, where it has a name of its own.
RECORDS = {
    name: kind
    for name, kind in vars(records).items()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and name in SCHEMAS
} | {"VersionInHistory": records.Version}
del RECORDS["Version"]  # of the client: one of the history


@pytest.mark.parametrize("name", RECORDS)
def test_the_records_are_those_of_the_api(name):
    fields = {field.encode_name: field for field in msgspec.structs.fields(RECORDS[name])}
    schema = SCHEMAS[name]

    assert set(fields) == set(schema["properties"]) - {"dryRun"}
    required = {name for name, field in fields.items() if field.required}
    assert required == set(schema["required"]) - {"dryRun"}


def test_most_of_the_api_is_known():
    assert len(RECORDS) >= 14


def test_no_secret_shows_where_records_are_printed():
    revealed = records.RevealedSecret(name="token", version=1, value="PLAIN")
    rotated = records.Rotated(signing_secret="PLAIN", version=2, previous_valid_until=None)

    assert "PLAIN" not in repr([revealed, rotated])
    assert "sk_1" not in repr(answering()[0])


def test_everything_that_can_be_imported_is_listed_in_order():
    assert tenterhook.__all__ == sorted(tenterhook.__all__)
    assert all(hasattr(tenterhook, name) for name in tenterhook.__all__)
