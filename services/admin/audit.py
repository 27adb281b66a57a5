"""
The audit log: who did what, chained per app, so that a record that is changed or taken out shows.

Pure. A record's hash covers all its fields and the hash of the app's record before it.
"""

import hashlib
from typing import Final

import msgspec
import structlog

from streams import codec
from streams.records import AuditRecord

log = structlog.get_logger(__name__)

#: What stands before the first record of an app.
FIRST: Final = b""


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


class Chains:
    """Where the chain of each app ends: the hash of its newest record."""

    def __init__(self) -> None:
        self._last: dict[str, bytes] = {}

    def apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:  # noqa: ARG002  # as followers call it
        """Fold one record of topic `audit` in."""
        try:
            record = codec.decode_as(AuditRecord, value)
        except codec.Unreadable as error:
            _log_unreadable(offset, error)
            return
        self._last[record.app] = record.hash

    def clear(self) -> None:
        """Forget everything; see `Follower`."""
        self._last.clear()

    def last(self, app: str) -> bytes:
        """The hash that the app's next record is chained to."""
        return self._last.get(app, FIRST)


def _log_unreadable(offset: int, error: codec.Unreadable) -> None:
    log.error("audit.unreadable", offset=offset, reason=str(error), hint="the chain goes on behind it")
