"""How the brokers are spoken to: over TLS or not, and as whom. `services.runtime.connection` makes it of settings."""

from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, Final, Literal


class SecurityUnusable(Exception):
    """A file with a certificate, a key or the password cannot be used. The message holds nothing of its content."""

    code = "kafka.file_unusable"
    when = "a file with a certificate, a key or the password cannot be read, or is not what it should be"
    remedy = "correct the setting that the message names, or the file"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.code}: {reason}")


Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class Sasl:
    """Who we say we are."""

    mechanism: Mechanism
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Security:
    """What is asked of a connection to a broker."""

    #: Whom to trust, and our own certificate where we have one; None: no TLS.
    tls: SSLContext | None = None
    sasl: Sasl | None = None

    @property
    def protocol(self) -> Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]:
        """By Kafka's name."""
        if self.sasl is None:
            return "PLAINTEXT" if self.tls is None else "SSL"
        return "SASL_PLAINTEXT" if self.tls is None else "SASL_SSL"

    @property
    def client_options(self) -> dict[str, Any]:
        """Options of every client of aiokafka. They hold the password: not for a log."""
        options: dict[str, Any] = {"security_protocol": self.protocol, "ssl_context": self.tls}
        if self.sasl is None:
            return options
        return options | {
            "sasl_mechanism": self.sasl.mechanism,
            "sasl_plain_username": self.sasl.user,
            "sasl_plain_password": self.sasl.password,
        }


#: The default: neither encrypted nor anybody in particular.
OPEN: Final = Security()
