"""`tenterhook doctor`: what it finds in a set-up that is well, and in those that are not."""

import ssl

from services.cli import doctor as command
from services.cli.doctor import _dialled, _found, _of_access, _of_url
from services.vault.data_keys import with_data_key
from services.vault.seal import Keyring
from streams.connection import Connection
from tests.admins import KEK, KNOWN, admin_at, admin_settings, furnish, put_apps
from tests.apps import make_app


def verdicts(findings):
    return {each.check: each.verdict for each in findings}


async def test_a_set_up_that_is_well_and_lacks_a_service(kafka_connection, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    await furnish(kafka_connection)
    async with admin_at(kafka_connection) as admin:
        port = int(admin.served.url.rpartition(":")[2])
        settings = admin_settings(kafka_connection)
        settings = settings.model_copy(
            update={
                "admin": settings.admin.model_copy(update={"port": port}),
                "dispatcher": settings.dispatcher.model_copy(update={"port": 9}),
            }
        )
        found = await _found(settings, kafka_connection, None)
        addresses = {"admin": admin.served.url, "ingest": "http://127.0.0.1:9"}
        opened = [
            await _of_access({"app": "demo", "key": None, "token": token}, addresses, {"admin"})
            for token in (KNOWN.token, "tok_wrong")
        ]

    assert [(each.check, each.verdict) for [each] in opened] == [("token", "ok"), ("token", "wrong")]
    seen = verdicts(found)
    assert (seen["topics"], seen["key-encryption key"], seen["admin"]) == ("ok", "ok", "ok")
    assert (seen["broker"], seen["dispatcher"]) == ("warning", "warning")
    assert all(each.remedy for each in found if each.verdict != "ok")


async def test_another_key_missing_topics_and_no_broker_are_told(kafka_connection, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = admin_settings(kafka_connection)
    nothing = verdicts(await _found(settings, kafka_connection, None))
    await furnish(kafka_connection)
    await put_apps(kafka_connection, with_data_key(make_app("x"), bytes, Keyring(bytes([9] * 32)), 0))
    other = await _found(settings, kafka_connection, None)
    away = verdicts(await _found(settings, Connection("127.0.0.1:9", "none.", "auto"), None))

    assert nothing["topics"] == "warning"
    [key] = [each for each in other if each.check == "key-encryption key"]
    assert key.verdict == "wrong"
    assert Keyring(KEK).key_id.hex() in key.said
    assert away["broker"] == "wrong"


async def test_addresses_that_would_not_be_delivered_to():
    private = await _of_url("https://127.0.0.1/hook", allow_private=False)
    unknown = await _of_url("https://no-such-name.invalid/hook", allow_private=False)
    malformed = await _of_url("ftp://crm.example", allow_private=False)
    closed = await _dialled("127.0.0.1", 9, is_tls=False)

    for each in (*private, *unknown, *malformed, closed):
        assert (each.check, each.verdict) == ("url", "wrong")
        assert each.remedy
    assert "loopback" in private[0].said


async def test_a_certificate_that_is_not_good(monkeypatch):
    async def refused(*_, **__):
        raise ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")

    monkeypatch.setattr(command.asyncio, "open_connection", refused)

    assert "certificate" in (await _dialled("crm.example", 443, is_tls=True)).said
