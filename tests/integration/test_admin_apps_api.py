"""Apps, keys, tokens and event types over real HTTP, on a real broker, and what ingest makes of them."""

import asyncio
import logging
import time

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from services.admin.audit import verified
from services.ingest.app import running as ingest_running
from services.runtime.settings import IngestSettings
from streams import codec
from streams.reading import started
from streams.records import AuditRecord
from streams.topics import AUDIT, TOPICS, partition_count
from tests.admins import PARTITIONS, admin_at, admin_settings, client_of, furnish
from tests.apps import ORIGIN
from tests.owning import raw_records
from tests.waiting import eventually

SHOP = "/v1/apps/shop"
INTEGRATION = {"name": "CRM", "url": "https://crm.example/hook"}

#: A key that was deleted may still be taken for so long: ingest hears of it from the log.
STOPS_WITHIN_S = 0.5


@pytest.fixture
async def admin(kafka_connection):
    await furnish(kafka_connection)
    async with admin_at(kafka_connection) as running:
        yield running


@pytest.fixture
async def api(admin):
    async with client_of(admin) as client:
        yield client


def problem_of(answer):
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


async def made(answer):
    answer = await answer
    assert answer.status_code == 201, answer.text
    return answer.json()


async def everything_on_the_log(connection):
    """Every record of every topic of the test, from its beginning to its end, what no transaction committed too."""
    found = []
    options = {"bootstrap_servers": connection.bootstrap, "auto_offset_reset": "earliest"}
    async with started(AIOKafkaConsumer(**options)) as consumer:
        for topic in TOPICS:
            name = connection.topic(topic)
            partitions = [TopicPartition(name, each) for each in range(partition_count(topic, PARTITIONS))]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            await consumer.seek_to_beginning(*partitions)
            while any([await consumer.position(each) < ends[each] for each in partitions]):
                for batch in (await consumer.getmany(timeout_ms=100)).values():
                    found += batch
    return found


async def token_of(api, path, role):
    return (await made(api.post(path, json={"name": role, "role": role})))["token"]


async def ask(api, token, method, path, body=None):
    return await api.request(method, path, headers={"Authorization": f"Bearer {token}"}, json=body)


