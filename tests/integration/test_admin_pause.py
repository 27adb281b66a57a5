"""Pausing and activating over real HTTP, on real brokers; what is held is written as dispatchers write it."""

import asyncio
import json

import pytest

from services.admin.audit import FIRST, hash_of_record
from services.cli.access import AdminOptions
from services.cli.errors import Failed, WrongUsage
from services.cli.integrations import versions
from services.cli.integrations.existing import activate, pause
from streams import codec
from streams.follower import Follower
from streams.lane_rows import MARKER_KEY, row_key
from streams.producer import open_producer
from streams.records import AuditRecord, Event, IntegrationState, LaneRow, Marker
from streams.topics import (
    AUDIT,
    EVENTS,
    INTEGRATION_CONFIG,
    INTEGRATION_STATE,
    LANE_ROWS,
)
from streams.views import Integrations
from tests.admins import KNOWN, admin_at, client_of, furnish, make_token, put_apps
from tests.apps import make_app
from tests.integration.test_admin_api import INTEGRATIONS, SUBSCRIPTIONS, problem_of, records
from tests.waiting import eventually

BODY = {"name": "CRM", "url": "https://crm.example/hooks", "events": ["call_ended"]}


class Written:
    """What dispatchers and the breaker would write."""

    def __init__(self, connection, producer):
        self._connection = connection
        self._producer = producer

    async def _put(self, topic, key, record):
        value = None if record is None else codec.encode(record)
        await self._producer.send_and_wait(self._connection.topic(topic), value, key=key, partition=0)

    async def marker(self, generation):
        name = self._connection.topic(LANE_ROWS)
        marker = Marker(source_topic=name, source_partition=0, generation=generation, owner="w", at_ms=0)
        await self._put(LANE_ROWS, MARKER_KEY, marker)

    async def held(self, integration, count, *, generation=1, oldest_at_ms=None):
        row = LaneRow(
            integration=integration,
            app="demo",
            generation=generation,
            reason="paused",
            frontier=0,
            open=[],
            held=count,
            oldest_at_ms=oldest_at_ms,
        )
        await self._put(LANE_ROWS, row_key(integration, generation), row)

    async def none_held(self, integration, *, generation=1):
        await self._put(LANE_ROWS, row_key(integration, generation), None)

    async def breaker(self, integration, *, epoch, state="paused"):
        said = IntegrationState(
            integration=integration,
            app="demo",
            state=state,
            epoch=epoch,
            consecutive_failures=20,
            delivered=0,
            ended=20,
            applied_offset=0,
        )
        await self._put(INTEGRATION_STATE, integration.encode(), said)


@pytest.fixture
async def written(kafka_connection):
    await furnish(kafka_connection)
    producer = await open_producer(kafka_connection, client_id="test")
    yield Written(kafka_connection, producer)
    await producer.stop()


@pytest.fixture
async def admin(kafka_connection, written):
    async with admin_at(kafka_connection) as running:
        yield running


@pytest.fixture
async def api(admin):
    async with client_of(admin) as client:
        yield client


async def made(api, path=INTEGRATIONS, **changes):
    answer = await api.post(path, json=BODY | changes)
    assert answer.status_code == 201, answer.text
    return f"{path}/{answer.json()['id']}"


def id_of(path):
    return path.rpartition("/")[2]


async def row_is_seen(admin, path, count):
    await eventually(lambda: admin.config.rows.get(id_of(path)) and admin.config.rows.get(id_of(path)).held == count)


async def test_a_pause_and_an_activation_are_versions_and_the_activation_an_epoch(api):
    path = await made(api)
    paused = await api.post(f"{path}/pause")
    again = await api.post(f"{path}/pause")

    assert paused.status_code == 200
    assert paused.json() == again.json() == (await api.get(path)).json()
    assert {name: paused.json()[name] for name in ("status", "statusReason", "version", "epoch")} == {
        "status": "paused",
        "statusReason": "paused by up",
        "version": 2,
        "epoch": 1,
    }

    active = await api.post(f"{path}/activate")
    again = await api.post(f"{path}/activate", json={"held": "skip"})

    assert active.status_code == 200
    assert active.json() == again.json() == (await api.get(path)).json()
    assert {name: active.json()[name] for name in ("status", "statusReason", "version", "epoch")} == {
        "status": "active",
        "statusReason": None,
        "version": 3,
        "epoch": 2,
    }


