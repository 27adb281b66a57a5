"""
What a create asks for: the contract's JSON, checked against the app and its profile.

Pure. `wanted` gives every setting in plain, defaults filled in, or refuses with the name of every field
that has to change. Sealing, ids and time come after it (`compose.py`); places and quota are counted by `quota_fault`.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, get_args

from schemas.catalogue import ALL_TYPES, BOOKING_TYPES, CATALOGUE, OWN_TYPES
from schemas.headers import DEFAULT_BRAND, MAX_HEADERS, refused_header, refused_value
from schemas.profiles import (
    DEFAULT_TIMEOUT_MS,
    MAX_IN_FLIGHT,
    MAX_TIMEOUT_MS,
    Ordering,
    Profile,
    RetryPolicy,
    WhilePaused,
)
from services.admin.fields import Fields, Refusal, control_fault, kind, number_fault, shortened
from services.admin.urls import MAX_URL_CHARS, url_fault
from services.body.trial import template_fault
from services.vault.references import SECRET_NAME, misspelt, names, render
from streams.records import AppConfig, IntegrationConfig

MAX_NAME_CHARS: Final = 200
MAX_EVENTS: Final = 500
MAX_SECRETS: Final = 50
MAX_SECRET_CHARS: Final = 4_096
#: The last of 20 attempts, four times later each, would already wait for a day.
MAX_ATTEMPTS: Final = 20
#: One day: longer, and an event outlives the 7 days that the log keeps it after a few attempts.
MAX_DELAY_MS: Final = 86_400_000
#: Versions are counted from 1, and nobody gets so far.
MAX_VERSION: Final = 2**31 - 1
#: Requests at once where the ordering allows several and nothing was said.
DEFAULT_PARALLEL: Final = 10

#: Fields that an answer has and a request must not.
READ_ONLY: Final = frozenset(
    {"id", "status", "statusReason", "consecutiveFailures", "successRate", "queueAgeMs", "lastDelivery"}
    | {"version", "epoch", "createdAt", "updatedAt", "signingSecret"}
)

_ORDERINGS: Final[tuple[Ordering, ...]] = get_args(Ordering)
_RETRY_POLICIES: Final[tuple[RetryPolicy, ...]] = get_args(RetryPolicy)
_WHILE_PAUSED: Final[tuple[WhilePaused, ...]] = get_args(WhilePaused)


class Refused(ValueError):
    """A request cannot be granted as it stands. `refusals` names every field that has to change, and why."""

    def __init__(self, refusals: Iterable[Refusal]) -> None:
        self.refusals = tuple(refusals)
        super().__init__("; ".join(f"{refusal.field}: {refusal.detail}" for refusal in self.refusals))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An integration as asked for, every setting filled in. Header values and secrets are plain, and not shown."""

    name: str
    url: str
    events: list[str]
    headers: dict[str, str] = field(repr=False)
    secrets: dict[str, str] = field(repr=False)
    signing: bool
    timeout_ms: int
    retry_policy: RetryPolicy
    max_attempts: int
    delays_ms: list[int]
    retry_on_429: bool
    ordering: Ordering
    max_in_flight: int
    while_paused: WhilePaused
    auto_pause: bool
    #: Of the body; None: the profile's own.
    template: str | None = None
    #: Whether receivers are told the trace.
    send_traceparent: bool = False


def wanted(body: Any, app: AppConfig, profile: Profile, brand: str = DEFAULT_BRAND) -> Wanted:
    """
    What a create with this JSON body asks for. *brand*: of our own headers, which nobody else may set.

    Raises:
        Refused: with the name of every field that has to change.
    """
    if not isinstance(body, dict):
        raise Refused([Refusal("", f"the body must be an object, not {kind(body)}")])
    fields = Fields(body)
    secrets = _secrets(fields)
    policy, max_attempts, delays_ms, on_429 = _retry(fields.nested("retry"), profile)
    ordering = fields.choice("ordering", "integration", _ORDERINGS)
    parallel = DEFAULT_PARALLEL if ordering in ("key", "none") else 1
    events = _events(fields, app, profile)
    sends_traceparent = fields.flag("sendTraceparent", default=False)
    result = Wanted(
        name=fields.text("name", most=MAX_NAME_CHARS),
        url=_url(fields, app),
        events=events,
        headers=_headers(fields, secrets, brand, sends_traceparent=sends_traceparent),
        secrets=secrets,
        signing=_signing(fields, profile),
        timeout_ms=fields.number("timeoutMs", DEFAULT_TIMEOUT_MS, least=1, most=MAX_TIMEOUT_MS),
        retry_policy=policy,
        max_attempts=max_attempts,
        delays_ms=delays_ms,
        retry_on_429=on_429,
        ordering=ordering,
        max_in_flight=fields.number("maxInFlight", parallel, least=1, most=MAX_IN_FLIGHT),
        while_paused=fields.choice("whilePaused", "hold", _WHILE_PAUSED),
        auto_pause=fields.flag("autoPause", default=True),
        template=_template(fields, app, profile, events),
        send_traceparent=sends_traceparent,
    )
    _profile(fields, profile)
    fields.nothing_else(READ_ONLY)
    if fields.refusals:
        raise Refused(fields.refusals)
    return result