async def test_an_app_lives_from_create_to_delete(api, admin):
    body = {"id": "shop", "name": "Shop", "origins": [ORIGIN], "eventTypes": ["order_paid"]}
    key = {"Idempotency-Key": "k-1"}
    created = await api.post("/v1/apps", json=body, headers=key)
    shown = created.json()

    assert (created.status_code, created.headers["Location"], created.headers["ETag"]) == (201, SHOP, '"1"')
    assert shown == body | {
        "allowHttp": False,
        "maxActive": 3,
        "publicRatePerS": 100,
        "version": 1,
        "createdAt": shown["createdAt"],
        "updatedAt": shown["createdAt"],
    }
    assert (await api.post("/v1/apps", json=body, headers=key)).json() == shown
    assert problem_of(await api.post("/v1/apps", json=body | {"id": "x"}, headers=key)) == (
        409,
        "idempotency_key_reused",
    )
    assert problem_of(await api.post("/v1/apps", json=body)) == (409, "app_exists")
    assert problem_of(await api.post("/v1/apps", json={"id": "*"})) == (400, "invalid_fields")
    assert [each["id"] for each in (await api.get("/v1/apps")).json()["items"]] == ["demo", "shop"]
    page = (await api.get("/v1/apps", params={"limit": 1})).json()
    assert ([each["id"] for each in page["items"]], page["next"]) == (["demo"], "demo")
    assert [each["id"] for each in (await api.get("/v1/apps", params={"cursor": "demo"})).json()["items"]] == ["shop"]

    patched = await api.patch(SHOP, json={"name": "Shop 2", "maxActive": 1}, headers={"If-Match": '"1"'})
    assert (patched.json()["name"], patched.json()["maxActive"], patched.headers["ETag"]) == ("Shop 2", 1, '"2"')
    assert problem_of(await api.patch(SHOP, json={"name": "x"}, headers={"If-Match": '"1"'})) == (
        412,
        "version_mismatch",
    )
    assert (await api.patch(SHOP, json={"name": "Shop 2"})).headers["ETag"] == '"2"'
    assert (await api.get(SHOP)).json() == patched.json()

    # The quota is that of the patch, at once; what an integration selects stays in the catalogue.
    selecting = await made(api.post(f"{SHOP}/integrations", json=INTEGRATION | {"events": ["order_paid"]}))
    subscription = await made(api.post(f"{SHOP}/subscriptions", json=INTEGRATION))
    assert problem_of(await api.post(f"{SHOP}/integrations", json=INTEGRATION)) == (409, "quota_exceeded")
    for refused in (
        await api.delete(f"{SHOP}/event-types/order_paid"),
        await api.patch(SHOP, json={"eventTypes": []}),
    ):
        assert problem_of(refused) == (409, "type_in_use")
        assert refused.json()["integrations"] == [selecting["id"]]
    assert problem_of(await api.delete(SHOP)) == (409, "app_in_use")
    await api.delete(f"{SHOP}/integrations/{selecting['id']}")
    assert (await api.delete(SHOP)).json()["integrations"] == 1
    await api.delete(f"{SHOP}/subscriptions/{subscription['id']}")
    assert (await api.delete(SHOP)).status_code == 204

    for gone in (await api.get(SHOP), await api.delete(SHOP), await api.get(f"{SHOP}/keys")):
        assert problem_of(gone) == (404, "app_unknown")
    assert problem_of(await api.post("/v1/apps", json=body, headers=key)) == (409, "idempotency_key_spent")
    again = await made(api.post("/v1/apps", json=body))
    assert (again["version"], (await api.get(f"{SHOP}/keys")).json()["items"]) == (1, [])
    actions = [each["action"] for each in (await api.get(f"{SHOP}/audit")).json()["items"]]
    assert [each for each in reversed(actions) if each.startswith("app.")] == [
        "app.create",
        "app.update",
        "app.delete",
        "app.create",
    ]


async def test_of_creates_of_one_app_that_race_in_two_processes_one_wins(kafka_connection):
    await furnish(kafka_connection)
    async with (
        admin_at(kafka_connection) as one,
        admin_at(kafka_connection) as other,
        client_of(one) as here,
        client_of(other) as there,
    ):
        answers = await asyncio.gather(
            *(api.post("/v1/apps", json={"id": "shop", "name": f"{n}"}) for n in range(4) for api in (here, there))
        )
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
        [winner] = [answer.json() for answer in answers if answer.status_code == 201]
        assert (await here.get(SHOP)).json() == (await there.get(SHOP)).json() == winner

        # A type goes, or an integration selects it: never both.
        for n in range(4):
            await made(here.post(f"{SHOP}/event-types", json={"type": f"t{n}"}))
            removed, selected = await asyncio.gather(
                here.delete(f"{SHOP}/event-types/t{n}"),
                there.post(f"{SHOP}/integrations", json=INTEGRATION | {"events": [f"t{n}"]}),
            )
            codes = (removed.status_code, selected.status_code)
            assert codes in {(204, 400), (409, 201)}
            if selected.status_code == 201:
                await there.delete(f"{SHOP}/integrations/{selected.json()['id']}")

        # An app goes, or gets an integration: never both.
        removed, selected = await asyncio.gather(
            here.delete(SHOP), there.post(f"{SHOP}/integrations", json=INTEGRATION | {"events": ["*"]})
        )
        assert (removed.status_code, selected.status_code) in {(204, 404), (409, 201)}


