"""
An integration as HTTP shows it: the contract's JSON, in camelCase, without a secret.

Header values are opened only to show which secrets they refer to; every literal part but a scheme's word
(`Bearer {secret.token}`) is masked, since it may itself be a key.
"""

from datetime import UTC, datetime
from typing import Any, Final

from services.vault.references import names, parts
from services.vault.seal import Context, Keyring, Unsealable
from streams.records import IntegrationConfig

MASK: Final = "***"

#: Words before a secret that everybody knows: HTTP authentication schemes (IANA), and what common APIs add.
_SCHEMES: Final = frozenset({"bearer", "basic", "digest", "token", "apikey", "api-key", "key", "bot", "hmac"})


def integration_json(config: IntegrationConfig, keyring: Keyring) -> dict[str, Any]:
    """
    The integration as the contract shows it.

    What the breaker and the results tell (failures, success rate, queue, last delivery) is not followed yet:
    those fields are there with 0 or null.
    """
    return {
        "id": config.id,
        "profile": config.profile,
        "name": config.name,
        "url": config.url,
        "events": config.events,
        "headers": {name: _shown_header(config, name, keyring) for name in config.headers},
        "timeoutMs": config.timeout_ms,
        "retry": {
            "policy": config.retry_policy,
            "maxAttempts": config.max_attempts,
            "delaysMs": config.delays_ms,
            "on429": config.retry_on_429,
        },
        "ordering": config.ordering,
        "maxInFlight": config.max_in_flight,
        "whilePaused": config.while_paused,
        "autoPause": config.auto_pause,
        "signing": config.signing,
        "status": config.status,
        "statusReason": config.status_reason,
        "consecutiveFailures": 0,
        "successRate": None,
        "queueAgeMs": None,
        "lastDelivery": None,
        "version": config.version,
        "epoch": config.epoch,
        "createdAt": iso(config.created_at_ms),
        "updatedAt": iso(config.updated_at_ms),
    }


def iso(at_ms: int) -> str:
    """Milliseconds since 1970 UTC as ISO 8601 with milliseconds: `2026-01-02T03:04:05.678Z`."""
    seconds, millis = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{millis:03}Z"


def masked(template: str) -> str:
    """
    A header's value with nothing in it that could be secret.

    References stay, so do the words of authentication schemes before one; every other piece becomes `***`.
    """
    if not names(template):
        return MASK
    return "".join(text if is_reference else _masked_literal(text) for text, is_reference in parts(template))


def _masked_literal(text: str) -> str:
    return text if not text.strip() or text.strip().lower() in _SCHEMES else MASK


def _shown_header(config: IntegrationConfig, name: str, keyring: Keyring) -> str:
    try:
        return masked(keyring.open(config.headers[name], Context.of_header(config.app, config.id, name)).decode())
    except Unsealable:
        return MASK
