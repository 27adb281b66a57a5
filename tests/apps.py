"""Apps for tests: valid by default, overridden by keyword."""

import hashlib
from typing import Any, Literal

from streams.records import AppConfig, IngestKey

PUBLIC_KEY = "pk_test_public"
SECRET_KEY = "sk_test_secret"
ORIGIN = "https://shop.example"


def make_key(key: str, kind: Literal["public", "secret"]) -> IngestKey:
    return IngestKey(id=f"key_{kind}", kind=kind, hash=hashlib.sha256(key.encode()).digest(), created_at_ms=0)


def make_app(app: str = "demo", **changes: Any) -> AppConfig:
    fields: dict[str, Any] = {
        "app": app,
        "name": app.title(),
        "keys": [make_key(PUBLIC_KEY, "public"), make_key(SECRET_KEY, "secret")],
        "tokens": [],
        "origins": [ORIGIN],
        "event_types": ["cart_filled"],
        "allow_http": True,
        "max_active": 3,
        "version": 1,
        "created_at_ms": 0,
        "updated_at_ms": 0,
        "updated_by": "test",
    }
    return AppConfig(**{**fields, **changes})
