"""`tenterhook doctor`: looks at a set-up, says what is wrong with it, and what to do."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import httpx
from aiokafka.errors import KafkaError
from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from services.cli.access import READY_FILE, running_up
from services.cli.errors import WrongUsage
from services.cli.log_access import LogOptions, log_connection
from services.cli.tables import print_table
from services.cli.verify import verified
from services.dispatcher.guard import address_refusal, url_refusal
from services.dispatcher.resolve import DnsFailed, Names
from services.runtime.process import load_settings
from services.runtime.settings import Settings
from services.vault.keks import KekError, check_keks, load_keyring
from streams.connection import BrokerAway, Connection, brokers_at
from streams.follower import Follower
from streams.topics import APP_CONFIG, INTEGRATION_CONFIG, Partitions, examine
from streams.views import Apps, Integrations

Verdict = Literal["ok", "warning", "wrong"]

_STYLES: Final = {"ok": "green", "warning": "yellow", "wrong": "bold red"}

#: Brokers that a record survives the loss of one of.
_SAFE_BROKERS: Final = 3

#: Receivers that follow Standard Webhooks refuse a request whose time is further from theirs than five minutes.
_CLOCK_WARNS_S: Final = 30

_ANSWER_S: Final = 5.0
_READ_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look has found."""

    check: str
    verdict: Verdict
    said: str
    #: What to do; None where nothing has to be done.
    remedy: str | None = None


def doctor(
    *,
    url: str | None = None,
    sample: Path | None = None,
    secret: str | None = None,
    log: LogOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Look at the set-up: broker, topics, keys, services, clock. Exits with 1 where something is wrong.

    Args:
        url: Look also whether this address could be delivered to, and whether its certificate is good.
        sample: Look also at the signatures of a request: a JSON file with "headers" and "body", as `sink` has seen it.
        secret: The signing secret for that, whsec_...
        log: Which log.
        as_json: Print each finding as a line of JSON.
    """
    if (sample is None) != (secret is None):
        raise WrongUsage("--sample and --secret go together")
    findings = asyncio.run(_found(load_settings(), log_connection(log or LogOptions()), url))
    if sample is not None:
        findings.append(_signatures(sample, secret or "", load_settings().header_brand))
    if as_json:
        for each in findings:
            print(json.dumps(asdict(each)))
    else:
        _show(findings)
    return 1 if any(each.verdict == "wrong" for each in findings) else 0


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
    addresses = {name: ready.get(name) or f"http://{each.host}:{each.port}" for name, each in own.items()}
    async with httpx.AsyncClient(timeout=_ANSWER_S, trust_env=False) as http:
        return [each for name, url in addresses.items() for each in await _of_service(http, name, url)]


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


def _signatures(sample: Path, secret: str, brand: str) -> Finding:
    try:
        given: Any = json.loads(sample.read_text(encoding="utf-8"))
        headers, body = httpx.Headers(given["headers"]), str(given["body"]).encode()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WrongUsage(f"--sample: {sample} is no JSON with headers and body ({type(error).__name__})") from None
    # Its own time: a sample is old when somebody looks at it.
    sent_s = float(headers.get("webhook-timestamp") or 0)
    seen = verified(headers, body, secret, brand=brand, now_s=sent_s)
    said = f"{brand}-Signature: {seen.brand}; webhook-signature: {seen.standard}"
    if "no" in (seen.brand, seen.standard):
        remedy = "take the raw body, byte for byte, and the secret's whole text; after a rotation the other secret"
        return Finding("signature", "wrong", said, remedy)
    return Finding("signature", "ok", said)


def _show(findings: list[Finding]) -> None:
    table = Table("", "looked at", "found", "what to do")
    for each in findings:
        verdict = Text(each.verdict, _STYLES[each.verdict])
        table.add_row(verdict, Text(each.check), Text(each.said), Text(each.remedy or ""))
    print_table(table)