async def test_a_subscription_is_paused_under_its_own_path(api):
    path = await made(api, SUBSCRIPTIONS, events=["scheduled.created"])

    assert problem_of(await api.post(path.replace("subscriptions", "integrations") + "/pause"))[0] == 404
    assert (await api.post(f"{path}/pause")).json()["status"] == "paused"
    assert (await api.post(f"{path}/activate")).json()["status"] == "active"
    assert problem_of(await api.post(f"{INTEGRATIONS}/int_none/activate")) == (404, "integration_unknown")


async def test_what_is_held_has_to_be_decided_on_once(api, admin, written):
    path = await made(api)
    await api.post(f"{path}/pause")
    await written.marker(1)
    await written.held(id_of(path), 17)
    await row_is_seen(admin, path, 17)

    asked = await api.post(f"{path}/activate")
    assert problem_of(asked) == (409, "held_choice_required")
    assert asked.json()["held"] == 17
    assert problem_of(await api.post(f"{path}/activate", json={"held": "maybe"})) == (400, "invalid_fields")
    assert (await api.get(path)).json()["version"] == 2

    active = await api.post(f"{path}/activate", json={"held": "skip"})
    assert (active.status_code, active.json()["epoch"]) == (200, 2)
    config = admin.config.integrations.get(id_of(path))
    assert (config.skip_before, config.from_before) == (admin.config.integrations.changed_at(id_of(path)) + 1, 0)

    await api.post(f"{path}/pause")
    assert problem_of(await api.post(f"{path}/activate")) == (409, "held_choice_required")
    since = await api.post(f"{path}/activate", json={"held": {"from": "2026-01-02T03:04:05Z"}})
    assert since.status_code == 200
    config = admin.config.integrations.get(id_of(path))
    assert config.from_before == admin.config.integrations.changed_at(id_of(path)) + 1 > config.skip_before
    assert config.from_ms == 1_767_323_045_000


async def test_rows_of_replaced_owners_do_not_count_and_deleted_ones_hold_nothing(api, admin, written):
    path = await made(api)
    await api.post(f"{path}/pause")
    await written.marker(2)
    await written.held(id_of(path), 5, generation=2)
    await written.held(id_of(path), 99, generation=1)
    await row_is_seen(admin, path, 5)
    assert (await api.post(f"{path}/activate")).json()["held"] == 5

    await written.none_held(id_of(path), generation=2)
    await eventually(lambda: admin.config.rows.get(id_of(path)) is None)
    assert (await api.post(f"{path}/activate")).status_code == 200


async def test_rows_of_before_the_start_are_read_before_it_is_ready(kafka_connection, written):
    await written.marker(1)
    await written.held("int_a", 3)
    async with admin_at(kafka_connection) as admin:
        assert admin.config.rows.get("int_a").held == 3


async def test_the_queue_s_age_is_that_of_the_oldest_record_that_is_not_finished(api, admin, written):
    path = await made(api)
    assert (await api.get(path)).json()["queueAgeMs"] is None
    await written.held(id_of(path), 1, oldest_at_ms=1)
    await row_is_seen(admin, path, 1)

    assert (await api.get(path)).json()["queueAgeMs"] > 1_700_000_000_000


async def test_an_activation_ends_a_pause_of_the_breaker_since_its_epoch_is_over(api, written, admin):
    path = await made(api)
    await written.breaker(id_of(path), epoch=1)
    active = (await api.post(f"{path}/activate")).json()

    assert active["epoch"] == 2
    assert not admin.config.states.is_paused(admin.config.integrations.get(id_of(path)))
    assert (await api.post(f"{path}/activate")).json()["epoch"] == 2

    await written.breaker(id_of(path), epoch=2, state="failing")
    assert (await api.post(f"{path}/activate")).json()["epoch"] == 2


