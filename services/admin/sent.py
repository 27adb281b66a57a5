"""
The body of a request that was sent, made again. Pure.

It is a function of the event, of the version of the configuration, and of the attempt's number and time. The log still
has the first, the history of versions the second, the attempt's result the rest: so bodies need not be stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.body.envelope import iso_ms
from services.body.rendering import body
from services.body.template import Fault
from services.dispatcher.sign import brand_signature
from streams.records import Delivery, IntegrationConfig, Result


@dataclass(frozen=True, slots=True)
class Sent:
    """What went out."""

    body: bytes
    #: Whether the signature that was sent is of exactly these bytes. False too where nothing was signed, or the secret
    #: has been replaced since.
    is_proven: bool


def sent(
    result: Result, delivery: Delivery | None, config: IntegrationConfig | None, *, brand: str, secrets: Sequence[str]
) -> Sent | str:
    """
    The body of the attempt that the result is of, or why it cannot be made again, for people.

    Args:
        delivery: as the log has it; None where it is not kept any more.
        config: of the version that the result names; None where that is not kept.
        brand: what our own header names begin with.
        secrets: signing secrets, in plain.
    """
    if delivery is None:
        return "The event has fallen out of retention (7 days), so the body cannot be made again."
    if config is None:
        return (
            f"Version {result.config_version} of the settings is not kept any more, so the body cannot be made again."
        )
    made = body(delivery, config.profile, config.template, attempt=result.attempt, at=iso_ms(result.started_at_ms))
    if isinstance(made, Fault):
        return f"The template of version {result.config_version} gives no body any more: {made}."
    signature = result.request_headers.get(f"{brand}-Signature")
    return Sent(made, signature is not None and any(brand_signature(each, made) == signature for each in secrets))