@dataclass(frozen=True, slots=True)
class Choice:
    """What an activation does with the deliveries that were held until then."""

    kind: Literal["drain", "skip", "from"]
    #: Of `from`: events accepted earlier are discarded; milliseconds since 1970 UTC.
    from_ms: int = 0


DRAIN: Final = Choice("drain")
SKIP: Final = Choice("skip")


def choice(body: Any, now_ms: int) -> Choice | None:
    """
    What an activation with this JSON body does with what is held: `{"held": "drain" | "skip" | {"from": time}}`.

    None where it does not say. *body*: None where there was none.

    Raises:
        Refused: it says something else, or a time that is still to come.
    """
    if body is None:
        return None
    if not isinstance(body, dict):
        raise Refused([Refusal("", f"the body must be an object, not {kind(body)}")])
    fields = Fields(body)
    has_choice = fields.has("held")
    fields.nothing_else()
    if fields.refusals:
        raise Refused(fields.refusals)
    if not has_choice:
        return None
    held = body["held"]
    if isinstance(held, dict):
        nested = fields.nested("held")
        from_ms = _time_ms(nested, "from", now_ms)
        nested.nothing_else()
        if fields.refusals:
            raise Refused(fields.refusals)
        return Choice("from", from_ms)
    if held not in ("drain", "skip"):
        raise Refused([Refusal("held", 'must be "drain", "skip" or {"from": time}')])
    return DRAIN if held == "drain" else SKIP


def version_wanted(body: Any) -> int:
    """
    Which version a roll back with this JSON body goes back to: `{"version": 3}`.

    Raises:
        Refused: it does not say.
    """
    if not isinstance(body, dict):
        raise Refused([Refusal("", f"the body must be an object, not {kind(body)}")])
    fields = Fields(body)
    if not fields.has("version"):
        fields.refuse("version", "is required")
    version = fields.number("version", 0, least=1, most=MAX_VERSION)
    fields.nothing_else()
    if fields.refusals:
        raise Refused(fields.refusals)
    return version


