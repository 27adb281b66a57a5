"""
A replay that sends nothing: how many events of each type it would take, and the first requests as they would go out.

No secret is opened for it: in place of each stands `***`, so that whoever may look at the configuration may look at
this. For the same reason a request's signatures are not shown. The configuration may be one that is stored nowhere.
"""

import base64
from collections import Counter
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from services.dispatcher.guard import url_refusal
from services.dispatcher.plan import Planned, Prepared, Unplannable, prepare
from services.dispatcher.replay_log import PastEvents, Times, events_partition
from services.dispatcher.replaying import Past, delivery_of, takes
from services.dispatcher.sign import SECRET_BYTES, SECRET_PREFIX
from services.vault.opened import OpenedSecrets
from streams.connection import Connection
from streams.records import IntegrationConfig, Replay

#: In place of every secret, header value and signature.
MASK: Final = "***"

#: Requests that are shown where nothing else is said.
SAMPLE: Final = 3
MAX_SAMPLE: Final = 20

#: Any key: signatures made with it are not shown.
_NO_KEY: Final = SECRET_PREFIX + base64.b64encode(bytes(SECRET_BYTES)).decode()

#: The receipts of what is on the log are there, but for the last moments.
_PATIENCE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Shown:
    """One request as it would go out, or why it could not."""

    event_id: str
    type: str
    accepted_at_ms: int
    #: Whether the integration had got this event.
    was_delivered_live: bool
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    #: Stable code and text for people of what would block it; None where it would be sent.
    refusal: tuple[str, str] | None = None


@dataclass(slots=True)
class DryRun:
    """What a replay would do."""

    #: Events of the app, or of others in its partition, that were looked at.
    seen: int = 0
    #: Events that it would take, by type.
    by_type: Counter[str] = field(default_factory=Counter)
    #: Repeats of an event id that were left out: the first one stands for them.
    repeats: int = 0
    sample: list[Shown] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many events it would take."""
        return sum(self.by_type.values())


async def dry_run(
    connection: Connection,
    partitions: int,
    replay: Replay,
    config: IntegrationConfig,
    *,
    brand: str,
    version: str,
    now_ms: int,
    allow_http: bool,
    sample: int = SAMPLE,
    most: int | None = None,
) -> DryRun:
    """
    Read the replay's range, and count what it would take; sends and writes nothing.

    Args:
        partitions: of `events`.
        replay: as it would be asked for.
        config: of the integration; need not be stored anywhere, nor its secrets be sealed.
        brand: what our own header names begin with.
        allow_http: whether the app may deliver to `http://` URLs.
        sample: so many requests are shown.
        most: stop when so many events were looked at; None: never.

    Raises:
        KafkaError: the broker does not answer.
    """
    partition = events_partition(connection, replay.app, partitions)
    prepared = prepare(config, without_secrets(config), brand, version)
    found = DryRun()
    async with PastEvents(
        connection,
        partition,
        Times(replay.from_ms, replay.until_ms),
        wants=lambda event: takes(replay, config, event),
        since_ms=replay.from_ms,
        patience_s=_PATIENCE_S,
    ) as past:
        while not past.is_over and (most is None or past.seen < most):
            each = await past.next()
            if each is None:
                continue
            if each.is_repeat:
                found.repeats += 1
                continue
            found.by_type[each.event.type] += 1
            if len(found.sample) < sample:
                found.sample.append(shown(replay, each, prepared, now_ms=now_ms, allow_http=allow_http))
        found.seen = past.seen
    return found


def without_secrets(config: IntegrationConfig) -> OpenedSecrets:
    """The integration's secrets with a mask for each value: enough to see what refers to which, and to nothing."""
    return OpenedSecrets(
        headers=dict.fromkeys(config.headers, MASK),
        secrets=dict.fromkeys(config.secrets, MASK),
        signing=[(_NO_KEY, secret.valid_until_ms) for secret in config.signing_secrets],
    )


def shown(replay: Replay, past: Past, prepared: Prepared | Unplannable, *, now_ms: int, allow_http: bool) -> Shown:
    """The event's request, made of secrets that are masks; pure."""
    event = past.event
    delivery = delivery_of(replay, past, config_offset=0, generation=0)
    planned = prepared if isinstance(prepared, Unplannable) else prepared.plan(delivery, now_ms)
    refusal = (planned.code, planned.detail) if isinstance(planned, Unplannable) else None
    url, body = "", b""
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(planned, Planned) and isinstance(prepared, Prepared):
        why = url_refusal(planned.url, allow_http)
        refusal = None if why is None else ("url_refused", why)
        signatures = {f"{prepared.brand}-Signature", "webhook-signature"}
        url, body = planned.url.replace(quote(MASK, safe=""), MASK), planned.body
        headers = tuple((name, MASK if name in signatures else value) for name, value in planned.headers)
    return Shown(
        event_id=event.event_id,
        type=event.type,
        accepted_at_ms=event.accepted_at_ms,
        was_delivered_live=delivery.of is not None,
        url=url,
        headers=headers,
        body=body,
        refusal=refusal,
    )