async def test_what_is_paused_takes_no_place_and_needs_one_again(api, written):
    paths = [await made(api) for _ in range(3)]
    assert problem_of(await api.post(INTEGRATIONS, json=BODY)) == (409, "quota_exceeded")

    await written.breaker(id_of(paths[0]), epoch=1)
    paths.append(await made(api))
    assert problem_of(await api.post(f"{paths[0]}/activate")) == (409, "quota_exceeded")

    await api.post(f"{paths[1]}/pause")
    assert (await api.post(f"{paths[0]}/activate")).status_code == 200
    assert problem_of(await api.post(f"{paths[1]}/activate")) == (409, "quota_exceeded")


async def test_an_operator_pauses_and_activates_and_a_viewer_does_not(kafka_connection, written):
    tokens = [make_token(f"tok_{role}", role) for role in ("viewer", "operator", "admin")]
    await put_apps(kafka_connection, make_app("demo", tokens=tokens))
    async with admin_at(kafka_connection) as admin, client_of(admin, None) as api:

        async def ask(token, path):
            return await api.post(path, json=BODY, headers={"Authorization": f"Bearer {token}"})

        created = await ask("tok_admin", INTEGRATIONS)
        path = f"{INTEGRATIONS}/{created.json()['id']}"
        for verb in ("pause", "activate"):
            assert problem_of(await ask("tok_viewer", f"{path}/{verb}")) == (403, "role_insufficient")
        assert (await ask("tok_operator", f"{path}/pause")).json()["statusReason"] == "paused by operator"


async def test_every_change_is_on_the_audit_log_in_one_chain(kafka_connection, api):
    path = await made(api)
    await api.post(f"{path}/pause")
    await api.post(f"{path}/pause")
    await api.post(f"{path}/activate", json={"held": {"from": "2026-01-02T03:04:05Z"}})
    await api.delete(path)
    found = [codec.decode_as(AuditRecord, value) for _, value in await records(kafka_connection, AUDIT)]

    assert [(each.action, each.details) for each in found] == [
        ("integration.create", {"profile": "integration", "version": "1"}),
        ("integration.pause", {"version": "2"}),
        ("integration.activate", {"version": "3", "epoch": "2", "held": "from", "from": "2026-01-02T03:04:05.000Z"}),
        ("integration.delete", {}),
    ]
    assert {(each.who, each.ip, each.target, each.allowed) for each in found} == {
        ("up", "127.0.0.1", id_of(path), True)
    }
    assert [each.previous_hash for each in found] == [FIRST, *(each.hash for each in found[:-1])]
    assert all(each.hash == hash_of_record(each) for each in found)


async def test_a_pause_and_an_activation_are_events_of_the_app(kafka_connection, api):
    path = await made(api)
    await api.post(f"{path}/pause")
    await api.post(f"{path}/pause")
    await api.post(f"{path}/activate", json={"held": "skip"})
    await api.post(f"{path}/activate")
    [(_, pause_value), (key, value)] = await records(kafka_connection, EVENTS)
    pause_event, event = (codec.decode_as(Event, each) for each in (pause_value, value))

    assert (pause_event.app, pause_event.type) == ("demo", "tenterhook.integration.paused")
    told = json.loads(pause_event.payload)
    assert (told["integration"], told["status"], told["by"]) == (id_of(path), "paused", "up")
    assert (told["reason"], told["consecutiveFailures"], told["epoch"]) == ("paused_by_person", 0, 1)
    assert (key, event.app, event.type) == (b"demo", "demo", "tenterhook.integration.activated")
    assert json.loads(event.payload) == {
        "integration": id_of(path),
        "name": "CRM",
        "profile": "integration",
        "status": "active",
        "held": "skip",
        "by": "up",
        "epoch": 2,
    }


async def test_an_integration_can_select_what_tells_of_the_others(api):
    assert (await made(api, events=["tenterhook.integration.activated"])).startswith(INTEGRATIONS)


