"""
A delivery as the request that goes out: URL, headers, body, signatures, and what to mask in what comes back.

Pure: the time, the brand and the opened secrets come in as arguments. What is the same for every delivery of one
configuration is done once, by `prepare`; the rest, by `Prepared.plan`, for each attempt.
"""

from dataclasses import dataclass, field

from schemas.headers import refused_header, refused_value
from schemas.profiles import MAX_BODY_BYTES
from services.body.envelope import iso_ms
from services.body.rendering import body
from services.body.template import Fault
from services.dispatcher.secret_values import values_to_mask
from services.dispatcher.sign import UnusableSecret, brand_signature, standard_signature
from services.dispatcher.target import BadUrl, render_url
from services.vault.opened import OpenedSecrets
from services.vault.references import UnknownSecret, render
from streams.records import Delivery, IntegrationConfig
from streams.trace_context import TRACEPARENT, TraceContext

Opened = OpenedSecrets


@dataclass(frozen=True, slots=True)
class Planned:
    """A request, ready to be sent. `repr` shows nothing that may hold a secret."""

    url: str = field(repr=False)
    #: In the order and case in which they go out.
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    timeout_ms: int
    #: Every plain value that must not be kept, for `masking.mask`.
    masks: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unplannable:
    """Why no request can be made of this delivery: its outcome is `blocked`."""

    #: Stable, for `Result.reason`.
    code: str
    #: For people: what, why, what to do. Holds no secret.
    detail: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """What all requests of one version of an integration's configuration share."""

    integration: IntegrationConfig
    brand: str
    url: str = field(repr=False)
    #: The integration's own, filled in.
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    user_agent: str
    #: As `OpenedSecrets.signing`; empty where signing is off.
    signing: tuple[tuple[str, int | None], ...] = field(repr=False)
    masks: tuple[str, ...] = field(repr=False)

    def plan(self, delivery: Delivery, now_ms: int, trace: TraceContext | None = None) -> Planned | Unplannable:
        """
        The request of one attempt.

        Args:
            now_ms: its timestamp; decides which signing secrets are valid.
            trace: of the attempt, for receivers that are to be told. `tracestate` is not: it belongs to the sender's
                vendors, not to receivers of other companies.
        """
        # A type of the app's own reaches a header line as it is.
        refusal = refused_value(f"{self.brand}-Event", delivery.type)
        if refusal is not None:
            return Unplannable("header_unrenderable", refusal)
        at = iso_ms(now_ms)
        own = self.integration
        made = body(delivery, own.profile, own.template, attempt=delivery.attempt, at=at)
        if isinstance(made, Fault):
            return Unplannable("template_failed", f"the template gives no body: {made}")
        if len(made) > MAX_BODY_BYTES:
            return Unplannable(
                "body_too_large",
                f"the body would have {len(made)} bytes: {MAX_BODY_BYTES} at most, so send a smaller payload",
            )
        signatures = self._signatures(delivery, made, now_ms)
        if isinstance(signatures, Unplannable):
            return signatures
        ours = (
            ("Content-Type", "application/json"),
            ("User-Agent", self.user_agent),
            (f"{self.brand}-Event", delivery.type),
            (f"{self.brand}-Delivery", f"{self.integration.id}:{delivery.attempt}"),
            (f"{self.brand}-Timestamp", at),
            *([(f"{self.brand}-Replay", delivery.run)] if delivery.cause == "replay" else []),
            *signatures,
            *([(TRACEPARENT, trace.traceparent)] if trace is not None and own.send_traceparent else []),
        )
        return Planned(
            url=self.url,
            headers=ours + self.headers,
            body=made,
            timeout_ms=self.integration.timeout_ms,
            masks=self.masks,
        )

    def _signatures(self, delivery: Delivery, body: bytes, now_ms: int) -> tuple[tuple[str, str], ...] | Unplannable:
        """
        The headers of both signatures; none where signing is off.

        The brand's holds one value: the oldest secret still valid, so that a receiver that was not told of a
        rotation goes on verifying until the overlap ends. Standard Webhooks' lists all that are valid.
        """
        if not self.integration.signing:
            return ()
        valid = [secret for secret, until_ms in self.signing if until_ms is None or now_ms < until_ms]
        if not valid:
            return Unplannable("signing_secret_missing", "signing is on and no signing secret is valid: rotate it")
        timestamp_s = now_ms // 1000
        try:
            standard = standard_signature(valid, delivery.event_id, timestamp_s, body)
        except UnusableSecret as error:
            return Unplannable("signing_secret_unusable", str(error))
        return (
            (f"{self.brand}-Signature", brand_signature(valid[-1], body)),
            ("webhook-id", delivery.event_id),
            ("webhook-timestamp", str(timestamp_s)),
            ("webhook-signature", standard),
        )


def prepare(integration: IntegrationConfig, opened: Opened, brand: str, version: str) -> Prepared | Unplannable:
    """
    What all requests of this configuration share: URL and own headers filled in and checked.

    Args:
        brand: what our own header names begin with, for example `X-ApifyCloud`.
        version: of tenterhook, for `User-Agent`.
    """
    try:
        url = render_url(integration.url, opened.secrets)
        headers = tuple((name, render(value, opened.secrets)) for name, value in opened.headers.items())
    except UnknownSecret as error:
        return Unplannable("secret_unknown", f"{error}: save it, or take the reference out of the URL or header")
    except BadUrl as error:
        return Unplannable("url_unrenderable", str(error))
    for name, value in headers:
        refusal = refused_header(name, value, brand, sends_traceparent=integration.send_traceparent)
        if refusal is not None:
            return Unplannable("header_unrenderable", refusal)
    return Prepared(
        integration=integration,
        brand=brand,
        url=url,
        headers=headers,
        user_agent=f"tenterhook/{version}",
        signing=tuple(opened.signing),
        masks=values_to_mask(opened, headers),
    )


def plan(
    delivery: Delivery, integration: IntegrationConfig, opened: Opened, now_ms: int, brand: str, version: str
) -> Planned | Unplannable:
    """`prepare` and `Prepared.plan` in one, for a single request."""
    prepared = prepare(integration, opened, brand, version)
    return prepared if isinstance(prepared, Unplannable) else prepared.plan(delivery, now_ms)
