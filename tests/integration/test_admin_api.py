"""The admin API over real HTTP, on a real broker."""

import asyncio
import json

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.profiles import INTEGRATION
from services.admin import changes, config_log
from services.admin.app import main
from services.admin.tokens import Caller
from services.cli.errors import Failed
from services.cli.tokens import _first
from services.runtime.problems import Problem
from services.runtime.serving import StartupError
from services.vault.opened import open_integration
from services.vault.seal import Keyring
from streams.connection import Connection
from streams.topics import APP_CONFIG, INTEGRATION_CONFIG, Partitions, ensure
from tests.admins import KEK, KNOWN, PARTITIONS, admin_at, admin_settings, client_of, furnish, make_token, put_apps
from tests.apps import make_app

CALLER = Caller("somebody", "admin", b"")
INTEGRATIONS = "/v1/apps/demo/integrations"
SUBSCRIPTIONS = "/v1/apps/demo/subscriptions"
BODY = {
    "name": "CRM",
    "url": "https://crm.example/hooks/{secret.path}",
    "events": ["call_ended"],
    "headers": {"Authorization": "Bearer {secret.token}", "X-Api-Key": "LITERAL-HEADER-VALUE"},
    "secrets": {"token": "PLAIN-TOKEN-VALUE", "path": "PLAIN-PATH-VALUE"},
}


@pytest.fixture
async def admin(kafka_connection):
    await furnish(kafka_connection)
    async with admin_at(kafka_connection) as running:
        yield running


@pytest.fixture
async def api(admin):
    async with client_of(admin) as client:
        yield client