async def test_each_role_may_do_what_it_may(api):
    await made(api.post("/v1/apps", json={"id": "shop"}))
    await made(api.post("/v1/apps", json={"id": "other"}))
    of_app = [await token_of(api, f"{SHOP}/tokens", role) for role in ("viewer", "operator", "admin")]
    of_all = [await token_of(api, "/v1/tokens", role) for role in ("viewer", "operator")]

    # Reading: every role its own app, the installation's all.
    for each in of_app:
        assert [item["id"] for item in (await ask(api, each, "GET", "/v1/apps")).json()["items"]] == ["shop"]
        for path in (SHOP, f"{SHOP}/keys", f"{SHOP}/tokens", f"{SHOP}/event-types"):
            assert (await ask(api, each, "GET", path)).status_code == 200, path
        assert problem_of(await ask(api, each, "GET", "/v1/apps/other")) == (401, "token_unknown")
        assert problem_of(await ask(api, each, "GET", "/v1/apps/*/tokens")) == (401, "token_unknown")
        for path in ("/v1/tokens", "/v1/audit"):
            assert problem_of(await ask(api, each, "GET", path)) == (403, "installation_token_required")
    for each in of_all:
        assert len((await ask(api, each, "GET", "/v1/apps")).json()["items"]) == 3
        assert (await ask(api, each, "GET", "/v1/tokens")).status_code == 200
    assert problem_of(await api.get("/v1/apps/*/tokens")) == (404, "app_unknown")
    assert problem_of(await ask(api, "tok_nobody", "GET", "/v1/apps")) == (401, "token_unknown")

    # Changing: admins alone.
    for token in of_app[:2] + of_all:
        for method, path, body in (
            ("PATCH", SHOP, {"name": "x"}),
            ("POST", f"{SHOP}/keys", {"kind": "public"}),
            ("DELETE", f"{SHOP}/keys/key_1", None),
            ("POST", f"{SHOP}/tokens", {"name": "n", "role": "viewer"}),
            ("DELETE", f"{SHOP}/tokens/viewer", None),
            ("POST", f"{SHOP}/event-types", {"type": "t"}),
            ("DELETE", f"{SHOP}/event-types/t", None),
            ("POST", "/v1/apps", {"id": "n"}),
            ("POST", "/v1/tokens", {"name": "n", "role": "viewer"}),
            ("DELETE", "/v1/tokens/viewer", None),
            ("DELETE", SHOP, None),
        ):
            assert problem_of(await ask(api, token, method, path, body)) == (403, "role_insufficient"), path


async def test_an_app_s_admin_changes_all_of_it_but_its_limits_and_its_end(api):
    await made(api.post("/v1/apps", json={"id": "shop"}))
    mine = await token_of(api, f"{SHOP}/tokens", "admin")

    lowered = {"name": "x", "maxActive": 2, "origins": ["*"]}
    assert (await ask(api, mine, "PATCH", SHOP, lowered)).status_code == 200
    for method, path, body in (
        ("PATCH", SHOP, {"maxActive": 3}),
        ("PATCH", SHOP, {"allowHttp": True}),
        ("PATCH", SHOP, {"publicRatePerS": 101, "name": "y"}),
        ("DELETE", SHOP, None),
        ("POST", "/v1/apps", {"id": "n"}),
        ("POST", "/v1/tokens", {"name": "n", "role": "viewer"}),
        ("DELETE", "/v1/tokens/up", None),
    ):
        assert problem_of(await ask(api, mine, method, path, body)) == (403, "installation_token_required"), body
    assert (await api.patch(SHOP, json={"maxActive": 9, "allowHttp": True})).json()["name"] == "x"


async def test_a_token_ends_with_its_deletion_and_the_last_admin_of_all_stays(api):
    await made(api.post("/v1/apps", json={"id": "shop"}))
    viewer = await token_of(api, f"{SHOP}/tokens", "viewer")
    taken = await api.post(f"{SHOP}/tokens", json={"name": "viewer", "role": "admin"})

    assert problem_of(taken) == (409, "token_exists")
    assert (await api.delete(f"{SHOP}/tokens/viewer")).status_code == 204
    assert problem_of(await ask(api, viewer, "GET", SHOP)) == (401, "token_unknown")
    assert problem_of(await api.delete(f"{SHOP}/tokens/viewer")) == (404, "no_such_token")
    await token_of(api, f"{SHOP}/tokens", "viewer")
    await token_of(api, "/v1/tokens", "viewer")
    assert problem_of(await api.delete("/v1/tokens/up")) == (409, "last_admin_token")
    created = await made(api.post("/v1/tokens", json={"name": "ada+x@shop.example", "role": "admin"}))
    successor = created["token"]
    assert (await ask(api, successor, "DELETE", "/v1/tokens/up")).status_code == 204
    assert problem_of(await api.get("/v1/apps")) == (401, "token_unknown")
    last = await ask(api, successor, "DELETE", "/v1/tokens/ada%2Bx%40shop.example")
    assert problem_of(last) == (409, "last_admin_token")
    listed = (await ask(api, successor, "GET", "/v1/tokens")).json()["items"]
    assert [(each["name"], each["role"]) for each in listed] == [("viewer", "viewer"), ("ada+x@shop.example", "admin")]
    audit = (await ask(api, successor, "GET", "/v1/audit")).json()["items"]
    assert [(each["who"], each["action"], each["target"], each["details"]["role"]) for each in reversed(audit)] == [
        ("up", "token.create", "viewer", "viewer"),
        ("up", "token.create", "ada+x@shop.example", "admin"),
        ("ada+x@shop.example", "token.delete", "up", "admin"),
    ]


