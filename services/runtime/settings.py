"""
Settings: `TENTERHOOK_...` variables over a TOML file over the defaults here, which suit one machine.

One nested class a service; a double underscore enters it: `TENTERHOOK_DISPATCHER__WORKER_ID`.
`tenterhook settings` prints all of them with their source; `docs/settings.md` lists them, held to this by a test.
"""

import os
import re
import socket
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartitionSettings(_Section):
    by_app: int = Field(8, ge=1, le=1024, description="Partitions of events and fan-out. Chosen once.")
    by_integration: int = Field(
        # At most 256: fan-out stores an offset of each with every commit, and brokers take 4 KiB with one.
        16,
        ge=1,
        le=256,
        description="Partitions of deliveries and delivery-results. Chosen once.",
    )


class KafkaSettings(_Section):
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How brokers are spoken to: with TLS (SSL), as a user (SASL), both or neither."
    )
    ca_file: Path | None = Field(
        None, description="Certificates (PEM) of the CAs that brokers are held to; none: those of this machine."
    )
    certificate_file: Path | None = Field(None, description="Our own certificate (PEM), where brokers want one.")
    key_file: Path | None = Field(None, description="Its private key (PEM, not encrypted).")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How the user is proved; PLAIN shows the password to the broker."
    )
    user: str | None = Field(None, min_length=1, description="User, with SASL.")
    password: SecretStr | None = Field(None, description="Its password.")
    password_file: Path | None = Field(None, description="File that holds it, instead; a line end is passed over.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        """What is given is used, and what is used is given: nothing goes unencrypted by a slip."""
        tls = [name for name in ("ca_file", "certificate_file", "key_file") if getattr(self, name) is not None]
        sasl = [name for name in ("user", "password", "password_file") if getattr(self, name) is not None]
        if tls and not self.security_protocol.endswith("SSL"):
            raise ValueError(f"{tls[0]} is set, and {self.security_protocol} has no TLS: set security_protocol too")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        if not self.security_protocol.startswith("SASL"):
            if sasl:
                raise ValueError(f"{sasl[0]} is set, and {self.security_protocol} has no users: set security_protocol")
        elif self.user is None or (self.password is None) == (self.password_file is None):
            raise ValueError(f"{self.security_protocol} wants user, and one of password and password_file")
        return self


class IngestSettings(_Section):
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")


#: What Kafka takes as a member's own name.
INSTANCE_ID: Final = r"^[A-Za-z0-9._-]{1,249}$"
_INSTANCE_ID: Final = "Name of this worker that a successor keeps, in its group: no two at once may have one."


class DispatcherSettings(_Section):
    host: str = Field("127.0.0.1", description="Address of the health and metrics port.")
    port: int = Field(8090, ge=0, le=65535, description="Port of health and metrics; 0 takes a free one.")
    worker_id: str = Field(
        f"{socket.gethostname()}-{os.getpid()}", description="Name of this worker in markers and logs."
    )
    instance_id: str | None = Field(None, pattern=INSTANCE_ID, description=_INSTANCE_ID)
    allow_private_addresses: bool = Field(
        False, description="Whether deliveries may reach loopback and private networks."
    )
    max_unfinished_records: int = Field(
        2_000, ge=1, description="Records of one partition taken and not finished; above it the partition pauses."
    )
    max_unfinished_bytes: int = Field(16_777_216, ge=65_536, description="Their bytes.")
    commit_interval_ms: int = Field(250, ge=10, description="How often offsets are committed.")
    session_timeout_ms: int = Field(
        6_000, ge=6_000, description="After how long without a heartbeat a worker counts as dead."
    )


class BreakerSettings(_Section):
    host: str = Field("127.0.0.1", description="Address of the health and metrics port.")
    port: int = Field(8091, ge=0, le=65535, description="Port of health and metrics; 0 takes a free one.")
    worker_id: str = Field(f"{socket.gethostname()}-{os.getpid()}", description="Name of this worker at the broker.")
    instance_id: str | None = Field(None, pattern=INSTANCE_ID, description=_INSTANCE_ID)
    max_unfinished_records: int = Field(
        2_000, ge=1, description="Results of one partition taken and not finished; above it the partition pauses."
    )
    max_unfinished_bytes: int = Field(16_777_216, ge=65_536, description="Their bytes.")
    commit_interval_ms: int = Field(250, ge=10, description="How often offsets are committed.")
    session_timeout_ms: int = Field(
        6_000, ge=6_000, description="After how long without a heartbeat a worker counts as dead."
    )


def _networks(given: Any) -> Any:
    """Networks out of a text with commas (a variable's), or a list of texts (the file's)."""
    given = given.split(",") if isinstance(given, str) else given
    if not isinstance(given, list | tuple):
        return given
    found = []
    for number, each in enumerate(filter(None, (str(item).strip() for item in given)), 1):
        try:
            network = ip_network(each)
        except ValueError:
            raise ValueError(f"number {number} is no network: write 10.0.0.0/8, 192.0.2.7 or fd00::/8") from None
        if network.prefixlen == 0:
            raise ValueError(f"number {number} is every address: whoever sends the header could then claim any")
        found.append(network)
    return tuple(found)


#: In the environment one text, with commas; not JSON, as pydantic would have it.
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)]


class AdminSettings(_Section):
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8081, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    instance_id: str | None = Field(None, pattern=INSTANCE_ID, description=_INSTANCE_ID)
    trusted_proxies: Networks = Field(
        (), description="Proxies whose `X-Forwarded-For` counts, for the audit log: networks, with commas."
    )


class HistorySettings(_Section):
    directory: Path | None = Field(
        None, description="Folder of the delivery history, one for each admin process; none: a temporary one."
    )
    retention_days: int = Field(
        30, ge=1, le=400, description="Days that a delivery stays in it; read anew it holds what the log has kept."
    )


#: One of the collector's headers.
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+=[\x20-\x7e]*")


class TracingSettings(_Section):
    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^@\s?#]+$",
        description="OTLP/HTTP collector that traces go to, as `http://127.0.0.1:4318`; none: nothing is traced.",
    )
    sampled_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of requests to ingest that are traced; a sender's `traceparent` overrides it.",
    )
    headers: SecretStr | None = Field(
        None, description="Headers for the collector, as NAME=VALUE with commas: an API key, for example."
    )

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, given: SecretStr | None) -> SecretStr | None:
        for number, each in enumerate(given.get_secret_value().split(",") if given else (), 1):
            if not _HEADER.fullmatch(each.strip()):
                raise ValueError(f"number {number} is no NAME=VALUE")
        return given


class Settings(BaseSettings):
    """All settings of all services; each process reads its own part."""

    model_config = SettingsConfigDict(
        env_prefix="TENTERHOOK_", env_nested_delimiter="__", frozen=True, extra="ignore", toml_file="tenterhook.toml"
    )

    broker: str = Field("127.0.0.1:9092", description="Kafka brokers, HOST:PORT, several with commas.")
    topic_prefix: str = Field("tenterhook.", description="Before every topic's name.")
    replication: int = Field(
        0, ge=0, le=9, description="Replicas of topics created; 0 takes 3 where there are 3 brokers, else 1."
    )
    partitions: PartitionSettings = PartitionSettings()
    idempotence: Literal["auto", "on", "off"] = Field(
        "auto", description="Idempotent producers; auto takes them where the broker has them."
    )
    schema_registry_url: str | None = Field(
        None,
        pattern=r"^https?://[^@\s]+$",
        description="Schema registry (Confluent's API) whose ids are written; none: those of the committed schemas.",
    )
    schema_registry_credentials: SecretStr | None = Field(None, description="For it, as USER:PASSWORD.")
    schema_registry_credentials_file: Path | None = Field(
        None, description="File that holds them, instead; a line end is passed over."
    )
    kafka: KafkaSettings = KafkaSettings()
    kek: SecretStr | None = Field(None, description="Key-encryption key: 32 bytes as base64. Required.")
    kek_file: Path | None = Field(None, description="File that holds it, instead.")
    kek_previous: SecretStr | None = Field(
        None, description="Keys that it replaces, with commas, until all is under the new one."
    )
    kek_previous_file: Path | None = Field(None, description="File that holds them, one a line, instead.")
    header_brand: str = Field(
        "X-ApifyCloud", pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$", description="Brand in the names of request headers."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level of log lines.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="JSON for machines, console for people; auto looks for a terminal."
    )
    ingest: IngestSettings = IngestSettings()
    dispatcher: DispatcherSettings = DispatcherSettings()
    breaker: BreakerSettings = BreakerSettings()
    admin: AdminSettings = AdminSettings()
    history: HistorySettings = HistorySettings()
    tracing: TracingSettings = TracingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # a .env file is the shell's business
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # settings of their own name the files: kek_file
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
