"""Records for tests: valid by default, overridden by keyword; and any record at all, for properties."""

from typing import Any

from streams.records import Delivery, IntegrationConfig, Replay


def make_delivery(**changes: Any) -> Delivery:
    fields: dict[str, Any] = {
        "delivery_id": "dlv_1",
        "integration": "int_1",
        "app": "demo",
        "record_id": "rec_1",
        "event_id": "evt_1",
        "type": "call_ended",
        "payload": b'{"callId":"call_1"}',
        "occurred_at_ms": 1_700_000_000_000,
        "accepted_at_ms": 1_700_000_000_001,
        "config_offset": 3,
        "source_partition": 0,
        "source_offset": 7,
        "source_generation": 1,
    }
    return Delivery(**fields | changes)


def make_integration(integration: str = "int_1", app: str = "demo", **changes: Any) -> IntegrationConfig:
    fields: dict[str, Any] = {
        "id": integration,
        "app": app,
        "profile": "integration",
        "name": "CRM",
        "url": "https://crm.example/hooks",
        "events": ["call_ended"],
        "headers": {},
        "secrets": {},
        "signing_secrets": [],
        "signing": False,
        "timeout_ms": 5_000,
        "retry_policy": "transient",
        "max_attempts": 3,
        "delays_ms": [5_000, 20_000],
        "retry_on_429": False,
        "ordering": "integration",
        "max_in_flight": 1,
        "while_paused": "hold",
        "auto_pause": True,
        "status": "active",
        "version": 1,
        "epoch": 1,
        "skip_before": 0,
        "created_at_ms": 0,
        "updated_at_ms": 0,
        "updated_by": "test",
    }
    return IntegrationConfig(**fields | changes)


def make_replay(replay: str = "rpl_1", **changes: Any) -> Replay:
    """As it was asked for."""
    fields: dict[str, Any] = {
        "id": replay,
        "app": "demo",
        "integration": "int_1",
        "from_ms": 0,
        "until_ms": 2**62,
        "rate": 20,
        "state": "running",
        "asked_by": "anna",
        "created_at_ms": 0,
        "updated_by": "anna",
        "updated_at_ms": 0,
    }
    return Replay(**fields | changes)
