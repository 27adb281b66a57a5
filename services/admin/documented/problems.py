"""How a problem looks. Which there are, and when they come, `services.runtime.kinds` says."""

from typing import Any, Final

from services.admin.documented.words import TEXT, shown
from services.runtime.problems import TYPE_PREFIX

_FIELD: Final = {**TEXT, "description": "The field of the JSON that is wrong, nested with dots; empty: all of it."}

SCHEMAS: Final[dict[str, Any]] = {
    "Problem": shown(
        {
            "type": {**TEXT, "pattern": f"^{TYPE_PREFIX}[a-z0-9_]+$", "description": "A name, not an address."},
            "title": {**TEXT, "description": "The same for every problem of the code."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {**TEXT, "description": "What exactly is wrong, and what to do. For people; it may change."},
            "code": {**TEXT, "pattern": "^[a-z0-9_]+$", "description": "For programs; it stays the same."},
            "field": _FIELD,
            "errors": {"type": "array", "items": shown({"field": _FIELD, "detail": TEXT})},
        },
        optional=("field", "errors"),
        description="Why a request was refused. RFC 9457. Some codes have members of their own.",
    )
}
