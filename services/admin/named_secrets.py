"""
The named secrets of an integration: put, delete, list, reveal. From the record before to the record after.

Pure but for the nonces of what is sealed. No plain value is in a refusal or in what these return, but for the one that
is revealed. Whoever calls writes the record, and an audit record of every reveal that is tried, with the action
`REVEAL`, the integration as its target, `reveal_details`, and whether it was allowed (`Problem` raised or not).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from schemas.headers import refused_value
from services.admin.fields import Fields, Refusal, kind, shortened
from services.admin.rules import MAX_SECRETS, Refused, secret_fault, secret_name_fault
from services.runtime import kinds
from services.runtime.problems import Problem
from services.runtime.times import iso
from services.vault.references import names, render
from services.vault.seal import Context, Opener, Sealer, Unsealable
from streams.records import AuditRecord, IntegrationConfig, Secret

#: Reveals of one integration within `REVEAL_WINDOW_MS`. Source: product/integrations.txt, "Secrets".
MAX_REVEALS: Final = 10
REVEAL_WINDOW_MS: Final = 3_600_000

#: Action of the audit records that tell of reveals; those that were allowed are counted.
REVEAL: Final = "secret.reveal"

#: Stands for a value that cannot be looked at while the rest of a header is: a letter that any header may carry.
_ANY: Final = "x"


@dataclass(frozen=True, slots=True)
class Revealed:
    """A secret in plain, for one answer. `repr` shows no value."""

    #: To be written before the value is shown: it says that this version was revealed.
    config: IntegrationConfig
    name: str
    version: int
    value: str = field(repr=False)


def with_secret(
    config: IntegrationConfig, name: str, body: Any, *, vault: Sealer, now_ms: int, who: str
) -> IntegrationConfig:
    """
    The integration with this secret: new, or the next version of the one of that name, which is gone then.

    Args:
        body: the request's JSON: `{"value": "…"}`.
        vault: of the app.
        who: name of the token that asked.

    Raises:
        Refused: name or value is none that a secret can have, a header could not be sent with it, or there are too
            many.
    """
    value = _value(name, body)
    before = config.secrets.get(name)
    if before is None and len(config.secrets) >= MAX_SECRETS:
        raise Refused([Refusal("name", f"is one more than the {MAX_SECRETS} secrets that an integration may have")])
    # In a URL a secret is percent-encoded as a whole, so there is no value that could spoil one.
    if fault := _header_fault(config, name, value, vault):
        raise Refused([Refusal("value", fault)])
    version = before.version + 1 if before else 1
    context = Context.of_secret(config.app, config.id, name, version)
    secret = Secret(version=version, sealed=vault.seal(value.encode(), context), created_at_ms=now_ms)
    return _next(config, config.secrets | {name: secret}, now_ms, who)


def without_secret(config: IntegrationConfig, name: str, *, vault: Opener, now_ms: int, who: str) -> IntegrationConfig:
    """
    The integration without this secret.

    Raises:
        Problem: 404 `secret_unknown`; 409 `secret_in_use`, with the places that refer to it.
    """
    secret_of(config, name)
    if places := _places(config, name, vault):
        raise Problem(
            kinds.SECRET_IN_USE,
            f"{', '.join(places)} of the integration refer to {{secret.{name}}}, and nothing could be sent without it. "
            "Take the references out first.",
            usedBy=places,
        )
    return _next(config, {key: each for key, each in config.secrets.items() if key != name}, now_ms, who)


def secrets_json(config: IntegrationConfig) -> list[dict[str, Any]]:
    """The integration's secrets as HTTP shows them, by name: never a value."""
    return [
        {
            "name": name,
            "version": secret.version,
            "createdAt": iso(secret.created_at_ms),
            "revealedAt": None if secret.revealed_at_ms is None else iso(secret.revealed_at_ms),
        }
        for name, secret in sorted(config.secrets.items())
    ]


def revealed(
    config: IntegrationConfig, name: str, reveals_ms: Iterable[int], *, vault: Opener, now_ms: int, who: str
) -> Revealed:
    """
    The secret in plain, once a version, and the record that says so.

    Args:
        reveals_ms: when secrets of this integration were revealed, of any name and version, in any order and as far
            back as is known; milliseconds since 1970 UTC. Tries that were refused do not count.

    Raises:
        Problem: 404 `secret_unknown`, 409 `already_revealed`, 429 `reveal_limit`, 409 `secret_unreadable`.
    """
    secret = secret_of(config, name)
    if secret.revealed_at_ms is not None:
        raise Problem(
            kinds.ALREADY_REVEALED,
            f"Version {secret.version} of the secret {name} was revealed at {iso(secret.revealed_at_ms)}, and a "
            "version is shown once. Store it anew if you need to see it.",
            revealedAt=iso(secret.revealed_at_ms),
        )
    _within_limit(reveals_ms, now_ms)
    try:
        plain = vault.open(secret.sealed, Context.of_secret(config.app, config.id, name, secret.version)).decode()
    except Unsealable as error:
        # Before the one reveal is spent.
        raise Problem(kinds.SECRET_UNREADABLE, f"The secret {name} does not open: {error}.") from None
    shown = msgspec.structs.replace(secret, revealed_at_ms=now_ms)
    return Revealed(_next(config, config.secrets | {name: shown}, now_ms, who), name, secret.version, plain)


