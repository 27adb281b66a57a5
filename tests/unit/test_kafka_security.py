"""How brokers are spoken to: which settings go together, and what is said of a file that is no good."""

import ssl
from itertools import product

import pytest
import trustme
from pydantic import ValidationError

from services.runtime.connection import connection_of, security_of
from services.runtime.settings import KafkaSettings, Settings
from streams.connection import IDLE_MS, Connection
from streams.engine.app import _credentials
from streams.security import OPEN, SecurityUnusable

PASSWORD = "correct-horse"
SCRAM = {"security_protocol": "SASL_PLAINTEXT", "user": "ingest"}


@pytest.fixture
def files(tmp_path):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf = ca.issue_cert("tenterhook.example")
    leaf.private_key_pem.write_to_path(tmp_path / "client.key")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "text").write_text(f"{PASSWORD}, and no PEM")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    return tmp_path


def test_without_settings_nothing_is_encrypted_and_nobody_named():
    assert connection_of(Settings()).security == OPEN
    assert OPEN.client_options == {"security_protocol": "PLAINTEXT", "ssl_context": None}
    assert _credentials(OPEN) is None


def test_tls_checks_certificates_and_names_and_shows_ours(files):
    security = security_of(
        KafkaSettings(
            security_protocol="SSL",
            ca_file=files / "ca.pem",
            certificate_file=files / "client.pem",
            key_file=files / "client.key",
        )
    )

    assert (security.protocol, security.sasl) == ("SSL", None)
    assert security.tls.verify_mode == ssl.CERT_REQUIRED
    assert security.tls.check_hostname
    assert len(security.tls.get_ca_certs()) == 1
    assert _credentials(security).context is security.tls


def test_every_client_gets_the_user_and_no_text_the_password(files):
    settings = KafkaSettings(
        security_protocol="SASL_SSL", ca_file=files / "ca.pem", user="ingest", password_file=files / "password"
    )
    connection = Connection("kafka:9093", security=security_of(settings))
    faust = _credentials(connection.security)

    assert connection.client_options == {
        "bootstrap_servers": "kafka:9093",
        "connections_max_idle_ms": IDLE_MS,
        "security_protocol": "SASL_SSL",
        "ssl_context": connection.security.tls,
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "ingest",
        "sasl_plain_password": PASSWORD,
    }
    assert (faust.protocol.value, faust.mechanism.value, faust.password) == ("SASL_SSL", "SCRAM-SHA-512", PASSWORD)
    assert PASSWORD not in f"{settings!r} {connection!r} {faust!r}"
    assert security_of(KafkaSettings(**SCRAM, password=PASSWORD)).sasl == connection.security.sasl


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ca_file": "ca.pem"}, "ca_file is set, and PLAINTEXT has no TLS"),
        ({"user": "ingest"}, "user is set, and PLAINTEXT has no users"),
        ({"security_protocol": "SSL", "password": PASSWORD}, "password is set, and SSL has no users"),
        ({"security_protocol": "SSL", "key_file": "key"}, "certificate_file and key_file go together"),
        ({"security_protocol": "SASL_SSL"}, "SASL_SSL wants user, and one of password and password_file"),
        (SCRAM, "wants user, and one of"),
        ({**SCRAM, "password": PASSWORD, "password_file": "p"}, "wants user, and one of"),
        ({**SCRAM, "password": PASSWORD, "sasl_mechanism": "GSSAPI"}, "SCRAM-SHA-512"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, said):
    with pytest.raises(ValidationError, match=said) as refused:
        KafkaSettings(**given)
    assert PASSWORD not in str(refused.value.errors(include_input=False, include_url=False))


@pytest.mark.parametrize(
    ("setting", "file"),
    [
        *product(("ca_file", "certificate_file", "key_file"), ("missing", "empty", "text", "binary")),
        *product(("password_file",), ("missing", "empty", "binary")),  # any text is a password
    ],
)
def test_a_file_that_is_no_good_is_named_and_not_quoted(files, setting, file):
    given = {
        "ca_file": "ca.pem",
        "certificate_file": "client.pem",
        "key_file": "client.key",
        "password_file": "password",
    }
    paths = {name: files / value for name, value in (given | {setting: file}).items()}
    settings = KafkaSettings(security_protocol="SASL_SSL", user="ingest", **paths)

    with pytest.raises(SecurityUnusable, match=r"^kafka\.file_unusable: the file .*TENTERHOOK_KAFKA__") as refused:
        security_of(settings)
    assert str(files) in str(refused.value)
    assert PASSWORD not in str(refused.value)