def _time_ms(fields: Fields, name: str, now_ms: int) -> int:
    """A time with its zone, not to come, in milliseconds since 1970 UTC, rounded up; 0 when refused."""
    given = fields.text(name, most=64)
    if not given:
        return 0
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        fields.refuse(name, "must be a time in ISO 8601 with its zone, for example 2026-01-02T03:04:05Z")
        return 0
    at_ms = -((datetime(1970, 1, 1, tzinfo=UTC) - at) // timedelta(milliseconds=1))
    if not 0 <= at_ms <= now_ms:
        fields.refuse(name, 'must be a time that has passed; "skip" discards all that is held')
    return at_ms


def quota_fault(app: AppConfig, existing: Iterable[IntegrationConfig], profile: Profile) -> str | None:
    """
    Why the app has no place for one more of this profile, or None.

    Args:
        existing: integrations of the app, without those that the breaker has paused: they take no place.
    """
    if not profile.quota:
        return None
    active = sum(1 for one in existing if one.profile == profile.name and one.status == "active")
    if active < app.max_active:
        return None
    return (
        f"the app {app.app} has {active} active integrations, and {app.max_active} are allowed: "
        "pause or delete one first, or have the app's limit raised"
    )


def _profile(fields: Fields, profile: Profile) -> None:
    if fields.has("profile") and fields.given["profile"] != profile.name:
        fields.refuse(
            "profile", f"must be {profile.name} here: integrations and booking subscriptions have paths of their own"
        )


def _signing(fields: Fields, profile: Profile) -> bool:
    signing = fields.flag("signing", default=profile.signing)
    if profile.signing and not signing:
        fields.refuse("signing", f"cannot be turned off: {profile.name} requests are always signed")
    return signing


def _secrets(fields: Fields) -> dict[str, str]:
    """The secrets that are fit to be stored, by name. Values never reach a message."""
    found = {}
    for name, value in fields.object("secrets", most=MAX_SECRETS).items():
        if fault := secret_name_fault(name) or secret_fault(value):
            fields.refuse(f"secrets.{shortened(name)}", fault)
        else:
            found[name] = value
    return found


def secret_name_fault(name: str) -> str | None:
    """Why no secret can be called this, or None."""
    return None if SECRET_NAME.fullmatch(name) else "is no name for a secret: 1 to 64 of A-Z a-z 0-9 _ -"


def secret_fault(value: Any) -> str | None:
    """Why this cannot be a secret's value, or None. The value is not shown."""
    if not isinstance(value, str):
        return f"must be a text, not {kind(value)}"
    if not 1 <= len(value) <= MAX_SECRET_CHARS:
        return f"must have 1 to {MAX_SECRET_CHARS} characters, not {len(value)}"
    if fault := control_fault(value):
        return f"{fault}: headers and URLs cannot carry it"
    return None


def _unknown(template: str, fields: Fields) -> str | None:
    """Why the references of a URL or header cannot be filled in, or None; a secret refused already counts."""
    given = fields.given.get("secrets")
    missing = sorted(names(template) - (given.keys() if isinstance(given, dict) else set()))
    if missing:
        return f"refers to {{secret.{missing[0]}}}, and there is no secret of that name: give it in secrets"
    return None


def _url(fields: Fields, app: AppConfig) -> str:
    url = fields.text("url", most=MAX_URL_CHARS)
    fault = url and (url_fault(url, allow_http=app.allow_http) or _unknown(url, fields))
    if fault:
        fields.refuse("url", fault)
    return url


def _headers(fields: Fields, secrets: dict[str, str], brand: str, *, sends_traceparent: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in fields.object("headers", most=MAX_HEADERS).items():
        if not isinstance(value, str):
            fault: str | None = f"must be a text, not {kind(value)}"
        elif name.lower() in seen:
            fault = "is given twice: names of headers are the same in any case"
        elif misspelt(value):
            fault = "has something like a reference that is none: write {secret.name}"
        else:
            fault = (
                refused_header(name, value, brand, sends_traceparent=sends_traceparent)
                or _unknown(value, fields)
                or _filled_in(name, value, secrets)
            )
        if fault:
            fields.refuse(f"headers.{shortened(name)}", fault)
        else:
            found[name] = value
        seen.add(name.lower())
    return found


def _filled_in(name: str, value: str, secrets: dict[str, str]) -> str | None:
    """Why the header cannot be sent once its secrets are filled in, or None; secrets refused already count as fine."""
    return refused_value(name, render(value, defaultdict(lambda: "x", secrets)))


def _events(fields: Fields, app: AppConfig, profile: Profile) -> list[str]:
    known = BOOKING_TYPES if profile.name == "booking" else CATALOGUE | OWN_TYPES | set(app.event_types)
    found: list[str] = []
    for at, event in enumerate(fields.list("events", most=MAX_EVENTS)):
        where = f"events[{at}]"
        if not isinstance(event, str):
            fields.refuse(where, f"must be a text, not {kind(event)}")
        elif event != ALL_TYPES and event not in known:
            fields.refuse(where, f"{shortened(event)!r} is no event type {_where(profile)}: {_some(known)}")
        elif event not in found:
            found.append(event)
    if ALL_TYPES in found and len(found) > 1:
        fields.refuse("events", '"*" selects all and stands alone')
    return found


def _template(fields: Fields, app: AppConfig, profile: Profile, events: list[str]) -> str | None:
    if not fields.has("template"):
        return None
    given = fields.given["template"]
    if not isinstance(given, str):
        fields.refuse("template", f"must be a text, not {kind(given)}")
    elif fault := template_fault(given, profile.name, app.app, events):
        fields.refuse("template", fault)
    else:
        return given
    return None


def _where(profile: Profile) -> str:
    return "of a booking" if profile.name == "booking" else "of this app"


def _some(known: Iterable[str]) -> str:
    """The first twenty of the types that may be selected, for a message."""
    listed = sorted(known)
    return "choose from " + ", ".join(listed[:20]) + (", …" if len(listed) > 20 else "")  # noqa: PLR2004


def _retry(fields: Fields, profile: Profile) -> tuple[RetryPolicy, int, list[int], bool]:
    """Policy, attempts, waits and whether a 429 is retried; the number of waits is one less than that of attempts."""
    policy = fields.choice("policy", profile.retry_policy, _RETRY_POLICIES)
    given = fields.list("delaysMs", most=MAX_ATTEMPTS - 1)
    has_delays = fields.has("delaysMs")
    delays = []
    for at, delay in enumerate(given):
        if fault := number_fault(delay, least=1, most=MAX_DELAY_MS):
            fields.refuse(f"delaysMs[{at}]", fault)
        else:
            delays.append(int(delay))
    default = len(given) + 1 if has_delays else profile.max_attempts
    attempts = fields.number("maxAttempts", default, least=1, most=MAX_ATTEMPTS)
    if has_delays and len(given) != attempts - 1:
        fields.refuse("delaysMs", f"must have one wait less than maxAttempts: {attempts - 1}, not {len(given)}")
    on_429 = fields.flag("on429", default=False)
    fields.nothing_else()
    return policy, attempts, delays if has_delays else default_delays_ms(attempts, profile), on_429


def default_delays_ms(attempts: int, profile: Profile) -> list[int]:
    """The waits between that many attempts: the profile's, going on four times longer each, up to a day."""
    delays = list(profile.delays_ms)
    while len(delays) < attempts - 1:
        delays.append(min(delays[-1] * 4, MAX_DELAY_MS))
    return delays[: attempts - 1]
