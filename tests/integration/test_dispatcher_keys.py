"""The dispatcher and its keys, on Apache Kafka and real HTTP: late, replaced, wrong, and gone."""

import asyncio

import pytest

from services.runtime.serving import StartupError
from services.vault.rewrap import erased, rewrapped
from services.vault.seal import Keyring
from streams.connection import Connection
from tests.apps import make_app
from tests.dispatching import dispatching
from tests.logs import log_of, make_event
from tests.receiving import receiver
from tests.sealing import BOTH, KEK, KEYRING, NEW_KEK, app_with_key, keys_of, random, sealed_integration
from tests.waiting import eventually

pytestmark = pytest.mark.kafka

CHANGE = {"random": random, "now_ms": 5_000, "who": "ops"}
HEADERS = {"X-Token": "Bearer {secret.token}"}
SECRETS = {"token": "t-1"}


def integration(to, sealer, name="int_1", app="demo", **changes):
    return sealed_integration(
        sealer, name, app, url=f"{to.endpoint.url}/{name}", headers=HEADERS, secrets=SECRETS, **changes
    )


def tokens(to, name="int_1"):
    return {arrival.request.header("X-Token") for arrival in to.arrivals[name]}


def ended(results, name="int_1"):
    return [(each.outcome, each.reason, each.attempt) for each in results if each.integration == name]


async def test_an_app_s_data_key_that_comes_later_is_waited_for_in_order_and_through_a_restart(
    kafka_connection: Connection,
):
    app = app_with_key()
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.integration(integration(to, keys_of(app)))
        await log.integration(to.integration("int_plain"))
        async with dispatching(kafka_connection):
            await log.events(*(make_event(number) for number in range(5)))
            await to.wait_for("int_plain", 5)
            await asyncio.sleep(0.3)  # as long as it would take to send, or to block, the others
            assert to.arrivals["int_1"] == []
        # Drained: nothing of it was under way. Its successor waits too.
        async with dispatching(kafka_connection):
            await log.events(make_event(5))
            await to.wait_for("int_plain", 6)
            assert to.arrivals["int_1"] == []
            await log.app(app)
            await to.wait_for("int_1", 6)
            await log.results_come(12)
            await eventually(log.all_is_committed)

        assert to.numbers("int_1") == list(range(6))
        assert ended(log.results) == 6 * [("delivered", "status_200", 1)]
        assert tokens(to) == {"Bearer t-1"}
        assert log.quarantined == []


async def test_the_kek_is_replaced_while_everything_is_delivered(kafka_connection: Connection):
    app = app_with_key()
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.app(app)
        configs = [integration(to, keys_of(app), "int_1"), integration(to, KEYRING, "int_old")]
        for config in configs:
            await log.integration(config)
        async with dispatching(kafka_connection, keks=(NEW_KEK, KEK)):
            await log.events(*(make_event(number) for number in range(20)))
            written = rewrapped(app, configs, keyring=BOTH, **CHANGE)
            # The worse order: what is sealed under a new data key is met before it.
            for config in written.integrations:
                await log.integration(config)
            await log.events(*(make_event(number) for number in range(20, 40)))
            await log.app(written.app)
            await log.results_come(80)
        async with dispatching(kafka_connection, keks=(NEW_KEK,)):
            await log.events(make_event(40))
            await log.results_come(82)
            await eventually(log.all_is_committed)

        assert [config.id for config in written.integrations] == ["int_old"]
        for name in ("int_1", "int_old"):
            assert to.numbers(name) == list(range(41))
            assert ended(log.results, name) == 41 * [("delivered", "status_200", 1)]
            assert tokens(to, name) == {"Bearer t-1"}
        with pytest.raises(StartupError, match=Keyring(NEW_KEK).key_id.hex()):
            async with dispatching(kafka_connection, keks=(KEK,)):
                pass


@pytest.mark.parametrize("form", ["data key", "kek"])
async def test_with_another_kek_than_secrets_were_sealed_under_it_does_not_start(
    kafka_connection: Connection, form: str
):
    app = app_with_key() if form == "data key" else make_app()
    async with log_of(kafka_connection) as log, receiver() as to:
        await log.app(app)
        await log.integration(integration(to, keys_of(app)))
        await log.events(make_event())
        both = f"{KEYRING.key_id.hex()}.*{Keyring(NEW_KEK).key_id.hex()}"
        with pytest.raises(StartupError, match=both):
            async with dispatching(kafka_connection, keks=(NEW_KEK,)):
                pytest.fail("it was ready")
        assert (log.results, log.receipts) == ([], [])


async def test_after_an_erasure_nothing_of_the_app_is_sent_with_a_secret(kafka_connection: Connection):
    app, other = app_with_key(), app_with_key("other")
    async with log_of(kafka_connection) as log, receiver() as to:
        for each in (app, other):
            await log.app(each)
        config = integration(to, keys_of(app))
        await log.integration(config)
        await log.integration(to.integration("int_plain"))
        await log.integration(integration(to, keys_of(other), "int_other", "other"))
        async with dispatching(kafka_connection):
            await log.events(make_event(0), make_event(1, app="other"))
            await log.results_come(3)
            await log.app(erased(app, [config], keyring=KEYRING, **CHANGE).app)

            async def is_met():
                before = len(log.results)
                await log.events(make_event(2))
                await log.results_come(before + 2)
                return ended(log.results)[-1] == ("blocked", "secrets_erased", 0)

            await eventually(is_met)
            arrived = len(to.arrivals["int_1"])
            await log.events(make_event(3), make_event(4, app="other"))
            await to.wait_for("int_other", 2)
            await eventually(lambda: 3 in to.numbers("int_plain"))
            await eventually(log.all_is_committed)

        assert len(to.arrivals["int_1"]) == arrived
        assert ended(log.results)[-1] == ("blocked", "secrets_erased", 0)
        assert log.quarantined == []