@pytest.mark.alone
async def test_ingest_meets_keys_origins_and_types_at_once(connection):
    await furnish(connection)
    settings = admin_settings(connection, ingest=IngestSettings(port=0))
    async with (
        admin_at(connection) as admin,
        client_of(admin) as api,
        ingest_running(settings) as ingest,
        httpx.AsyncClient(base_url=ingest.served.url) as pages,
    ):
        await eventually(lambda: ingest.trouble() is None)

        async def post(key, event_type="order_paid", origin=ORIGIN):
            headers = {"Authorization": f"Bearer {key}"} | ({} if origin is None else {"Origin": origin})
            return await pages.post(f"{SHOP}/events", json={"type": event_type}, headers=headers)

        async def stops(key, **how):
            """How long it still works, in seconds."""
            started_s = time.monotonic()
            while (answer := await post(key, **how)).status_code == 202:
                pass
            return time.monotonic() - started_s, answer.json()["code"]

        await made(api.post("/v1/apps", json={"id": "shop"}))
        public = await made(api.post(f"{SHOP}/keys", json={"kind": "public"}))
        secret = await made(api.post(f"{SHOP}/keys", json={"kind": "secret"}))
        assert (public["key"][:3], secret["key"][:3]) == ("pk_", "sk_")
        # Each right behind its 2xx: what ingest has not heard of yet, it looks up before it refuses.
        assert (await post(secret["key"], origin=None)).status_code == 202
        assert problem_of(await post(public["key"])) == (403, "origin_not_allowed")
        await api.patch(SHOP, json={"origins": [ORIGIN]})
        assert problem_of(await post(public["key"])) == (422, "unknown_type")
        await made(api.post(f"{SHOP}/event-types", json={"type": "order_paid"}))
        assert (await post(public["key"])).status_code == 202
        preflight = await pages.options(f"{SHOP}/events", headers={"Origin": ORIGIN})
        assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN

        assert (await api.delete(f"{SHOP}/event-types/order_paid")).status_code == 204
        took_s, code = await stops(public["key"])
        assert (took_s < STOPS_WITHIN_S, code) == (True, "unknown_type"), took_s
        assert (await api.delete(f"{SHOP}/keys/{secret['id']}")).status_code == 204
        took_s, code = await stops(secret["key"], origin=None)
        assert (took_s < STOPS_WITHIN_S, code) == (True, "key_unknown"), took_s
        listed = (await api.get(f"{SHOP}/keys")).json()["items"]
        assert listed == [{name: value for name, value in public.items() if name != "key"}]
        assert problem_of(await api.delete(f"{SHOP}/keys/{secret['id']}")) == (404, "no_such_key")
        assert (await post(public["key"], "call_ended")).status_code == 202
        assert (await api.delete(SHOP)).status_code == 204
        took_s, code = await stops(public["key"], event_type="call_ended")
        assert (took_s < STOPS_WITHIN_S, code) == (True, "key_unknown"), took_s


