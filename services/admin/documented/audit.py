"""The audit log."""

from typing import Any, Final

from services.admin.documented.words import FLAG, TEXT, TIME, nullable, page_of, shown

_HASH: Final = {"type": "string", "pattern": "^([0-9a-f]{64})?$"}

SCHEMAS: Final[dict[str, Any]] = {
    "AuditRecord": shown(
        {
            "id": {"type": "string", "pattern": "^aud_"},
            "app": TEXT,
            "at": TIME,
            "who": {**TEXT, "description": "Name of the token."},
            "ip": nullable(TEXT),
            "action": {**TEXT, "examples": ["integration.create"]},
            "target": TEXT,
            "allowed": {**FLAG, "description": "False: it was asked for and refused."},
            "details": {"type": "object", "additionalProperties": TEXT},
            "previousHash": {**_HASH, "description": "`hash` of the app's record before it; empty for the first."},
            "hash": _HASH,
        }
    ),
    "Audit": page_of("AuditRecord"),
}
