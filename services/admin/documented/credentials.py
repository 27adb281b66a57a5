"""Keys of ingest, and tokens of the admin API."""

from typing import Any, Final, get_args

from services.admin.credentials import KEY_PREFIXES, TOKEN_NAME, TOKEN_PREFIX
from services.admin.documented.words import TEXT, TIME, asked, choice, page_of, shown
from streams.records import KeyKind, Role

_KIND: Final = {**choice(*get_args(KeyKind)), "description": "Public for web pages, secret for servers."}
_ROLE: Final = choice(*get_args(Role))
_NAME: Final = {"type": "string", "pattern": f"^{TOKEN_NAME.pattern}$"}

_KEY: Final = {"id": TEXT, "kind": _KIND, "createdAt": TIME}
_TOKEN: Final = {"name": TEXT, "role": _ROLE, "createdAt": TIME}
_ONCE: Final = "Only in the answer to the request that made it."

SCHEMAS: Final[dict[str, Any]] = {
    "NewKey": asked({"kind": _KIND}, required=("kind",)),
    "Key": shown(_KEY),
    "Keys": page_of("Key"),
    "CreatedKey": shown(
        _KEY
        | {"key": {"type": "string", "pattern": f"^({'|'.join(sorted(KEY_PREFIXES.values()))})", "description": _ONCE}}
    ),
    "NewToken": asked(
        {"name": {**_NAME, "description": "The `who` of what it does; no other token's."}, "role": _ROLE},
        required=("name", "role"),
    ),
    "Token": shown(_TOKEN),
    "Tokens": page_of("Token"),
    "CreatedToken": shown(_TOKEN | {"token": {"type": "string", "pattern": f"^{TOKEN_PREFIX}", "description": _ONCE}}),
}

PARAMETERS: Final[dict[str, Any]] = {
    "key": {"description": "The key's id.", "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}},
    "token": {"description": "The token's name.", "schema": _NAME},
}
