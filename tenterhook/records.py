"""
What the API answers, typed. Names are the API's in snake_case; times are `datetime` in UTC.

A field that is not known here is passed over, so that a newer service does not break an older client.
"""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

import msgspec

Outcome = Literal["delivered", "rejected", "exhausted", "blocked", "discarded"]
Cause = Literal["live", "retry", "replay", "test"]
Profile = Literal["integration", "booking"]
Ordering = Literal["integration", "strict", "key", "none"]
WhilePaused = Literal["hold", "discard"]

T = TypeVar("T")


class _Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class Page(_Record, Generic[T], frozen=True, kw_only=True):
    """A part of a list."""

    items: list[T]
    #: Of the page after; None: this is the last.
    next: str | None


class Accepted(_Record, frozen=True, kw_only=True):
    """An event that is on the log."""

    id: str
    accepted_at: datetime
    #: It was accepted before, and is delivered once. Ingest says so only where it knows.
    duplicate: bool = False


class RetryPolicy(_Record, frozen=True, kw_only=True):
    """When a failed delivery is tried again."""

    policy: Literal["transient", "any_failure"]
    max_attempts: int
    delays_ms: list[int]
    on_429: bool = msgspec.field(name="on429")


class LastDelivery(_Record, frozen=True, kw_only=True):
    """How the newest delivery of an integration went."""

    id: str
    event: str | None
    outcome: Outcome | None
    status: int | None
    attempt: int | None
    at: datetime


class Integration(_Record, frozen=True, kw_only=True):
    """An integration or a booking subscription, as it is now."""

    id: str
    profile: Profile
    name: str
    url: str
    events: list[str]
    #: Masked.
    headers: dict[str, str]
    template: str | None
    timeout_ms: int
    retry: RetryPolicy
    ordering: Ordering
    max_in_flight: int
    while_paused: WhilePaused
    auto_pause: bool
    signing: bool
    #: Whether requests of traced events carry `traceparent`.
    send_traceparent: bool
    status: Literal["active", "failing", "paused"]
    status_reason: str | None
    consecutive_failures: int
    #: Of the deliveries that ended in the last 24 hours, 0 to 1; None: none did.
    success_rate: float | None
    queue_age_ms: int | None
    last_delivery: LastDelivery | None
    version: int
    epoch: int
    created_at: datetime
    updated_at: datetime
    #: Shown once: where signing has just been switched on.
    signing_secret: str | None = None

    def __repr__(self) -> str:
        """Without the secret: this may end in a log."""
        return f"Integration(id={self.id!r}, name={self.name!r}, status={self.status!r}, version={self.version})"


class Difference(_Record, frozen=True, kw_only=True):
    """A setting that two versions have differently."""

    field: str
    before: Any = msgspec.field(name="from")
    after: Any = msgspec.field(name="to")


class Version(_Record, frozen=True, kw_only=True):
    """One version of an integration: who changed what, and when."""

    version: int
    updated_at: datetime
    updated_by: str
    #: None: the version before is not kept any more.
    changes: list[Difference] | None


class Secret(_Record, frozen=True, kw_only=True):
    """A secret of an integration, without its value."""

    name: str
    version: int
    created_at: datetime
    revealed_at: datetime | None


class RevealedSecret(_Record, frozen=True, kw_only=True):
    """A secret with its value, which is shown once a version."""

    name: str
    version: int
    value: str

    def __repr__(self) -> str:
        """Without the value."""
        return f"RevealedSecret(name={self.name!r}, version={self.version})"


class Rotated(_Record, frozen=True, kw_only=True):
    """A new signing secret, shown this once."""

    signing_secret: str
    version: int
    #: How long receivers may still check with the one before; None: not any more.
    previous_valid_until: datetime | None

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Rotated(version={self.version}, previous_valid_until={self.previous_valid_until!r})"


class Hour(_Record, frozen=True, kw_only=True):
    """How an integration's deliveries ended in one hour."""

    start_at: datetime
    delivered: int
    rejected: int
    exhausted: int
    blocked: int
    discarded: int
    success_rate: float | None