async def test_the_command_pauses_and_activates(admin, api, written, capsys):
    path = await made(api)
    access = AdminOptions(app="demo", admin=admin.served.url, token=KNOWN.token)
    await asyncio.to_thread(pause, id_of(path), access=access)
    await written.held(id_of(path), 4)
    await row_is_seen(admin, path, 4)
    with pytest.raises(Failed, match="held_choice_required: 4 deliveries"):
        await asyncio.to_thread(activate, id_of(path), access=access)
    with pytest.raises(WrongUsage):
        activate(id_of(path), drain=True, skip=True, access=access)
    await asyncio.to_thread(activate, id_of(path), since="2026-01-02T03:04:05Z", access=access)

    config = admin.config.integrations.get(id_of(path))
    assert (config.status, config.epoch, config.from_ms) == ("active", 2, 1_767_323_045_000)
    told = [line for line in capsys.readouterr().out.splitlines() if " is " in line and line.startswith("int_")]
    assert told == [f"{id_of(path)} is paused (epoch 1)", f"{id_of(path)} is active (epoch 2)"]


async def test_the_command_changes_and_goes_back(admin, api, capsys):
    path = await made(api)
    integration = id_of(path)
    access = AdminOptions(app="demo", admin=admin.served.url, token=KNOWN.token)

    async def said(command, *given, **options):
        capsys.readouterr()
        await asyncio.to_thread(command, *given, access=access, **options)
        return json.loads(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("{")))

    first = await said(versions.show, integration, as_json=True)
    options = {"events": ("call_started,call_ended",), "header": ("X-Env=prod",), "secret": ("a=b",), "max_attempts": 2}
    changed = await said(versions.change, integration, **options, if_version=1, as_json=True)
    with pytest.raises(Failed, match="version_mismatch"):
        await asyncio.to_thread(versions.change, integration, name="x", if_version=1, access=access)
    with pytest.raises(WrongUsage):
        versions.change(integration, access=access)
    less = await said(versions.change, integration, no_header=("X-Env",), events=("",), as_json=True)
    told = await said(versions.history, integration, as_json=True)
    differs = await said(versions.diff, integration, 1, as_json=True)
    back = await said(versions.rollback, integration, 1, as_json=True)

    assert (first["version"], changed["version"], less["version"], back["version"]) == (1, 2, 3, 4)
    assert (changed["events"], changed["headers"], changed["retry"]["maxAttempts"]) == (
        ["call_started", "call_ended"],
        {"X-Env": "***"},
        2,
    )
    assert (less["events"], less["headers"]) == ([], {})
    assert [each["version"] for each in told["items"]] == [3, 2, 1]
    assert {"secrets.a", "events", "retry.maxAttempts"} <= {each["field"] for each in differs["changes"]}
    assert back["retry"] == first["retry"]


@pytest.mark.kafka
async def test_exactly_what_was_made_before_the_activation_was_met_is_skipped(kafka_connection):
    """Fan-out's step, in a loop through activations: catch up, then look who is there in which epoch."""
    await furnish(kafka_connection)
    view = Integrations()
    follower = Follower(kafka_connection, INTEGRATION_CONFIG, view.apply)
    await follower.start()
    seen: list[tuple[int, int]] = []

    async def fan_out(integration):
        while True:
            config_offset = await follower.catch_up()
            if (config := view.get(integration)) is not None:
                seen.append((config_offset, config.epoch))
            await asyncio.sleep(0)

    async with admin_at(kafka_connection) as admin, client_of(admin) as api:
        path, other = await made(api), await made(api)
        fanning = asyncio.create_task(fan_out(id_of(path)))
        limits = []
        for _ in range(5):
            await api.post(f"{path}/pause")
            # Other changes of other integrations come in between.
            answers = await asyncio.gather(
                api.post(f"{other}/pause"),
                api.post(f"{path}/activate", json={"held": "skip"}),
                api.post(f"{other}/activate"),
            )
            assert [answer.status_code for answer in answers] == [200] * 3
            config = admin.config.integrations.get(id_of(path))
            limits.append((config.skip_before, config.epoch))
            await asyncio.sleep(0.02)
        fanning.cancel()
        await asyncio.gather(fanning, return_exceptions=True)
    await follower.stop()

    assert {epoch for _, epoch in seen} == {1, 2, 3, 4, 5, 6}
    for skip_before, epoch in limits:
        wrong = [each for each in seen if (each[0] < skip_before) != (each[1] < epoch)]
        assert wrong == []
