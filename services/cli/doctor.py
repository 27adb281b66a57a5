"""`tenterhook doctor`: looks at a set-up, says what is wrong with it, and what to do."""

import asyncio
import json
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import asdict
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote, urlsplit

import httpx
from aiokafka.errors import KafkaError
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from services.cli.access import READY_FILE, filed, running_up
from services.cli.errors import Failed, WrongUsage
from services.cli.findings import Finding, Verdict
from services.cli.log_access import LogOptions, log_connection
from services.cli.signatures import Unreadable, examined, sample_of
from services.cli.tables import print_table
from services.dispatcher.guard import address_refusal, url_refusal
from services.dispatcher.resolve import DnsFailed, Names
from services.runtime.process import load_settings
from services.runtime.serving import StartupError
from services.runtime.settings import Settings
from services.vault.keks import KekError, check_keks, load_keyring
from streams.connection import BrokerAway, Connection, brokers_at
from streams.follower import Follower
from streams.topics import APP_CONFIG, INTEGRATION_CONFIG, Partitions, examine
from streams.views import Apps, Integrations
from tenterhook import Client, Invalid, NotAllowed, Retries, TenterhookError

_STYLES: Final[dict[Verdict, str]] = {"ok": "green", "warning": "yellow", "wrong": "bold red"}

#: Brokers that a record survives the loss of one of.
_SAFE_BROKERS: Final = 3

#: Receivers that follow Standard Webhooks refuse a request whose time is further from theirs than five minutes.
_CLOCK_WARNS_S: Final = 30

_ANSWER_S: Final = 5.0
_READ_S: Final = 20.0