def reveal_details(config: IntegrationConfig, name: str, refused: Problem | None = None) -> dict[str, str]:
    """
    What the audit record of a reveal says beside who, when and from where: which secret, which version, and why not.

    Args:
        config: as it was before.
        refused: what `revealed` raised.
    """
    secret = config.secrets.get(name)
    version = {} if secret is None else {"version": str(secret.version)}
    return {"secret": shortened(name)} | version | ({} if refused is None else {"refused": refused.code})


def reveals_of(records: Iterable[AuditRecord], integration: str) -> list[int]:
    """When secrets of this integration were revealed, as these records tell; for `revealed`."""
    return [
        record.at_ms
        for record in records
        if record.action == REVEAL and record.target == integration and record.allowed
    ]


def secret_of(config: IntegrationConfig, name: str) -> Secret:
    """
    The secret of this name, as it is stored.

    Raises:
        Problem: 404 `secret_unknown`.
    """
    secret = config.secrets.get(name)
    if secret is None:
        raise Problem(
            kinds.SECRET_UNKNOWN,
            f"The integration has no secret of the name {shortened(name)!r}. List them to find it.",
        )
    return secret


def _value(name: str, body: Any) -> str:
    if not isinstance(body, dict):
        raise Refused([Refusal("", f"the body must be an object, not {kind(body)}")])
    fields = Fields(body)
    if fault := secret_name_fault(name):
        fields.refuse("name", fault)
    if not fields.has("value"):
        fields.refuse("value", "is required")
    elif fault := secret_fault(body["value"]):
        fields.refuse("value", fault)
    fields.nothing_else()
    if fields.refusals:
        raise Refused(fields.refusals)
    return str(body["value"])


def _header_fault(config: IntegrationConfig, name: str, value: str, vault: Opener) -> str | None:
    """Why a header could not be sent with this value of the secret, or None."""
    for header, template in _headers(config, vault).items():
        if name in names(template):
            others = {each: _opened(config, each, vault) for each in names(template)}
            if fault := refused_value(header, render(template, others | {name: value})):
                return f"cannot be sent where the header {shortened(header)} refers to it: {fault}"
    return None


def _places(config: IntegrationConfig, name: str, vault: Opener) -> list[str]:
    """Where the secret is referred to: `url`, `headers.Authorization`."""
    places = ["url"] if name in names(config.url) else []
    headers = _headers(config, vault).items()
    return places + [f"headers.{header}" for header, template in headers if name in names(template)]


def _headers(config: IntegrationConfig, vault: Opener) -> Mapping[str, str]:
    """The headers' values, references not filled in, of those that open: what does not is sent by nobody."""
    found = {}
    for header, sealed in config.headers.items():
        try:
            found[header] = vault.open(sealed, Context.of_header(config.app, config.id, header)).decode()
        except Unsealable:
            continue
    return found


def _opened(config: IntegrationConfig, name: str, vault: Opener) -> str:
    """The value of a secret that stands beside another one; any, where it is not there or does not open."""
    secret = config.secrets.get(name)
    if secret is None:
        return _ANY
    try:
        return vault.open(secret.sealed, Context.of_secret(config.app, config.id, name, secret.version)).decode()
    except Unsealable:
        return _ANY


def _within_limit(reveals_ms: Iterable[int], now_ms: int) -> None:
    """
    Hold an integration to its reveals an hour.

    Raises:
        Problem: 429 `reveal_limit`, with the seconds until there is room for one.
    """
    recent = sorted(at_ms for at_ms in reveals_ms if now_ms - at_ms < REVEAL_WINDOW_MS)
    if len(recent) < MAX_REVEALS:
        return
    free_at_ms = recent[-MAX_REVEALS] + REVEAL_WINDOW_MS
    raise Problem(
        kinds.REVEAL_LIMIT,
        f"{MAX_REVEALS} secrets of this integration were revealed within an hour, and no more may be. Wait.",
        headers={"Retry-After": str(-((now_ms - free_at_ms) // 1000))},
        limit=MAX_REVEALS,
    )


def _next(config: IntegrationConfig, secrets: dict[str, Secret], now_ms: int, who: str) -> IntegrationConfig:
    return msgspec.structs.replace(
        config, secrets=secrets, version=config.version + 1, updated_at_ms=now_ms, updated_by=who
    )
