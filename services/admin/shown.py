"""
An integration as HTTP shows it: the contract's JSON, in camelCase, without a secret.

Header values are opened only to show which secrets they refer to; every literal part but a scheme's word
(`Bearer {secret.token}`) is masked, since it may itself be a key.
"""

from typing import Any, Final

from services.runtime.times import iso
from services.vault.references import names, parts
from services.vault.seal import Context, Opener, Unsealable
from streams.records import IntegrationConfig, IntegrationState
from streams.success_rate import rate_of

MASK: Final = "***"

#: Words before a secret that everybody knows: HTTP authentication schemes (IANA), and what common APIs add.
_SCHEMES: Final = frozenset({"bearer", "basic", "digest", "token", "apikey", "api-key", "key", "bot", "hmac"})


def integration_json(
    config: IntegrationConfig,
    keyring: Opener,
    *,
    queue_age_ms: int | None = None,
    state: IntegrationState | None = None,
    now_ms: int = 0,
) -> dict[str, Any]:
    """
    The integration as the contract shows it.

    Args:
        queue_age_ms: how long the oldest delivery has been held; None where none is.
        state: what the breaker says of it; None where nothing ended yet.
        now_ms: of the answer: what ended more than a day before it is in no success rate.
    """
    status, reason = status_of(config, state)
    is_current = state is not None and state.epoch >= config.epoch
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
        "template": config.template,
        "sendTraceparent": config.send_traceparent,
        "status": status,
        "statusReason": reason,
        "consecutiveFailures": state.consecutive_failures if state is not None and is_current else 0,
        "successRate": None if state is None else _rate(state, now_ms),
        "queueAgeMs": queue_age_ms,
        "lastDelivery": None if state is None else _last_delivery(state),
        "version": config.version,
        "epoch": config.epoch,
        "createdAt": iso(config.created_at_ms),
        "updatedAt": iso(config.updated_at_ms),
    }


def status_of(config: IntegrationConfig, state: IntegrationState | None) -> tuple[str, str | None]:
    """Paused by a person, else what the breaker says of the epoch that it is in; and why."""
    if config.status == "paused":
        return "paused", config.status_reason
    if state is not None and state.epoch >= config.epoch and state.state != "active":
        return state.state, state.reason
    return "active", config.status_reason


def _rate(state: IntegrationState, now_ms: int) -> float | None:
    """The share of delivered ones, three digits; None where nothing ended within a day."""
    rate = rate_of(state, now_ms)
    return None if rate is None else round(rate, 3)


def _last_delivery(state: IntegrationState) -> dict[str, Any] | None:
    if state.last_delivery_id is None or state.last_at_ms is None:
        return None
    return {
        "id": state.last_delivery_id,
        "event": state.last_event_type,
        "outcome": state.last_outcome,
        "status": state.last_status,
        "attempt": state.last_attempt,
        "at": iso(state.last_at_ms),
    }


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


def _shown_header(config: IntegrationConfig, name: str, keyring: Opener) -> str:
    try:
        return masked(keyring.open(config.headers[name], Context.of_header(config.app, config.id, name)).decode())
    except Unsealable:
        return MASK
