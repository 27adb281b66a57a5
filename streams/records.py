"""
The records of the log, as frozen structs. Field names are those of the Avro schemas.

Meaning and unit of every field stand in `schemas/<name>.avsc`, once. Data only: no I/O, no clock.
"""

from typing import Literal

import msgspec

IdSpace = Literal["public", "secret"]
Cause = Literal["live", "retry", "replay", "test"]
Outcome = Literal["delivered", "rejected", "exhausted", "blocked", "discarded"]
KeyKind = Literal["public", "secret"]
CommandOutcome = Literal["done", "stale", "late", "refused"]
Role = Literal["viewer", "operator", "admin"]
ReplayState = Literal["running", "cancelled", "done", "failed"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    record_id: str
    app: str
    event_id: str
    id_space: IdSpace
    id_supplied: bool
    type: str
    payload: bytes
    occurred_at_ms: int
    accepted_at_ms: int
    ordering_key: str | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    delivery_id: str
    integration: str
    app: str
    record_id: str
    event_id: str
    type: str
    payload: bytes
    occurred_at_ms: int
    accepted_at_ms: int
    ordering_key: str | None = None
    cause: Cause = "live"
    run: str = "0"
    of: str | None = None
    attempt: int = 1
    due_at_ms: int | None = None
    config_offset: int
    source_partition: int
    source_offset: int
    source_generation: int
    retry_line: str | None = None
    retry_partition: int | None = None
    retry_generation: int | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    delivery_id: str
    integration: str
    app: str
    record_id: str
    event_id: str
    type: str
    cause: Cause
    of: str | None = None
    attempt: int
    outcome: Outcome | None = None
    reason: str
    detail: str | None = None
    epoch: int
    config_version: int
    url: str
    request_headers: dict[str, str]
    status: int | None = None
    response_headers: dict[str, str]
    response_body: bytes
    response_truncated: bool
    started_at_ms: int
    finished_at_ms: int
    dns_us: int | None = None
    connect_us: int | None = None
    tls_us: int | None = None
    wait_us: int | None = None
    read_us: int | None = None
    next_attempt: int | None = None
    next_due_at_ms: int | None = None
    next_slot: int | None = None
    accepted_at_ms: int
    source_partition: int
    source_offset: int
    source_generation: int
    attempts_before: int = 0

    @property
    def attempts(self) -> int:
        """Number of the highest attempt that was made of the delivery by now; 0 where none was."""
        return self.attempt or self.attempts_before


class FanOutReceipt(msgspec.Struct, frozen=True, kw_only=True):
    record_id: str
    app: str
    event_id: str
    type: str
    config_offset: int
    integrations: list[str]
    accepted_at_ms: int
    source_partition: int
    source_offset: int
    source_generation: int
    id_space: str | None = None
    repeat_of: str | None = None


class WonIds(msgspec.Struct, frozen=True, kw_only=True):
    source_partition: int
    source_generation: int
    receipts_until: int | None = None
    newest_ms: int
    ids: bytes


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    topic_ids: dict[str, str]
    partitions: dict[str, int]


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    sealed: bytes
    created_at_ms: int
    revealed_at_ms: int | None = None


class SigningSecret(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    sealed: bytes
    created_at_ms: int
    valid_until_ms: int | None = None


class IntegrationConfig(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    app: str
    profile: Literal["integration", "booking"]
    name: str
    url: str
    events: list[str]
    headers: dict[str, bytes]
    secrets: dict[str, Secret]
    signing_secrets: list[SigningSecret]
    signing: bool
    timeout_ms: int
    retry_policy: Literal["transient", "any_failure"]
    max_attempts: int
    delays_ms: list[int]
    retry_on_429: bool
    ordering: Literal["integration", "strict", "key", "none"]
    max_in_flight: int
    while_paused: Literal["hold", "discard"]
    auto_pause: bool
    status: Literal["active", "paused"]
    status_reason: str | None = None
    version: int
    epoch: int
    skip_before: int
    created_at_ms: int
    updated_at_ms: int
    updated_by: str
    from_before: int = 0
    from_ms: int = 0
    template: str | None = None
    send_traceparent: bool = False


class IngestKey(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: KeyKind
    hash: bytes
    created_at_ms: int


class Token(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    role: Role
    hash: bytes
    created_at_ms: int


class DataKey(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    wrapped: bytes
    created_at_ms: int


class AppConfig(msgspec.Struct, frozen=True, kw_only=True):
    app: str
    name: str
    keys: list[IngestKey]
    tokens: list[Token]
    origins: list[str]
    event_types: list[str]
    allow_http: bool
    max_active: int
    version: int
    created_at_ms: int
    updated_at_ms: int
    updated_by: str
    public_rate_per_s: int = 100
    data_keys: list[DataKey] = []


class IntegrationState(msgspec.Struct, frozen=True, kw_only=True):
    integration: str
    app: str
    state: Literal["active", "failing", "paused"]
    epoch: int
    reason: str | None = None
    consecutive_failures: int
    delivered: int
    ended: int
    last_delivery_id: str | None = None
    last_outcome: Outcome | None = None
    last_event_type: str | None = None
    last_status: int | None = None
    last_attempt: int | None = None
    last_at_ms: int | None = None
    applied_offset: int
    since_ms: int | None = None
    tripped_by_delivery: str | None = None
    tripped_by_attempt: int | None = None
    tripped_by_offset: int | None = None
    armed_from: int | None = None
    window: list[int] = []
    window_delivered: list[int] = []
    window_ended: list[int] = []


class BreakerRow(msgspec.Struct, frozen=True, kw_only=True):
    integration: str
    app: str
    epoch: int
    failures: int
    failing_since_ms: int | None = None
    failure_reason: str | None = None
    has_failed: bool = False
    failing_told_at_ms: int | None = None
    armed_from: int | None = None
    tripped_by_delivery: str | None = None
    tripped_by_attempt: int | None = None
    tripped_by_offset: int | None = None
    tripped_at_ms: int | None = None
    tripped_failures: int | None = None
    tripped_reason: str | None = None
    window: list[int]
    delivered: list[int]
    ended: list[int]
    recent: list[int]
    last_delivery_id: str | None = None
    last_outcome: Outcome | None = None
    last_event_type: str | None = None
    last_status: int | None = None
    last_attempt: int | None = None
    last_at_ms: int | None = None
    applied_offset: int


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    app: str
    at_ms: int
    who: str
    ip: str | None = None
    action: str
    target: str
    allowed: bool
    details: dict[str, str]
    previous_hash: bytes
    hash: bytes


class Write(msgspec.Struct, frozen=True, kw_only=True):
    topic: str
    key: str
    value: bytes | None
    headers: dict[str, bytes] = {}


class Command(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    app: str
    reply_to: str
    until_ms: int
    audit: bytes
    writes: list[Write]


class CommandReply(msgspec.Struct, frozen=True, kw_only=True):
    command: str
    outcome: CommandOutcome
    reason: str | None = None


class Header(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    value: bytes | None = None


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    topic: str
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = None
    headers: list[Header]
    code: str
    reason: str
    agent: str
    at_ms: int


class PutBack(msgspec.Struct, frozen=True, kw_only=True):
    quarantine_offset: int
    topic: str
    partition: int
    offset: int
    by: str
    at_ms: int


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    source_topic: str
    source_partition: int
    generation: int
    owner: str
    at_ms: int
    source_partitions: list[int] = []

    @property
    def sources(self) -> list[int]:
        """Every source partition that it speaks of."""
        return self.source_partitions or [self.source_partition]


class HandOver(msgspec.Struct, frozen=True, kw_only=True):
    delivery_id: str
    integration: str
    attempt: int
    source_partition: int
    source_offset: int
    source_generation: int
    until_ms: int


class OpenDelivery(msgspec.Struct, frozen=True, kw_only=True):
    offset: int
    attempt: int
    due_at_ms: int | None = None
    key: int = 0


class LaneRow(msgspec.Struct, frozen=True, kw_only=True):
    integration: str
    app: str
    generation: int
    reason: Literal["paused", "behind", "blocked", "other"]
    frontier: int
    open: list[OpenDelivery]
    until: int | None = None
    floor: int | None = None
    held: int
    oldest_at_ms: int | None = None
    held_to: int = 0
    marked: int = 0
    marked_retries: int = 0
    marked_newer: str = ""
    retried: list[int] = []


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    app: str
    integration: str
    from_ms: int
    until_ms: int
    types: list[str] = []
    event_ids: list[str] = []
    rate: int
    state: ReplayState
    reason: str | None = None
    asked_by: str
    created_at_ms: int
    updated_by: str
    updated_at_ms: int
    generation: int = -1
    events_from: int = 0
    events_next: int = 0
    events_until: int = 0
    reached_ms: int | None = None
    deliveries_from: int = 0
    marked: int = 0
    results_from: int = 0
    quarantine_from: int = 0
    outcomes: dict[str, int] = {}


class SharedSchema(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    text: str


Record = (
    Event
    | Delivery
    | Result
    | FanOutReceipt
    | WonIds
    | Installation
    | IntegrationConfig
    | AppConfig
    | IntegrationState
    | BreakerRow
    | AuditRecord
    | Quarantined
    | PutBack
    | Marker
    | HandOver
    | LaneRow
    | Command
    | CommandReply
    | Replay
    | SharedSchema
)
