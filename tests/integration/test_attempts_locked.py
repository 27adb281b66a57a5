"""Attempts whose secrets want a key: one that is to come, one that this process has not, one that is gone for good."""

import asyncio

import msgspec
import pytest
from structlog.testing import capture_logs

from services.dispatcher.attempt import LOCKED_ALARM_MS, Attempts
from services.dispatcher.pacing import Pacing
from services.dispatcher.sender import Answer, MaySend, Request, Unsent, always
from services.dispatcher.together import Together
from services.vault.data_keys import ERASED
from services.vault.rewrap import rewrapped
from services.vault.seal import Keyring
from streams import codec
from streams.engine.processor import ReadAt
from streams.states import States
from streams.views import Apps, Integrations
from tests.apps import make_app
from tests.records import make_delivery, make_integration
from tests.sealing import BOTH, KEYRING, NEW_KEK, app_with_key, keys_of, random, sealed_integration

READ_AT = ReadAt(0, 0, 1)


class Asked:
    """A sender that answers 200 and notes what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def send(self, request: Request, may_send: MaySend = always) -> Answer:
        assert may_send()
        self.requests.append(request)
        return Answer(status=200)

    async def close(self) -> None:
        """Nothing is open."""


class Bench:
    def __init__(self, keyring=KEYRING):
        self.sender, self.now_ms = Asked(), 1_000
        self.integrations, self.apps = Integrations(), Apps()
        self._offset = 0
        self.attempts = Attempts(
            config=None,
            integrations=self.integrations,
            apps=self.apps,
            states=States(),
            keyring=keyring,
            sender=self.sender,
            brand="X-Brand",
            version="0",
            now_ms=lambda: self.now_ms,
            together=Together(Pacing()),
        )

    def meet(self, *records):
        """As the followers do."""
        for record in records:
            view, key = (self.apps, record.app) if hasattr(record, "origins") else (self.integrations, record.id)
            view.apply(key.encode(), codec.encode(record), self._offset)
            self._offset += 1

    @property
    def is_locked(self):
        return self.attempts.is_locked("int_1")

    async def attempt(self):
        return await self.attempts.attempt(make_delivery(integration="int_1"), READ_AT, always)

    def sent(self, name="X-Key"):
        return [dict(request.headers)[name] for request in self.sender.requests]


APP = app_with_key()
CONFIG = sealed_integration(keys_of(APP), headers={"X-Key": "Bearer {secret.token}"}, secrets={"token": "t-1"})


async def test_with_the_app_s_data_key_its_secrets_are_sent():
    bench = Bench()
    bench.meet(APP, CONFIG)

    assert not bench.is_locked
    assert (await bench.attempt()).outcome == "delivered"
    assert bench.sent() == ["Bearer t-1"]


async def test_an_integration_met_before_its_app_s_data_key_waits_for_it():
    bench = Bench()
    bench.meet(CONFIG)
    assert bench.is_locked
    bench.meet(make_app())
    assert bench.is_locked
    bench.meet(APP)

    assert not bench.is_locked
    assert (await bench.attempt()).outcome == "delivered"


async def test_one_without_anything_sealed_waits_for_nothing():
    bench = Bench()
    bench.meet(sealed_integration(KEYRING))
    assert not bench.is_locked
    assert not bench.attempts.is_locked("int_deleted")


async def test_a_kek_that_this_process_has_not_is_waited_for_too():
    """By its restart: blocking what customers are owed for a fault of ours would be final."""
    without, both = Bench(Keyring(NEW_KEK)), Bench(BOTH)
    for bench in (without, both):
        bench.meet(APP, CONFIG)

    assert (without.is_locked, both.is_locked) == (True, False)


async def test_what_waits_is_an_alarm_once_after_a_while():
    bench = Bench()
    bench.meet(CONFIG)
    with capture_logs() as lines:
        assert bench.is_locked
        bench.now_ms += LOCKED_ALARM_MS - 1
        assert bench.is_locked
        assert lines == []
        for _ in range(3):
            bench.now_ms += LOCKED_ALARM_MS
            assert bench.is_locked
        assert [(line["event"], line["log_level"], line["integration"]) for line in lines] == [
            ("secrets.locked", "error", "int_1")
        ]
        assert APP.data_keys[0].id in lines[0]["reason"]
        bench.meet(APP)
        assert not bench.is_locked
        bench.meet(make_app())
        bench.now_ms += 1
        assert bench.is_locked
        assert len(lines) == 1


async def test_an_erased_key_blocks_with_its_reason_and_nothing_is_sent():
    gone = make_app(data_keys=[msgspec.structs.replace(APP.data_keys[0], wrapped=ERASED)])
    bench = Bench()
    bench.meet(gone, CONFIG)

    assert not bench.is_locked
    result = await bench.attempt()
    assert (result.outcome, result.reason, result.attempt) == ("blocked", "secrets_erased", 0)
    assert APP.data_keys[0].id in result.detail
    assert bench.sender.requests == []


async def test_an_erasure_is_met_by_the_next_attempt_though_the_secrets_were_open():
    bench = Bench()
    bench.meet(APP, CONFIG)
    await bench.attempt()
    bench.meet(make_app(data_keys=[msgspec.structs.replace(APP.data_keys[0], wrapped=ERASED)]))

    assert (await bench.attempt()).reason == "secrets_erased"
    assert len(bench.sender.requests) == 1


async def test_a_value_that_was_changed_is_no_key_that_is_late():
    """No key that comes mends it: the attempt raises, and the delivery is put aside."""
    spoilt = dict(CONFIG.headers)
    spoilt["X-Key"] = spoilt["X-Key"][:-1] + bytes([spoilt["X-Key"][-1] ^ 1])
    bench = Bench()
    bench.meet(APP, msgspec.structs.replace(CONFIG, headers=spoilt))

    assert not bench.is_locked
    [raised] = await asyncio.gather(bench.attempt(), return_exceptions=True)
    assert type(raised).__name__ == "Unsealable"


async def test_a_rewrap_is_met_without_a_pause():
    bench = Bench(BOTH)
    bench.meet(APP, CONFIG)
    await bench.attempt()
    after = rewrapped(APP, [CONFIG], keyring=BOTH, random=random, now_ms=0, who="ops").app
    assert after.data_keys != APP.data_keys
    bench.meet(after)

    assert not bench.is_locked
    assert (await bench.attempt()).outcome == "delivered"
    assert bench.sent() == ["Bearer t-1", "Bearer t-1"]


async def test_of_a_configuration_that_cannot_be_read_nothing_is_sent_and_nothing_ended_until_there_is_one():
    bench = Bench()
    bench.meet(APP)
    assert bench.attempts.standing("int_1") == "discard"
    bench.integrations.apply(b"int_1", b"garbage", 7)

    assert bench.attempts.standing("int_1") == "hold"
    assert not bench.is_locked
    with pytest.raises(Unsent):
        await bench.attempt()

    bench.meet(CONFIG)
    assert bench.attempts.standing("int_1") == "send"
    assert (await bench.attempt()).outcome == "delivered"


@pytest.mark.parametrize("records", [[b"garbage"], []], ids=["not to be read", "lost"])
async def test_while_its_app_is_not_known_only_what_needs_the_app_waits(records):
    """Whether it allows http:// is not known; https:// is allowed to everybody."""
    bench = Bench()
    for record in records:
        bench.apps.apply(b"demo", record, 0)
    bench.meet(make_integration("int_1", url="http://crm.example/hooks"))
    assert bench.is_locked
    bench.meet(make_integration("int_1", version=2))
    assert not bench.is_locked
    assert (await bench.attempt()).outcome == "delivered"

    bench.meet(make_integration("int_1", version=3, url="http://crm.example/hooks"))
    assert bench.is_locked
    bench.meet(make_app(allow_http=False))
    assert not bench.is_locked
    assert (await bench.attempt()).reason == "url_refused"
