"""From settings to where the log is, and how its brokers are spoken to."""

import ssl
from pathlib import Path

from services.runtime.settings import KafkaSettings, Settings
from streams.connection import Connection
from streams.security import Sasl, Security, SecurityUnusable


def connection_of(settings: Settings) -> Connection:
    """
    The connection that the settings describe.

    Raises:
        SecurityUnusable: a file with a certificate, a key or the password cannot be read, or is none.
    """
    return Connection(settings.broker, settings.topic_prefix, settings.idempotence, security_of(settings.kafka))


def security_of(settings: KafkaSettings) -> Security:
    """
    How brokers are spoken to. The files are read now: what changes in them wants a restart.

    Raises:
        SecurityUnusable: as `connection_of`.
    """
    tls = _tls(settings) if settings.security_protocol.endswith("SSL") else None
    if not settings.security_protocol.startswith("SASL"):
        return Security(tls)
    return Security(tls, Sasl(settings.sasl_mechanism, settings.user or "", _password(settings)))


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    """Certificates and host names are checked, always: who may listen in on the log may read all payloads."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise _unusable("CA_FILE", settings.ca_file, error) from None
    if settings.certificate_file is not None and settings.key_file is not None:
        _must_be_readable("CERTIFICATE_FILE", settings.certificate_file)
        _must_be_readable("KEY_FILE", settings.key_file)
        try:
            # Asked for a password, OpenSSL would wait at the terminal.
            context.load_cert_chain(settings.certificate_file, settings.key_file, password="")
        except (OSError, ValueError) as error:  # of which SSLError is one
            raise _unusable("CERTIFICATE_FILE", settings.certificate_file, error) from None
    return context


def _password(settings: KafkaSettings) -> str:
    if settings.password is not None:
        return settings.password.get_secret_value()
    path = settings.password_file or Path()
    try:
        password = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable("PASSWORD_FILE", path, error) from None
    if not password:
        raise SecurityUnusable(f"the file {path} (TENTERHOOK_KAFKA__PASSWORD_FILE) is empty")
    return password


def _must_be_readable(variable: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise _unusable(variable, path, error) from None


def _unusable(variable: str, path: Path | None, error: Exception) -> SecurityUnusable:
    """Nothing of the file's content is said."""
    if isinstance(error, ssl.SSLError):
        reason = f"it does not hold what it should, as PEM ({error.reason or 'no certificate in it'})"
    elif isinstance(error, OSError):
        reason = error.strerror or "it cannot be read"
    else:
        reason = "it does not hold what it should, as text"
    return SecurityUnusable(f"the file {path} (TENTERHOOK_KAFKA__{variable}): {reason}")
