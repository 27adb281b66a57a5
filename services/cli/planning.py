"""
What `tenterhook up` will start: options over settings over defaults, and what can be known to be wrong beforehand.

The services are told through `TENTERHOOK_...` variables, as anywhere else.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, cast

from pydantic import ValidationError

from services.cli.brokers.choose import Choice, NoSuchBroker, choose
from services.cli.brokers.embedded import EmbeddedBroker
from services.cli.brokers.kafka import KafkaBroker
from services.cli.brokers.ports import free_ports
from services.cli.data_dir import DataDir
from services.cli.errors import Failed, WrongUsage
from services.cli.life import Plan
from services.runtime.connection import security_of
from services.runtime.settings import Settings
from services.vault.keks import KekError, load_keyring
from streams.security import SecurityUnusable

_OURS: Final = ("auto", "embedded", "kafka")

#: Said at every start: what is lost at the end must not come as a surprise.
FORGETS: Final = (
    "it keeps its data in memory: when it stops, events, results and integrations are gone. "
    "For one that keeps them: Java 17, `make kafka`, then `tenterhook up --broker kafka`"
)


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line; None is left to the settings."""

    broker: str | None
    ingest_port: int | None
    admin_port: int | None
    allow_private_addresses: bool


def plan_of(options: Options, folder: DataDir, say: Callable[[str], None]) -> Plan:
    """
    The plan; says what was chosen and why.

    Raises:
        WrongUsage: the options contradict themselves.
        Failed: a setting is wrong, there is no usable KEK, a port is taken, or the broker cannot be had here.
        BrokerFailed: the broker's folder cannot be read.
    """
    settings = _settings()
    ports = _ports(options, settings)
    choice = _choice(options, settings)
    say(f"broker: {choice.why}")
    if choice.kind == "embedded":
        say(f"broker: {FORGETS}")
    broker = _broker(choice.kind, folder.path.resolve())
    kek_file = None if settings.kek or settings.kek_file else folder.kek_file(say)
    history = folder.path.resolve() / "history"
    used = _with(
        settings,
        broker=broker.bootstrap if broker else choice.bootstrap,
        **({"kek_file": kek_file.resolve()} if kek_file else {}),
        **({} if "log_level" in settings.model_fields_set else {"log_level": "warning"}),
        **({} if "log_format" in settings.model_fields_set else {"log_format": "console"}),
        ingest=_with(settings.ingest, port=ports["ingest"]),
        admin=_with(settings.admin, port=ports["admin"]),
        dispatcher=_with(
            settings.dispatcher,
            port=ports["dispatcher"],
            allow_private_addresses=options.allow_private_addresses,
        ),
        breaker=_with(settings.breaker, port=ports["breaker"]),
        **({} if settings.history.directory else {"history": _with(settings.history, directory=history)}),
    )
    if broker is not None and settings.kafka.security_protocol != "PLAINTEXT":
        raise Failed(
            f"the settings want {settings.kafka.security_protocol}, and the broker that `up` starts has neither TLS "
            "nor users: name yours with --broker, or unset TENTERHOOK_KAFKA__SECURITY_PROTOCOL and what goes with it"
        )
    try:
        load_keyring(used)
        security_of(used.kafka)
    except (KekError, SecurityUnusable) as error:
        raise Failed(str(error)) from None
    return Plan(used, broker, folder, environment_of(used))


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment of this process, with the settings that `up` decides."""
    own = {
        "BROKER": settings.broker,
        "LOG_LEVEL": settings.log_level,
        "LOG_FORMAT": settings.log_format,
        "INGEST__PORT": settings.ingest.port,
        "ADMIN__PORT": settings.admin.port,
        "DISPATCHER__PORT": settings.dispatcher.port,
        "BREAKER__PORT": settings.breaker.port,
        "HISTORY__DIRECTORY": settings.history.directory,
        "DISPATCHER__ALLOW_PRIVATE_ADDRESSES": settings.dispatcher.allow_private_addresses,
        **({"KEK_FILE": settings.kek_file} if settings.kek_file else {}),
    }
    return {**os.environ, **{f"TENTERHOOK_{name}": str(value) for name, value in own.items()}}


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError:
        # It tells well what is wrong, and pulls in a web server that `up` does not need.
        process = import_module("services.runtime.process")
        try:
            return cast("Settings", process.load_settings())
        except process.StartupError as error:
            raise Failed(str(error)) from None


def _choice(options: Options, settings: Settings) -> Choice:
    if options.broker is None and "broker" in settings.model_fields_set:
        return Choice("given", f"the one at {settings.broker}, as the settings say", settings.broker)
    wanted = "auto" if options.broker is None else options.broker
    try:
        return choose(wanted)
    except NoSuchBroker as error:
        if wanted in _OURS:
            raise Failed(str(error)) from None
        raise WrongUsage(str(error)) from None


def _broker(kind: Literal["embedded", "kafka", "given"], folder: Path) -> EmbeddedBroker | KafkaBroker | None:
    match kind:
        case "embedded":
            return EmbeddedBroker(folder)
        case "kafka":
            return KafkaBroker(folder / "kafka")
        case "given":
            return None


def _ports(options: Options, settings: Settings) -> dict[str, int]:
    """The port of each service, free as of now; chosen once, so that a service that is started again has it again."""
    wanted = {
        "ingest": (settings.ingest.host, settings.ingest.port if options.ingest_port is None else options.ingest_port),
        "admin": (settings.admin.host, settings.admin.port if options.admin_port is None else options.admin_port),
        # Nobody needs to know these, so they give way.
        "dispatcher": (
            settings.dispatcher.host,
            settings.dispatcher.port if "port" in settings.dispatcher.model_fields_set else 0,
        ),
        "breaker": (
            settings.breaker.host,
            settings.breaker.port if "port" in settings.breaker.model_fields_set else 0,
        ),
    }
    spare = list(free_ports(len(wanted)))
    ports = {}
    for name, (host, port) in wanted.items():
        ports[name] = port or spare.pop()
        _check_free(name, host, ports[name])
    if ports["ingest"] == ports["admin"]:
        raise WrongUsage(f"--ingest-port and --admin-port are both {ports['admin']}: give two different ones")
    return ports


def _check_free(name: str, host: str, port: int) -> None:
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                # As servers do: connections of an earlier one that still linger are no obstacle.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        raise Failed(
            f"{name} cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}. Stop what does, or give another "
            f"--{name}-port (0 takes a free one)"
        ) from None


def _with(section: Any, **changes: Any) -> Any:
    """The settings with these changes; checked already."""
    return section.model_copy(update=changes)