class ListedDelivery(_Record, frozen=True, kw_only=True):
    """One event for one integration, and how far that is."""

    id: str
    app: str
    integration: str
    event: str
    event_id: str
    record_id: str
    cause: Cause
    of: str | None
    outcome: Outcome | Literal["open"]
    attempt: int
    repeats: int
    #: Of the last answer.
    status: int | None
    reason: str
    accepted_at: datetime
    began_at: datetime
    last_at: datetime
    ended_at: datetime | None
    next_due_at: datetime | None


class Timing(_Record, frozen=True, kw_only=True):
    """How long each step of a request took; None: it did not come so far, or the connection was there."""

    dns_ms: float | None
    connect_ms: float | None
    wait_ms: float | None
    read_ms: float | None
    total_ms: int


class Attempt(_Record, frozen=True, kw_only=True):
    """One request, or the record of a delivery that ended without one."""

    number: int
    is_repeat: bool
    outcome: Outcome | None
    reason: str
    detail: str | None
    started_at: datetime
    finished_at: datetime
    url: str
    request_headers: dict[str, str]
    status: int | None
    response_headers: dict[str, str]
    response_body: str
    response_body_is_base64: bool
    truncated: bool
    timing: Timing
    next_due_at: datetime | None
    config_version: int
    epoch: int


class Delivery(ListedDelivery, frozen=True, kw_only=True):
    """A delivery with every attempt."""

    attempts: list[Attempt]
    repeated_by: list[ListedDelivery]


class MadeDelivery(_Record, frozen=True, kw_only=True):
    """A delivery that somebody has asked for."""

    id: str
    of: str | None
    integration: str
    attempt: int


class SampleDelivery(MadeDelivery, frozen=True, kw_only=True):
    """The delivery of a sample event."""

    event: str
    event_id: str


class NotRetried(_Record, frozen=True, kw_only=True):
    """A delivery that could not be sent again."""

    of: str
    code: Literal["integration_deleted", "payload_expired"]


class Retried(_Record, frozen=True, kw_only=True):
    """What was sent again."""

    items: list[MadeDelivery]
    #: They count towards the limit.
    refused: list[NotRetried]
    #: Others may fit the filter.
    more: bool
    #: The cursor to go on with; None: nothing is left, or an older release answers, which has no cursors.
    next: str | None = None


class Progress(_Record, frozen=True, kw_only=True):
    """How far a replay is."""

    share: float
    ended: int
    outcomes: dict[str, int]
    reached_at: datetime | None


class Replay(_Record, frozen=True, kw_only=True):
    """Past events that are sent to one integration again."""

    id: str
    integration: str
    since: datetime = msgspec.field(name="from")
    until: datetime
    types: list[str] | None
    event_ids: list[str] | None
    rate: int
    status: Literal["running", "cancelled", "done", "failed"]
    reason: str | None
    progress: Progress
    created_by: str
    created_at: datetime
    updated_at: datetime


class Header(_Record, frozen=True, kw_only=True):
    """A header of a request that a dry run shows."""

    name: str
    value: str


class WouldBeBlocked(_Record, frozen=True, kw_only=True):
    """Why nothing would be sent."""

    code: str
    detail: str


class DryRunRequest(_Record, frozen=True, kw_only=True):
    """A request as it would be sent; secrets are masked."""

    event_id: str
    event: str
    accepted_at: datetime
    delivered_live: bool
    url: str | None
    headers: list[Header]
    body: str
    refusal: WouldBeBlocked | None


class DryRun(_Record, frozen=True, kw_only=True):
    """What a replay would send."""

    events: int
    by_type: dict[str, int]
    repeats_left_out: int
    seconds: float
    sample: list[DryRunRequest]


class AuditRecord(_Record, frozen=True, kw_only=True):
    """Who did what, allowed or refused."""

    id: str
    app: str
    at: datetime
    who: str
    ip: str | None
    action: str
    target: str
    allowed: bool
    details: dict[str, str]
    #: In hexadecimal; the chain is explained in docs/security.md.
    previous_hash: str
    hash: str
