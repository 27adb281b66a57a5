"""
The audit log: who did what, chained per app, so that a record that is changed or taken out shows.

A record's hash covers all its fields and the hash of the app's record before it. The end of an app's chain also says
which state of the app a change was made for: see `services.admin.changes`. Pure.
"""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from streams import codec
from streams.records import AuditRecord

log = structlog.get_logger(__name__)

#: What stands before the first record of an app.
FIRST: Final = b""

#: Records kept in memory, the newest: those that `GET …/audit` shows. `tenterhook audit` reads the whole topic.
KEPT_RECORDS: Final = 50_000

#: How long a create is remembered that came with an `Idempotency-Key`, and how many at most, the newest.
KEEP_KEYS_MS: Final = 24 * 3_600_000
KEPT_KEYS: Final = 100_000

#: Names of details that remember a create: the SHA-256 of who used which key, and of the body.
KEY_DETAIL: Final = "idempotencyKey"
BODY_DETAIL: Final = "body"


def chained(
    *,
    id: str,  # noqa: A002  # the field's name
    app: str,
    at_ms: int,
    who: str,
    ip: str | None,
    action: str,
    target: str,
    allowed: bool,
    details: dict[str, str],
    previous_hash: bytes,
) -> AuditRecord:
    """The record with its hash. *details*: never a secret."""
    record = AuditRecord(
        id=id,
        app=app,
        at_ms=at_ms,
        who=who,
        ip=ip,
        action=action,
        target=target,
        allowed=allowed,
        details=details,
        previous_hash=previous_hash,
        hash=b"",
    )
    return msgspec.structs.replace(record, hash=hash_of_record(record))


def hash_of_record(record: AuditRecord) -> bytes:
    """SHA-256 over all fields but the hash itself: as JSON, the names sorted, bytes in base64."""
    fields = {name: value for name, value in msgspec.structs.asdict(record).items() if name != "hash"}
    return hashlib.sha256(msgspec.json.encode(fields, order="deterministic")).digest()


@dataclass(frozen=True, slots=True)
class Broken:
    """A record that does not continue its app's chain as it should."""

    record: AuditRecord
    reason: str


class Verification:
    """Holds chains together, record by record in the order of the topic."""

    def __init__(self, *, from_the_first: bool = False) -> None:
        """
        Args:
            from_the_first: nothing has fallen out of retention yet, so that each app's first record follows nothing.
        """
        self._from_the_first = from_the_first
        self._ends: dict[str, bytes] = {}

    def see(self, record: AuditRecord) -> Broken | None:
        """What is wrong with the next record, if anything is; the chain goes on behind it."""
        before = self._ends.get(record.app, FIRST if self._from_the_first else None)
        self._ends[record.app] = record.hash
        if hash_of_record(record) != record.hash:
            return Broken(record, "its hash is not that of its fields: it was changed")
        if before is not None and before != record.previous_hash:
            return Broken(record, "it does not continue the record before it: one was changed, put in or taken out")
        return None


def verified(records: Iterable[AuditRecord]) -> Iterator[Broken]:
    """
    Where the chains of these records, in the order of the topic, are broken.

    The first record of an app may follow any other: what is older than the topic's retention is gone.
    """
    chains = Verification()
    return (broken for record in records if (broken := chains.see(record)) is not None)


@dataclass(frozen=True, slots=True)
class Created:
    """A create that came with an `Idempotency-Key`."""

    #: SHA-256 of its body, hexadecimal.
    body: str
    #: What it made.
    target: str
    at_ms: int


class Chains:
    """The audit log as the newest records tell it: where each app's chain ends, and what was made under which key."""

    def __init__(self) -> None:
        self._last: dict[str, bytes] = {}
        self._records: deque[AuditRecord] = deque(maxlen=KEPT_RECORDS)
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._created: OrderedDict[str, Created] = OrderedDict()
        #: How often all was forgotten, since the log was replaced.
        self.forgotten = 0

    def apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:  # noqa: ARG002  # as followers call it
        """Fold one record of topic `audit` in."""
        try:
            record = codec.decode_as(AuditRecord, value)
        except codec.Unreadable as error:
            _log_unreadable(offset, error)
            return
        self._last[record.app] = record.hash
        self._records.append(record)
        self._ids[record.id] = None
        if len(self._ids) > KEPT_RECORDS:
            self._ids.popitem(last=False)
        if (used := record.details.get(KEY_DETAIL)) is not None:
            self._created[used] = Created(record.details.get(BODY_DETAIL, ""), record.target, record.at_ms)
            self._created.move_to_end(used)
            if len(self._created) > KEPT_KEYS:
                self._created.popitem(last=False)

    def clear(self) -> None:
        """Forget everything; see `Follower`."""
        for kept in (self._last, self._records, self._ids, self._created):
            kept.clear()
        self.forgotten += 1

    def last(self, app: str) -> bytes:
        """The hash that the app's next record is chained to."""
        return self._last.get(app, FIRST)

    def has(self, record_id: str) -> bool:
        """Whether a record of this id is among the newest."""
        return record_id in self._ids

    def created(self, key: str, now_ms: int) -> Created | None:
        """What was made under this key within a day; see `KEY_DETAIL`."""
        found = self._created.get(key)
        return found if found is not None and now_ms - found.at_ms < KEEP_KEYS_MS else None

    def newest_first(self, app: str) -> Iterator[AuditRecord]:
        """The app's records among the newest."""
        return (record for record in reversed(self._records) if record.app == app)


def _log_unreadable(offset: int, error: codec.Unreadable) -> None:
    log.error("audit.unreadable", offset=offset, reason=str(error), hint="the chain goes on behind it")