async def test_the_catalogue_has_what_can_be_selected(api):
    types = (await api.get("/v1/apps/demo/event-types")).json()
    added = await api.post("/v1/apps/demo/event-types", json={"type": "order_paid"})
    again = await api.post("/v1/apps/demo/event-types", json={"type": "order_paid"})
    selected = await api.post("/v1/apps/demo/integrations", json=INTEGRATION | {"events": ["order_paid"]})

    assert (len(types["items"]), types["next"]) == (13, None)
    assert next(each for each in types["items"] if each["type"] == "scheduled.no_show")["sample"]["scheduled_call"]
    assert (added.status_code, again.status_code, selected.status_code) == (201, 201, 201)
    assert added.headers["Location"] == "/v1/apps/demo/event-types/order_paid"
    assert added.json() == {"type": "order_paid", "source": "app", "description": None, "sample": None}
    assert [each["type"] for each in (await api.get("/v1/apps/demo/event-types")).json()["items"]].count(
        "order_paid"
    ) == 1
    assert problem_of(await api.post("/v1/apps/demo/event-types", json={"type": "call_ended"})) == (
        400,
        "invalid_fields",
    )
    assert problem_of(await api.delete("/v1/apps/demo/event-types/call_ended")) == (404, "no_such_type")


async def test_no_plain_key_or_token_is_on_any_topic_or_in_any_line(api, admin, kafka_connection, caplog, capfd):
    """Every change is in the chain of its app, or of the installation; none says what opens anything."""
    caplog.set_level(logging.DEBUG)
    shown = []

    async def create(path, body, idempotency_key):
        answer = await made(api.post(path, json=body, headers={"Idempotency-Key": idempotency_key}))
        shown.append(answer.get("key") or answer["token"])
        repeated = await api.post(path, json=body, headers={"Idempotency-Key": idempotency_key})
        assert problem_of(repeated) == (409, "shown_once")
        assert repeated.json()["created"] == answer.get("id", answer.get("name"))
        other = await api.post(path, json={}, headers={"Idempotency-Key": idempotency_key})
        assert other.status_code == 400
        return answer

    await made(api.post("/v1/apps", json={"id": "shop"}))
    public = await create(f"{SHOP}/keys", {"kind": "public"}, "k-1")
    await create(f"{SHOP}/keys", {"kind": "secret"}, "k-2")
    await create(f"{SHOP}/tokens", {"name": "ada", "role": "viewer"}, "k-1")
    await create("/v1/tokens", {"name": "ops", "role": "admin"}, "k-1")
    assert (await api.delete(f"{SHOP}/keys/{public['id']}")).status_code == 204
    assert (await api.delete(f"{SHOP}/tokens/ada")).status_code == 204
    await made(api.post(f"{SHOP}/event-types", json={"type": "order_paid"}))
    assert (await api.delete(f"{SHOP}/event-types/order_paid")).status_code == 204
    assert (await api.delete("/v1/tokens/ops")).status_code == 204

    records = await everything_on_the_log(kafka_connection)
    written = b"".join((each.key or b"") + (each.value or b"") for each in records)
    printed = caplog.text + "".join(capfd.readouterr())
    # A transaction that was taken back, and made again, stands there twice.
    audit = [codec.decode_as(AuditRecord, each.value) for each in await raw_records(kafka_connection, AUDIT)]

    assert {each.topic.removeprefix(kafka_connection.prefix) for each in records} >= {"app-config", "audit", "commands"}
    assert b"order_paid" in written
    assert "app-config" in printed
    assert len(shown) == len(set(shown)) == 4
    for plain in shown:
        assert plain[4:].encode() not in written
        assert plain[4:] not in printed
    assert [(each.app, each.action, each.target) for each in audit] == [
        ("shop", "app.create", "shop"),
        ("shop", "key.create", public["id"]),
        ("shop", "key.create", audit[2].target),
        ("shop", "token.create", "ada"),
        ("*", "token.create", "ops"),
        ("shop", "key.delete", public["id"]),
        ("shop", "token.delete", "ada"),
        ("shop", "type.add", "order_paid"),
        ("shop", "type.remove", "order_paid"),
        ("*", "token.delete", "ops"),
    ]
    assert {(each.who, each.ip, each.allowed) for each in audit} == {("up", "127.0.0.1", True)}
    assert audit[1].details["kind"] == "public"
    assert list(verified(audit)) == []