async def records(connection, topic):
    """Every record of a topic of one partition, from its beginning to its end: (key, value)."""
    consumer = AIOKafkaConsumer(bootstrap_servers=connection.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partition = TopicPartition(connection.topic(topic), 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        await consumer.seek_to_beginning(partition)
        found = []
        while await consumer.position(partition) < end:
            for batch in (await consumer.getmany(timeout_ms=100)).values():
                found += [(record.key, record.value) for record in batch]
        return found
    finally:
        await consumer.stop()


def problem_of(answer):
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    return answer.status_code, answer.json()["code"]


async def test_an_integration_lives_from_create_to_delete(connection: Connection):
    await furnish(connection)
    async with admin_at(connection) as admin, client_of(admin) as api:
        created = await api.post(INTEGRATIONS, json=BODY)
        shown = created.json()
        path = f"{INTEGRATIONS}/{shown['id']}"

        assert created.status_code == 201
        assert created.headers["Location"] == path
        assert shown == {
            "id": shown["id"],
            "profile": "integration",
            "name": "CRM",
            "url": "https://crm.example/hooks/{secret.path}",
            "events": ["call_ended"],
            "headers": {"Authorization": "Bearer {secret.token}", "X-Api-Key": "***"},
            "timeoutMs": 5000,
            "retry": {"policy": "transient", "maxAttempts": 3, "delaysMs": [5000, 20000], "on429": False},
            "ordering": "integration",
            "maxInFlight": 1,
            "whilePaused": "hold",
            "autoPause": True,
            "signing": False,
            "template": None,
            "sendTraceparent": False,
            "status": "active",
            "statusReason": None,
            "consecutiveFailures": 0,
            "successRate": None,
            "queueAgeMs": None,
            "lastDelivery": None,
            "version": 1,
            "epoch": 1,
            "createdAt": shown["createdAt"],
            "updatedAt": shown["createdAt"],
        }
        assert shown["id"].startswith("int_")
        assert (await api.get(path)).json() == shown
        assert (await api.get(INTEGRATIONS)).json() == {"items": [shown], "next": None}
        assert (await api.delete(path)).status_code == 204
        assert problem_of(await api.get(path)) == (404, "integration_unknown")
        assert problem_of(await api.delete(path)) == (404, "integration_unknown")
        assert (await api.get(INTEGRATIONS)).json() == {"items": [], "next": None}

    # The deletion is a tombstone under the integration's key.
    assert [(key, value is None) for key, value in await records(connection, INTEGRATION_CONFIG)] == [
        (shown["id"].encode(), False),
        (shown["id"].encode(), True),
    ]


async def test_no_byte_of_the_config_topics_shows_a_secret(connection: Connection):
    await furnish(connection)
    async with admin_at(connection) as admin, client_of(admin) as api:
        first = (await api.post(INTEGRATIONS, json=BODY)).json()
        signing = (await api.post(SUBSCRIPTIONS, json=BODY | {"events": ["*"]})).json()["signingSecret"]
        plain = [
            *BODY["secrets"].values(),
            *BODY["headers"].values(),
            signing.removeprefix("whsec_"),
            *(KNOWN.token, KNOWN.public_key, KNOWN.secret_key),
        ]
        answers = [await api.get(path) for path in (INTEGRATIONS, SUBSCRIPTIONS, f"{INTEGRATIONS}/{first['id']}")]

    kept = await records(connection, INTEGRATION_CONFIG) + await records(connection, APP_CONFIG)
    written = b"".join(key + value for key, value in kept)

    assert len(kept) == 4
    assert b"https://crm.example" in written
    assert b"demo" in written
    assert [value for value in plain if value.encode() in written] == []
    template = BODY["headers"]["Authorization"]
    assert [value for value in plain if any(value in answer.text for answer in answers)] == [template]


async def test_a_subscription_is_signed_and_its_secret_is_shown_once(api, admin, kafka_connection):
    created = (await api.post(SUBSCRIPTIONS, json={"name": "B", "url": "https://b.example", "events": ["*"]})).json()
    shown = (await api.get(f"{SUBSCRIPTIONS}/{created['id']}")).json()
    config = admin.config.integrations.get(created["id"])

    assert created["id"].startswith("sub_")
    assert open_integration(config, Keyring(KEK)).signing == [(created["signingSecret"], None)]
    assert shown == {name: value for name, value in created.items() if name != "signingSecret"}
    assert (shown["signing"], shown["profile"], shown["retry"]["maxAttempts"]) == (True, "booking", 8)


async def test_an_integration_is_signed_where_asked_for(api):
    with_signing = await api.post(INTEGRATIONS, json=BODY | {"signing": True})

    assert with_signing.json()["signingSecret"].startswith("whsec_")


async def test_each_path_shows_only_its_own(api):
    integration = (await api.post(INTEGRATIONS, json=BODY)).json()["id"]
    subscription = (await api.post(SUBSCRIPTIONS, json=BODY | {"events": ["*"]})).json()["id"]

    assert [each["id"] for each in (await api.get(INTEGRATIONS)).json()["items"]] == [integration]
    assert [each["id"] for each in (await api.get(SUBSCRIPTIONS)).json()["items"]] == [subscription]
    assert problem_of(await api.get(f"{INTEGRATIONS}/{subscription}")) == (404, "integration_unknown")
    assert problem_of(await api.delete(f"{SUBSCRIPTIONS}/{integration}")) == (404, "integration_unknown")
    assert (await api.get(f"{INTEGRATIONS}/{integration}")).status_code == 200


async def test_the_fourth_active_integration_is_refused_and_a_deleted_one_frees_its_place(api):
    ids = [(await api.post(INTEGRATIONS, json=BODY)).json()["id"] for _ in range(3)]
    refused = await api.post(INTEGRATIONS, json=BODY)

    assert problem_of(refused) == (409, "quota_exceeded")
    assert refused.json()["limit"] == 3
    assert (await api.post(SUBSCRIPTIONS, json=BODY | {"events": []})).status_code == 201
    await api.delete(f"{INTEGRATIONS}/{ids[1]}")
    assert (await api.post(INTEGRATIONS, json=BODY)).status_code == 201


async def test_of_creates_that_race_for_the_last_places_as_many_win_as_there_are(api):
    answers = await asyncio.gather(*(api.post(INTEGRATIONS, json=BODY) for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
    assert len((await api.get(INTEGRATIONS)).json()["items"]) == 3


async def test_of_deletes_that_race_one_finds_it(api, admin):
    """Not over HTTP, where the round trip before each delete keeps them apart."""
    created = (await api.post(INTEGRATIONS, json=BODY)).json()["id"]
    ended = await asyncio.gather(
        *(admin.commands.delete("demo", INTEGRATION, created, CALLER) for _ in range(4)), return_exceptions=True
    )

    assert ended[0] is None
    assert [problem.code for problem in ended[1:]] == ["integration_unknown"] * 3


async def test_a_repeated_create_gets_the_same_answer_and_creates_nothing(api):
    key = {"Idempotency-Key": "k-1"}
    first = await api.post(INTEGRATIONS, json=BODY | {"signing": True}, headers=key)
    again = await api.post(INTEGRATIONS, content=json.dumps(BODY | {"signing": True}, indent=1), headers=key)
    other = await api.post(INTEGRATIONS, json=BODY | {"name": "other"}, headers=key)
    elsewhere = await api.post(SUBSCRIPTIONS, json=BODY | {"events": []}, headers=key)

    assert (first.status_code, again.status_code, elsewhere.status_code) == (201, 201, 201)
    assert first.json() == again.json()
    assert problem_of(other) == (409, "idempotency_key_reused")
    assert len((await api.get(INTEGRATIONS)).json()["items"]) == 1


async def test_a_repeated_create_does_not_show_a_signing_secret_that_came_later(api):
    first, later = {"Idempotency-Key": "k-1"}, {"Idempotency-Key": "k-2"}
    signed = (await api.post(INTEGRATIONS, json=BODY | {"signing": True}, headers=first)).json()
    rotated = (await api.post(f"{INTEGRATIONS}/{signed['id']}/rotate", json={"now": True})).json()
    plain = (await api.post(INTEGRATIONS, json=BODY, headers=later)).json()
    turned_on = (await api.patch(f"{INTEGRATIONS}/{plain['id']}", json={"signing": True})).json()
    repeated = await api.post(INTEGRATIONS, json=BODY | {"signing": True}, headers=first)
    unsigned = await api.post(INTEGRATIONS, json=BODY, headers=later)

    assert rotated["signingSecret"] != signed["signingSecret"]
    assert turned_on["signingSecret"].startswith("whsec_")
    assert (repeated.status_code, repeated.json()["id"]) == (201, signed["id"])
    assert (unsigned.status_code, unsigned.json()["id"]) == (201, plain["id"])
    assert "signingSecret" not in repeated.json() | unsigned.json()


async def test_repeated_creates_at_once_create_one(api):
    key = {"Idempotency-Key": "k-1"}
    answers = await asyncio.gather(*(api.post(INTEGRATIONS, json=BODY, headers=key) for _ in range(5)))

    assert {answer.json()["id"] for answer in answers} == {answers[0].json()["id"]}


async def test_a_create_that_was_refused_may_be_corrected_under_its_key(api):
    key = {"Idempotency-Key": "k-1"}
    refused = await api.post(INTEGRATIONS, json=BODY | {"url": "nowhere"}, headers=key)
    corrected = await api.post(INTEGRATIONS, json=BODY, headers=key)

    assert (refused.status_code, corrected.status_code) == (400, 201)


@pytest.mark.parametrize("is_stored", [True, False])
async def test_a_create_whose_end_is_not_known_is_repeated_and_there_is_one(api, admin, monkeypatch, is_stored):
    ask, tried = admin.changes._ask, []

    async def interrupted(command):
        tried.append(command.writes[0].key)
        if is_stored:
            await ask(command)
        raise config_log.unavailable("gone in between")

    key = {"Idempotency-Key": "k-1"}
    monkeypatch.setattr(admin.changes, "_ask", interrupted)
    lost = await api.post(INTEGRATIONS, json=BODY | {"signing": True}, headers=key)
    monkeypatch.undo()
    again = await api.post(INTEGRATIONS, json=BODY | {"signing": True}, headers=key)

    assert problem_of(lost) == (503, "broker_unavailable")
    assert again.status_code == 201
    created = again.json()["id"]
    assert (created == tried[0]) is is_stored
    opened = open_integration(admin.config.integrations.get(created), Keyring(KEK))
    assert again.json()["signingSecret"] == opened.signing[0][0]
    assert len((await api.get(INTEGRATIONS)).json()["items"]) == 1


async def test_a_create_that_was_deleted_is_not_made_again_under_its_key(api):
    key = {"Idempotency-Key": "k-1"}
    created = (await api.post(INTEGRATIONS, json=BODY, headers=key)).json()["id"]
    await api.delete(f"{INTEGRATIONS}/{created}")

    assert problem_of(await api.post(INTEGRATIONS, json=BODY, headers=key)) == (409, "idempotency_key_spent")


async def test_an_integration_is_changed_and_its_history_goes_back(api):
    created = await api.post(INTEGRATIONS, json=BODY)
    path = created.headers["Location"]
    changed = await api.patch(path, json={"name": "Other", "secrets": {"token": "NEXT"}}, headers={"If-Match": '"1"'})
    stale = await api.patch(path, json={"name": "Third"}, headers={"If-Match": '"1"'})
    same = await api.patch(path, json={"name": "Other"})
    signed = await api.patch(path, json={"signing": True})
    refused = await api.patch(path, json={"url": "nowhere"})
    back = await api.post(f"{path}/rollback", json={"version": 1})
    history = (await api.get(f"{path}/history")).json()["items"]
    first = (await api.get(f"{path}/history/1")).json()
    diff = (await api.get(f"{path}/diff", params={"from": 1})).json()

    assert (created.headers["ETag"], changed.headers["ETag"]) == ('"1"', '"2"')
    assert (changed.json()["name"], changed.json()["version"]) == ("Other", 2)
    assert problem_of(stale) == (412, "version_mismatch")
    assert same.json() == changed.json()
    assert signed.json()["signingSecret"].startswith("whsec_")
    assert problem_of(refused) == (400, "invalid_fields")
    assert (back.json()["name"], back.json()["version"], back.json()["signing"]) == ("CRM", 4, False)
    assert [(each["version"], each["updatedBy"]) for each in history] == [(number, "up") for number in (4, 3, 2, 1)]
    assert {each["field"] for each in history[2]["changes"]} == {"name", "secrets.token"}
    assert first["name"] == "CRM"
    assert (diff["from"], diff["to"]) == (1, 4)
    assert {each["field"] for each in diff["changes"]} == {"secrets.token", "signingSecret"}
    for missing in (f"{path}/history/9", f"{path}/history/x", f"{path}/diff?from=9"):
        assert problem_of(await api.get(missing)) == (404, "version_unknown")
    assert problem_of(await api.get(f"{path}/diff")) == (400, "invalid_query")
    assert problem_of(await api.post(f"{path}/rollback", json={"version": "1"})) == (400, "invalid_fields")


async def test_the_audit_log_is_listed_newest_first_and_filtered(api):
    path = (await api.post(INTEGRATIONS, json=BODY)).headers["Location"]
    for action in ("pause", "activate", "pause"):
        await api.post(f"{path}/{action}")
    listed = (await api.get("/v1/apps/demo/audit")).json()["items"]
    pages = [(await api.get("/v1/apps/demo/audit", params={"limit": 3})).json()]
    pages.append((await api.get("/v1/apps/demo/audit", params={"limit": 3, "cursor": pages[0]["next"]})).json())
    pauses = (await api.get("/v1/apps/demo/audit", params={"action": "integration.pause"})).json()["items"]
    since = (await api.get("/v1/apps/demo/audit", params={"since": listed[1]["at"], "until": listed[0]["at"]})).json()

    actions = ["integration.pause", "integration.activate", "integration.pause", "integration.create"]
    assert [each["action"] for each in listed] == actions
    assert [each["previousHash"] for each in listed[:-1]] == [each["hash"] for each in listed[1:]]
    assert pages[0]["items"] + pages[1]["items"] == listed
    assert pages[1]["next"] is None
    assert len(pauses) == 2
    assert listed[0] not in since["items"]
    assert problem_of(await api.get("/v1/apps/demo/audit", params={"since": "yesterday"})) == (400, "invalid_query")


async def test_an_idempotency_key_that_is_none_is_refused(api):
    for key in ("", "x" * 256, "\u00e4"):
        refused = await api.post(INTEGRATIONS, json=BODY, headers=[("Idempotency-Key", key.encode())])
        assert problem_of(refused) == (400, "invalid_header"), key


async def test_a_list_comes_in_pages(api):
    ids = [(await api.post(SUBSCRIPTIONS, json=BODY | {"events": []})).json()["id"] for _ in range(5)]
    pages, cursor = [], ""
    while cursor is not None:
        page = (await api.get(SUBSCRIPTIONS, params={"limit": 2, "cursor": cursor})).json()
        pages.append([item["id"] for item in page["items"]])
        cursor = page["next"]

    assert pages == [ids[:2], ids[2:4], ids[4:]]
    assert (await api.get(SUBSCRIPTIONS, params={"limit": 5})).json()["next"] is None


async def test_a_limit_that_is_none_is_refused(api):
    for limit in ("0", "201", "-1", "x", "", "9" * 5000):
        assert problem_of(await api.get(INTEGRATIONS, params={"limit": limit})) == (400, "invalid_query"), limit


async def test_a_body_that_is_not_json_is_refused(api):
    for content in (b"", b"{", b"\xff", b'{"a":1}x', b"[" * 100_000, b'{"name":"\\ud800"}'):
        assert problem_of(await api.post(INTEGRATIONS, content=content)) == (400, "invalid_json"), content[:9]


async def test_all_fields_to_correct_are_named_and_no_value_is_repeated(api):
    refused = await api.post(INTEGRATIONS, json=BODY | {"url": "nope", "secrets": {"a": "hunter2\n"}, "colour": 1})
    named = {error["field"] for error in refused.json()["errors"]}

    assert problem_of(refused) == (400, "invalid_fields")
    assert {"url", "secrets.a", "colour"} <= named
    assert refused.json()["field"] == refused.json()["errors"][0]["field"]
    assert "hunter2" not in refused.text
    assert "nope" not in refused.text


async def test_a_body_above_a_mebibyte_is_refused(api):
    assert problem_of(await api.post(INTEGRATIONS, content=b" " * 1_048_577)) == (413, "request_too_large")


async def test_tokens_and_roles_are_held_to(kafka_connection):
    await furnish(kafka_connection)
    tokens = [make_token("tok_viewer", "viewer"), make_token("tok_operator", "operator"), make_token("tok_a", "admin")]
    await put_apps(
        kafka_connection,
        make_app("shop", tokens=tokens),
        make_app("other", tokens=[make_token("tok_other", "admin")]),
    )
    shop = "/v1/apps/shop/integrations"
    async with admin_at(kafka_connection) as admin, client_of(admin, None) as api:

        async def ask(token, method="GET", path=shop, **request):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            return await api.request(method, path, headers=headers, **request)

        created = (await ask("tok_a", "POST", json=BODY)).json()
        one = f"{shop}/{created['id']}"

        assert problem_of(await ask(None)) == (401, "token_missing")
        assert problem_of(await ask("tok_nobody")) == (401, "token_unknown")
        assert problem_of(await ask("tok_other")) == (401, "token_unknown")
        assert problem_of(await ask("sk_test_secret")) == (401, "token_unknown")
        assert problem_of(await ask("tok_a", path="/v1/apps/nowhere/integrations")) == (401, "token_unknown")
        assert problem_of(await ask(KNOWN.token, path="/v1/apps/nowhere/integrations")) == (404, "app_unknown")
        assert problem_of(await ask(KNOWN.token, path="/v1/apps/*/integrations")) == (404, "app_unknown")
        for reader in ("tok_viewer", "tok_operator"):
            assert (await ask(reader)).json()["items"] == (await ask(KNOWN.token)).json()["items"] == [created]
            assert (await ask(reader, path=one)).status_code == 200
            assert problem_of(await ask(reader, "POST", json=BODY)) == (403, "role_insufficient")
            assert problem_of(await ask(reader, "DELETE", one)) == (403, "role_insufficient")
        assert (await ask("tok_other")).headers["WWW-Authenticate"] == "Bearer"
        assert admin.config.integrations.get(created["id"]).updated_by == "a"


async def test_a_token_that_was_taken_away_opens_nothing_any_more(kafka_connection):
    await furnish(kafka_connection)
    await put_apps(kafka_connection, make_app("shop", tokens=[make_token("tok_a", "admin")]))
    async with admin_at(kafka_connection) as admin, client_of(admin, "tok_a") as api:
        assert (await api.get("/v1/apps/shop/integrations")).status_code == 200
        await put_apps(kafka_connection, make_app("shop", tokens=[]))
        assert problem_of(await api.get("/v1/apps/shop/integrations")) == (401, "token_unknown")


async def test_what_one_admin_service_wrote_another_shows_at_once(connection: Connection):
    await furnish(connection)
    async with (
        admin_at(connection) as one,
        admin_at(connection) as other,
        client_of(one) as here,
        client_of(other) as there,
    ):
        for _ in range(3):
            created = (await here.post(INTEGRATIONS, json=BODY)).json()
            path = f"{INTEGRATIONS}/{created['id']}"
            assert (await there.get(path)).json() == created
            assert (await there.delete(path)).status_code == 204
            assert problem_of(await here.get(path)) == (404, "integration_unknown")


async def test_a_restart_shows_what_was_there(kafka_connection):
    await furnish(kafka_connection)
    async with admin_at(kafka_connection) as admin, client_of(admin) as api:
        created = (await api.post(INTEGRATIONS, json=BODY)).json()
    async with admin_at(kafka_connection) as admin, client_of(admin) as api:
        assert (await api.get(INTEGRATIONS)).json()["items"] == [created]


async def test_without_a_broker_the_port_is_open_and_every_request_hears_503(unused_tcp_port):
    nowhere = Connection(f"127.0.0.1:{unused_tcp_port}", "t.")
    stop = asyncio.Event()
    port = await _free_port()
    running = asyncio.ensure_future(main(admin_settings(nowhere, admin={"port": port}), stop))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as api:
        live, ready, refused = await _first_answers(api)
    stop.set()
    await running

    assert (live.status_code, ready.status_code) == (200, 503)
    assert "has not been read" in ready.json()["reason"]
    assert problem_of(refused) == (503, "broker_unavailable")
    assert refused.headers["Retry-After"]


async def _free_port():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        return server.sockets[0].getsockname()[1]


async def _first_answers(api):
    for _ in range(200):
        try:
            return (
                await api.get("/health/live"),
                await api.get("/health/ready"),
                await api.get(INTEGRATIONS, headers={"Authorization": "Bearer t"}),
            )
        except httpx.ConnectError:
            await asyncio.sleep(0.01)
    raise AssertionError("the port did not open")


@pytest.mark.kafka
async def test_a_broker_that_goes_away_is_a_503_and_its_return_is_met(kafka_broker, kafka_connection, monkeypatch):
    monkeypatch.setattr(config_log, "PATIENCE_S", 1.0)
    monkeypatch.setattr(changes, "GIVE_UP_MS", 500)
    monkeypatch.setattr(changes, "PATIENCE_S", 1.0)
    await furnish(kafka_connection)
    async with admin_at(kafka_connection) as admin, client_of(admin) as api:
        created = (await api.post(INTEGRATIONS, json=BODY)).json()
        kafka_broker.kill()
        refused = await api.get(INTEGRATIONS)
        with pytest.raises(Problem, match="broker_unavailable"):
            await admin.commands.pause("demo", INTEGRATION, created["id"], CALLER)
        await kafka_broker.start()

        assert problem_of(refused) == (503, "broker_unavailable")
        async with asyncio.timeout(20):
            while (listed := await api.get(INTEGRATIONS)).status_code != 200:
                assert problem_of(listed) == (503, "broker_unavailable")
        assert listed.json()["items"] == [created]
        async with asyncio.timeout(30):
            while (again := await api.post(INTEGRATIONS, json=BODY)).status_code != 201:
                assert problem_of(again) == (503, "broker_unavailable")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kek": None}, "openssl rand -base64 32"),
        ({"kek": "c2hvcnQ="}, "holds 5 bytes"),
    ],
)
async def test_without_a_usable_kek_it_does_not_start(kafka_connection, changes, said):
    with pytest.raises(StartupError, match=said):
        await main(admin_settings(kafka_connection, **changes), asyncio.Event())


async def test_on_topics_of_another_shape_it_does_not_start(kafka_connection):
    await ensure(kafka_connection, Partitions(by_app=2, by_integration=1))

    with pytest.raises(StartupError, match="partitions"):
        await asyncio.wait_for(main(admin_settings(kafka_connection), asyncio.Event()), 20)


async def test_health_and_metrics_answer(api):
    assert (await api.get("/health/live")).status_code == 200
    assert (await api.get("/health/ready")).json() == {"ready": True, "reason": None}
    assert (await api.get("/metrics")).status_code == 200
    assert problem_of(await api.get("/nowhere")) == (404, "not_found")
    assert problem_of(await api.put(INTEGRATIONS)) == (405, "method_not_allowed")


async def test_the_first_token_of_an_installation_is_made_at_the_log_and_only_the_first(kafka_connection, monkeypatch):
    await ensure(kafka_connection, PARTITIONS)
    settings = admin_settings(kafka_connection)
    monkeypatch.setattr("services.cli.tokens.load_settings", lambda: settings)
    async with admin_at(kafka_connection) as admin:
        made = await _first(kafka_connection, "ops")
        with pytest.raises(Failed, match="not_first"):
            await _first(kafka_connection, "again")
        async with client_of(admin, made["token"]) as api:
            created = await api.post("/v1/apps", json={"id": "shop"})
            told = (await api.get("/v1/audit")).json()["items"]

    assert created.status_code == 201
    assert [(each["action"], each["who"]) for each in told] == [("token.create", "command")]
