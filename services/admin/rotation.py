"""
Rotation of an integration's signing secret: from the record before to the record after.

Pure but for the nonces of what is sealed; randomness comes in. During the overlap both secrets sign: Standard Webhooks'
header lists both signatures, the brand's one value stays on the oldest that is valid (`services/dispatcher/plan.py`).
"""

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from services.admin.compose import signing_secret
from services.admin.fields import Fields, Refusal, kind
from services.admin.rules import Refused
from services.runtime import kinds
from services.runtime.problems import Problem
from services.vault.seal import Context, DataKeyErased, Opener, Sealer, Unsealable
from streams.records import IntegrationConfig, SigningSecret

#: How long the old secret goes on being valid. Source: contract, "What a receiver gets".
DEFAULT_OVERLAP_MS: Final = 86_400_000
#: A week: whoever has not changed over by then will not, and what was rotated away may be known to somebody.
MAX_OVERLAP_MS: Final = 604_800_000
#: Secrets that are valid beside the newest, at most: each is one more signature in every request.
MAX_OLD: Final = 2

_FIRST: Final = 1


@dataclass(frozen=True, slots=True)
class Rotated:
    """The record after, and the new secret in plain, for one answer. `repr` shows no value."""

    config: IntegrationConfig
    #: Of the new secret.
    version: int
    #: When the one before ends, milliseconds since 1970 UTC; None where it has ended.
    old_until_ms: int | None
    secret: str = field(repr=False)


def overlap_ms(body: Any) -> int:
    """
    How long a rotation with this JSON body leaves the old secret valid: `{"overlapMs": 3600000}` or `{"now": true}`.

    A day where it does not say; 0 for now. *body*: None where there was none.

    Raises:
        Refused: it says something else, or both.
    """
    if body is None:
        return DEFAULT_OVERLAP_MS
    if not isinstance(body, dict):
        raise Refused([Refusal("", f"the body must be an object, not {kind(body)}")])
    fields = Fields(body)
    is_now = fields.flag("now", default=False)
    overlap = fields.number("overlapMs", DEFAULT_OVERLAP_MS, least=1, most=MAX_OVERLAP_MS)
    if is_now and fields.has("overlapMs"):
        fields.refuse("overlapMs", "contradicts now: leave one of them out")
    fields.nothing_else()
    if fields.refusals:
        raise Refused(fields.refusals)
    return 0 if is_now else overlap


def rotated(config: IntegrationConfig, overlap: int, *, random: bytes, vault: Sealer, now_ms: int, who: str) -> Rotated:
    """
    The integration with a new signing secret; the one before is valid for *overlap* milliseconds more.

    Those before that one end with it at the latest, so that a shorter overlap is not outlived by an older secret. Those
    that have ended are dropped, and those that were erased: nothing could be sent beside them.

    Args:
        overlap: 0 drops every old secret at once: for one that has leaked.
        random: 32 bytes, the new secret.
        vault: of the app.
        who: name of the token that asked.

    Raises:
        Problem: 409 `signing_off`; 409 `rotations_under_way` where two old ones are valid still.
    """
    if not config.signing:
        raise Problem(
            kinds.SIGNING_OFF,
            "Requests of this integration are not signed, so there is no secret to rotate. Turn signing on first.",
        )
    secret = signing_secret(random)
    until_ms = now_ms + overlap
    valid = [each for each in config.signing_secrets if each.valid_until_ms is None or now_ms < each.valid_until_ms]
    old = [_ending(each, until_ms) for each in valid if not _is_erased(config, each, vault)] if overlap else []
    if len(old) > MAX_OLD:
        raise Problem(
            kinds.ROTATIONS_UNDER_WAY,
            f"{MAX_OLD} old secrets are valid still, and one more would end one of them early. "
            'Wait until the first has ended, or end all with {"now": true}.',
        )
    version = max((each.version for each in config.signing_secrets), default=_FIRST - 1) + 1
    sealed = vault.seal(secret.encode(), Context.of_signing(config.app, config.id, version))
    new = SigningSecret(version=version, sealed=sealed, created_at_ms=now_ms)
    after = msgspec.structs.replace(
        config, signing_secrets=[new, *old], version=config.version + 1, updated_at_ms=now_ms, updated_by=who
    )
    return Rotated(after, version, old[0].valid_until_ms if old else None, secret)


def _is_erased(config: IntegrationConfig, secret: SigningSecret, vault: Opener) -> bool:
    try:
        vault.open(secret.sealed, Context.of_signing(config.app, config.id, secret.version))
    except DataKeyErased:
        return True
    except Unsealable:
        return False  # it may open with another key; it is not for a rotation to drop it
    return False


def _ending(secret: SigningSecret, until_ms: int) -> SigningSecret:
    ends_ms = until_ms if secret.valid_until_ms is None else min(secret.valid_until_ms, until_ms)
    return msgspec.structs.replace(secret, valid_until_ms=ends_ms)