def doctor(
    *,
    url: str | None = None,
    sample: Path | None = None,
    body: Path | None = None,
    secret: Annotated[str | None, Parameter(env_var="TENTERHOOK_SIGNING_SECRET")] = None,
    log: LogOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Look at the set-up: broker, topics, keys, services, clock. Exits with 1 where something is wrong.

    Args:
        url: Look also whether this address could be delivered to: allowed, resolved, reached, with a good certificate.
        sample: Look only at the signatures of a request that came: a line of `sink --json`, JSON with "headers" and
            "body", or the request as it went over the wire.
        body: Its body, byte for byte, where that is in a file of its own.
        secret: The signing secret for that, whsec_...; better in the variable, which no process list shows.
        log: Which log.
        as_json: Print each finding as a line of JSON.
    """
    secret = secret or filed("TENTERHOOK_SIGNING_SECRET")
    if sample is not None and secret is None:
        raise WrongUsage("--sample takes --secret, or TENTERHOOK_SIGNING_SECRET")
    if body is not None and sample is None:
        raise WrongUsage("--body goes with --sample")
    if sample is not None and url is not None:
        raise WrongUsage("give one of --url and --sample")
    try:
        settings = load_settings()
    except StartupError as error:
        raise Failed(str(error)) from None
    if sample is not None:
        findings = _signatures(sample, body, secret or "", settings.header_brand)
    else:
        with Console(stderr=True, quiet=as_json or not sys.stderr.isatty()).status("Looking"):
            findings = asyncio.run(_found(_as_up_has_them(settings), log_connection(log or LogOptions()), url))
    if as_json:
        for each in findings:
            print(json.dumps(asdict(each)))
    else:
        _show(findings)
    return 1 if any(each.verdict == "wrong" for each in findings) else 0


def _as_up_has_them(settings: Settings) -> Settings:
    """With what a running `up` gives its services, where nothing else is said: its key, and leave to stay at home."""
    if not READY_FILE.exists():
        return settings
    changes: dict[str, object] = {
        "dispatcher": settings.dispatcher.model_copy(update={"allow_private_addresses": True})
    }
    kek = READY_FILE.with_name("kek")
    if settings.kek is None and settings.kek_file is None and kek.exists():
        changes["kek_file"] = kek
    return settings.model_copy(update=changes)


async def _found(settings: Settings, connection: Connection, url: str | None) -> list[Finding]:
    found = [each async for each in _of_log(settings, connection)]
    found += await _of_services(settings)
    if url is not None:
        found += await _of_url(url, allow_private=settings.dispatcher.allow_private_addresses)
    return found


# -- the log -------------------------------------------------------------------------------------------------


async def _of_log(settings: Settings, connection: Connection) -> AsyncIterator[Finding]:
    """Broker, topics, and whether the key-encryption key is the one that stored secrets want."""
    try:
        brokers = await brokers_at(connection)
    except BrokerAway as away:
        yield Finding(
            "broker",
            "wrong",
            f"none answers at {connection.bootstrap}: {away}",
            "start it, or correct the setting" if type(away) is BrokerAway else away.remedy,
        )
        return
    if brokers < _SAFE_BROKERS:
        said = f"{brokers} at {connection.bootstrap}: what one disk loses is lost"
        yield Finding("broker", "warning", said, "run three or more in production")
    else:
        yield Finding("broker", "ok", f"{brokers} at {connection.bootstrap}")
    partitions = Partitions(settings.partitions.by_app, settings.partitions.by_integration)
    try:
        async with asyncio.timeout(_READ_S):
            missing, differs = await examine(connection, partitions, replication=settings.replication)
            for each in _of_topics(missing, differs):
                yield each
            yield await _of_keys(settings, connection, missing)
    except (KafkaError, OSError, TimeoutError) as error:
        yield Finding("topics", "wrong", f"they could not be read ({type(error).__name__})", "look at the broker's log")


def _of_topics(missing: list[str], differs: list[str]) -> list[Finding]:
    found = [Finding("topics", "wrong", each, "as it says") for each in differs]
    if missing:
        said = f"{len(missing)} are missing: {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}"  # noqa: PLR2004
        found.append(Finding("topics", "warning", said, "start a service: each makes those that are missing"))
    return found or [Finding("topics", "ok", "all are there, and as they must be")]


async def _of_keys(settings: Settings, connection: Connection, missing: list[str]) -> Finding:
    try:
        keyring = load_keyring(settings)
    except KekError as error:
        return Finding("key-encryption key", "wrong", str(error), "as it says; `up` makes its own")
    apps, integrations = Apps(), Integrations()
    for topic, view in ((APP_CONFIG, apps), (INTEGRATION_CONFIG, integrations)):
        if connection.topic(topic) not in missing:
            follower = Follower(connection, topic, view.apply)
            await follower.start()
            await follower.stop()
    try:
        check_keks(keyring, apps.all(), integrations.all())
    except KekError as error:
        return Finding("key-encryption key", "wrong", str(error), "as it says")
    return Finding("key-encryption key", "ok", f"{keyring.key_id.hex()} opens all that is stored")


# -- the services --------------------------------------------------------------------------------------------


async def _of_services(settings: Settings) -> list[Finding]:
    """Those of a running `up`, else those where the settings say."""
    ready = running_up(READY_FILE)
    own = {name: getattr(settings, name) for name in ("ingest", "admin", "dispatcher", "breaker")}
    # `up` says where those are that others ask, and looks after the breaker by itself.
    addresses = {
        name: ready.get(name) or f"http://{each.host}:{each.port}"
        for name, each in own.items()
        if name in ready or not ready
    }
    async with httpx.AsyncClient(timeout=_ANSWER_S, trust_env=False) as http:
        found = [each for name, url in addresses.items() for each in await _of_service(http, name, url)]
    known = {
        "app": os.environ.get("TENTERHOOK_APP") or ready.get("app"),
        "key": os.environ.get("TENTERHOOK_KEY") or filed("TENTERHOOK_KEY") or ready.get("secretKey"),
        "token": os.environ.get("TENTERHOOK_TOKEN") or filed("TENTERHOOK_TOKEN") or ready.get("token"),
    }
    reached = {each.check for each in found if each.verdict == "ok"}
    return found + await _of_access(known, addresses, reached)


async def _of_access(known: dict[str, str | None], addresses: dict[str, str], reached: set[str]) -> list[Finding]:
    """Whether the key and the token that commands would use here open what they are for; writes nothing."""
    app = known["app"] or "-"
    found = []
    retries = Retries(attempts=1)
    async with Client(
        app,
        key=known["key"],
        ingest=addresses["ingest"],
        token=known["token"],
        admin=addresses["admin"],
        retries=retries,
        timeout_s=_ANSWER_S,
    ) as client:
        if known["token"] and "admin" in reached:
            ask = client.ask("GET", f"/v1/apps/{quote(app, safe='')}" if known["app"] else "/v1/apps")
            found.append(await _opens("token", ask, "make one: `tenterhook tokens create`"))
        if known["key"] and known["app"] and "ingest" in reached:
            # An event of no type: refused as such by whoever takes the key, so nothing is stored.
            found.append(await _opens("ingest key", client.send(""), "make one: `tenterhook apps keys create`"))
    return found


async def _opens(check: str, asked: Awaitable[object], remedy: str) -> Finding:
    try:
        await asked
    except NotAllowed as refused:
        return Finding(check, "wrong", str(refused), remedy)
    except Invalid:
        pass
    except TenterhookError as error:
        return Finding(check, "warning", str(error), "look at the service's log")
    return Finding(check, "ok", "it opens what it is for")


async def _of_service(http: httpx.AsyncClient, name: str, url: str) -> list[Finding]:
    try:
        answer = await http.get(f"{url}/health/ready")
    except httpx.HTTPError as error:
        said = f"nothing answers at {url} ({type(error).__name__})"
        return [Finding(name, "warning", said, f"start it: `tenterhook {name}` or `tenterhook up`")]
    found = [_readiness(name, url, answer)]
    drift_s = _drift_s(answer)
    if drift_s is not None and abs(drift_s) > _CLOCK_WARNS_S:
        said = f"it is {drift_s:+.0f} s from this machine's"
        found.append(
            Finding(f"clock of {name}", "warning", said, "keep clocks with NTP: receivers refuse old signatures")
        )
    return found


def _readiness(name: str, url: str, answer: httpx.Response) -> Finding:
    if answer.is_success:
        return Finding(name, "ok", f"ready at {url}")
    try:
        reason = answer.json().get("reason") or answer.json().get("detail")
    except (ValueError, AttributeError):
        return Finding(name, "warning", f"something else answers at {url} ({answer.status_code})", "look at the port")
    return Finding(name, "wrong", f"not ready at {url}: {reason}", "wait a moment, then look at its log")


def _drift_s(answer: httpx.Response) -> float | None:
    try:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()
    except (KeyError, ValueError):
        return None


# -- an address ----------------------------------------------------------------------------------------------


async def _of_url(url: str, *, allow_private: bool) -> list[Finding]:
    """Whether a delivery to this URL would be allowed, and gets as far as its certificate."""
    if (fault := url_refusal(url, allow_http=True)) is not None:
        return [Finding("url", "wrong", fault, "correct it")]
    parts = urlsplit(url)
    host = parts.hostname or ""
    names = Names()
    try:
        async with asyncio.timeout(_ANSWER_S):
            addresses = await names.addresses(host)
    except (DnsFailed, TimeoutError) as error:
        return [Finding("url", "wrong", f"the name {host} has no address ({error})", "correct the name, or its DNS")]
    finally:
        names.close()
    refused = {each: reason for each in addresses if (reason := address_refusal(each, allow_private))}
    if refused:
        [(address, reason), *_] = refused.items()
        remedy = "use a public address; TENTERHOOK_DISPATCHER__ALLOW_PRIVATE_ADDRESSES opens private ones"
        return [Finding("url", "wrong", f"{host} is {address}, {reason}: deliveries would be blocked", remedy)]
    return [
        await _dialled(host, parts.port or (443 if parts.scheme == "https" else 80), is_tls=parts.scheme == "https")
    ]


async def _dialled(host: str, port: int, *, is_tls: bool) -> Finding:
    began_s = time.perf_counter()
    try:
        async with asyncio.timeout(_ANSWER_S):
            _, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context() if is_tls else None)
            writer.close()
    except ssl.SSLError as error:
        return Finding(
            "url", "wrong", f"the certificate of {host} is not good: {_reason(error)}", "mend it: it is always verified"
        )
    except (OSError, TimeoutError) as error:
        return Finding(
            "url", "wrong", f"{host}:{port} does not answer ({type(error).__name__})", "look at the receiver"
        )
    took_ms = (time.perf_counter() - began_s) * 1_000
    return Finding(
        "url", "ok", f"{host}:{port} answers{' with a good certificate' if is_tls else ''}, in {took_ms:.0f} ms"
    )


def _reason(error: ssl.SSLError) -> str:
    return getattr(error, "verify_message", None) or getattr(error, "reason", None) or str(error)


# -- a request that came -------------------------------------------------------------------------------------


def _signatures(sample: Path, body: Path | None, secret: str, brand: str) -> list[Finding]:
    try:
        captured = sample_of(sample.read_bytes(), None if body is None else body.read_bytes())
    except OSError as error:
        raise WrongUsage(f"--sample or --body cannot be read ({error.strerror})") from None
    except Unreadable as error:
        raise WrongUsage(f"--sample: {error}") from None
    return examined(captured, secret, brand=brand, now_s=time.time())


def _show(findings: list[Finding]) -> None:
    table = Table("", "looked at", "found", "what to do")
    for each in findings:
        verdict = Text(each.verdict, _STYLES[each.verdict])
        table.add_row(verdict, Text(each.check), Text(each.said), Text(each.remedy or ""))
    print_table(table)
