"""
Apps: what a create or a patch asks for, the record that follows from it, and how it is shown.

Pure. Everything is held to the same rules, whichever way it comes: a patch is merged into what a create would have said
of the app, and one type that is added is checked like a list of them. Keys and tokens: `services.admin.credentials`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from schemas.catalogue import BOOKING_PREFIX, CATALOGUE, MAX_TYPE_LENGTH, OWN_PREFIX, OWN_TYPES, TYPE_NAME
from schemas.profiles import MAX_ACTIVE_INTEGRATIONS
from schemas.samples import SAMPLES
from services.admin.fields import Fields, Refusal, kind, shortened
from services.admin.patch import merged
from services.admin.rules import MAX_NAME_CHARS, Refused
from services.admin.tokens import EVERY_APP
from services.runtime import kinds
from services.runtime.problems import Problem
from services.runtime.times import iso
from streams.records import AppConfig, IntegrationConfig

#: What an app may be called: it stands in addresses, in record keys and in every event's envelope.
APP_ID: Final = re.compile(r"[a-z0-9_-]{1,64}")

MAX_ORIGINS: Final = 100
#: As many as one integration may select.
MAX_OWN_TYPES: Final = 500
#: Each active integration is a request for each event: a limit against slips, above any use that is known.
MAX_MAX_ACTIVE: Final = 1_000
#: A second; far above what one ingest process takes.
MAX_PUBLIC_RATE: Final = 100_000
DEFAULT_PUBLIC_RATE: Final = 100

#: Stands for every origin in an app's list.
ANY_ORIGIN: Final = "*"

#: An origin as browsers send it. Source: RFC 6454, section 6.2; a default port is never in it.
ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
#: Longer than any host name (253) with scheme and port.
MAX_ORIGIN_CHARS: Final = 300

#: Fields that an answer has and a request must not.
READ_ONLY: Final = frozenset({"version", "createdAt", "updatedAt"})

#: Names of integrations in a message, at most; the problem's JSON has all.
_NAMED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedApp:
    """An app as asked for, every setting filled in."""

    app: str
    name: str
    origins: list[str]
    event_types: list[str]
    allow_http: bool
    max_active: int
    public_rate_per_s: int


def wanted_app(body: Any, before: AppConfig | None = None) -> WantedApp:
    """
    What a create with this JSON body asks for.

    Args:
        before: the app that it is about, where there is one already. What it has may stay, also where a new one could
            not have it any more: a type that has been built in since, for example.

    Raises:
        Refused: with the name of every field that has to change.
    """
    fields = fields_of(body)
    app_id = _app_id(fields, before)
    origins, event_types = ([], []) if before is None else (before.origins, before.event_types)
    result = WantedApp(
        app=app_id,
        name=fields.text("name", most=MAX_NAME_CHARS) if fields.has("name") else app_id,
        origins=_origins(fields, origins),
        event_types=_texts(fields, "eventTypes", MAX_OWN_TYPES, type_fault, event_types),
        allow_http=fields.flag("allowHttp", default=False),
        max_active=fields.number("maxActive", MAX_ACTIVE_INTEGRATIONS, least=0, most=MAX_MAX_ACTIVE),
        public_rate_per_s=fields.number("publicRatePerS", DEFAULT_PUBLIC_RATE, least=1, most=MAX_PUBLIC_RATE),
    )
    refuse_the_rest(fields, READ_ONLY)
    return result


def patched_app(config: AppConfig, patch: Any) -> WantedApp:
    """
    What a merge patch (RFC 7396) makes of the app; null gives a field its default.

    Raises:
        Refused: with the name of every field that has to change.
    """
    if not isinstance(patch, dict):
        raise Refused([Refusal("", f"the body must be an object, not {kind(patch)}")])
    return wanted_app(merged(_as_created(config), patch), config)


def wanted_type(body: Any) -> str:
    """
    The type that `{"type": …}` adds to an app's own.

    Raises:
        Refused: there is none, or it cannot be one.
    """
    fields = fields_of(body)
    given = fields.text("type", most=MAX_TYPE_LENGTH)
    if given and (fault := type_fault(given)):
        fields.refuse("type", fault)
    refuse_the_rest(fields)
    return given


def fields_of(body: Any) -> Fields:
    """
    The reader of a body.

    Raises:
        Refused: it is no object.
    """
    if not isinstance(body, dict):
        raise Refused([Refusal("", f"the body must be an object, not {kind(body)}")])
    return Fields(body)


def refuse_the_rest(fields: Fields, read_only: frozenset[str] = frozenset()) -> None:
    """
    End of reading: fields that nobody asked for are refused, and so is the body when anything of it is.

    Raises:
        Refused: with the name of every field that has to change.
    """
    fields.nothing_else(read_only)
    if fields.refusals:
        raise Refused(fields.refusals)


def type_fault(event_type: str) -> str | None:
    """Why an app cannot have this type of its own, or None."""
    if not TYPE_NAME.fullmatch(event_type):
        return f"must be 1 to {MAX_TYPE_LENGTH} of A-Z a-z 0-9 _ . - and start with a letter or a digit"
    if event_type in CATALOGUE:
        return f"{event_type} is built in: every app has it"
    if event_type.startswith(BOOKING_PREFIX):
        return f"types that start with {BOOKING_PREFIX} are bookings, and those are built in"
    if event_type.startswith(OWN_PREFIX):
        return f"types that start with {OWN_PREFIX} are emitted by tenterhook alone"
    return None


def origin_fault(origin: str) -> str | None:
    """Why no browser sends this as a page's origin, or None. `*` stands for every one."""
    if origin == ANY_ORIGIN:
        return None
    if len(origin) > MAX_ORIGIN_CHARS or not ORIGIN.fullmatch(origin):
        return (
            "must be an origin as browsers send it: https://shop.example or http://localhost:3000, in lower case, "
            "names with other letters than a-z as xn--…, nothing behind the port"
        )
    port = _DEFAULT_PORTS.get(origin.partition(":")[0])
    if port is not None and origin.endswith(port):
        return f"must not have the port {port[1:]}: browsers leave it out"
    return None


# -- records -----------------------------------------------------------------------------------------------


def new_app(wanted: WantedApp, *, now_ms: int, who: str) -> AppConfig:
    """The first version of the app, without keys and tokens, asked for by the token named *who*."""
    return AppConfig(
        app=wanted.app,
        name=wanted.name,
        keys=[],
        tokens=[],
        origins=wanted.origins,
        event_types=wanted.event_types,
        allow_http=wanted.allow_http,
        max_active=wanted.max_active,
        public_rate_per_s=wanted.public_rate_per_s,
        version=1,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        updated_by=who,
    )


def changed_app(config: AppConfig, wanted: WantedApp) -> AppConfig:
    """The app with the settings of *wanted*, version and all else as they are; see `next_version`."""
    return msgspec.structs.replace(
        config,
        name=wanted.name,
        origins=wanted.origins,
        event_types=wanted.event_types,
        allow_http=wanted.allow_http,
        max_active=wanted.max_active,
        public_rate_per_s=wanted.public_rate_per_s,
    )


def next_version(config: AppConfig, *, now_ms: int, who: str) -> AppConfig:
    """What is written when *config* is what an app has become."""
    return msgspec.structs.replace(config, version=config.version + 1, updated_at_ms=now_ms, updated_by=who)


def with_type(config: AppConfig, event_type: str) -> AppConfig:
    """
    The app with one more type of its own; as it is, where it has that.

    Raises:
        Problem: 409 `limit_reached`.
    """
    if event_type in config.event_types:
        return config
    if len(config.event_types) >= MAX_OWN_TYPES:
        raise limit_reached(config.app, "event types of its own", MAX_OWN_TYPES)
    return msgspec.structs.replace(config, event_types=[*config.event_types, event_type])


def without_type(config: AppConfig, event_type: str) -> AppConfig:
    """
    The app without that type of its own.

    Raises:
        Problem: 404 `no_such_type`; built-in ones are none of its own.
    """
    if event_type not in config.event_types:
        raise Problem(
            kinds.NO_SUCH_TYPE,
            f"{shortened(event_type)!r} is no event type of the app {config.app}'s own. List them to find it; those "
            "that are built in stay.",
        )
    return msgspec.structs.replace(config, event_types=[each for each in config.event_types if each != event_type])


# -- what holds a change back ------------------------------------------------------------------------------


def loosened(before: AppConfig, after: AppConfig) -> list[str]:
    """
    Limits of the app that the change takes off it, as named in JSON: only the installation's people may.

    They protect others from the app (its share of ingest, plain text on the network), not the app itself.
    """
    return [
        name
        for name, is_looser in (
            ("allowHttp", after.allow_http and not before.allow_http),
            ("maxActive", after.max_active > before.max_active),
            ("publicRatePerS", after.public_rate_per_s > before.public_rate_per_s),
        )
        if is_looser
    ]


def differing(before: AppConfig, after: AppConfig) -> list[str]:
    """The settings that differ, as named in JSON."""
    old, new = _as_created(before), _as_created(after)
    return sorted(name for name in new if old[name] != new[name])


def check_types_unused(before: AppConfig, after: AppConfig, integrations: Iterable[IntegrationConfig]) -> None:
    """
    Hold back a change that takes away a type which an integration selects: it would never be delivered again.

    Args:
        integrations: all of the app. One that selects all types (`*`) selects none by name.

    Raises:
        Problem: 409 `type_in_use`, with the integrations.
    """
    removed = set(before.event_types) - set(after.event_types)
    using = {one.id: sorted(removed.intersection(one.events)) for one in integrations}
    using = {integration: types for integration, types in using.items() if types}
    if not using:
        return
    types = sorted({each for types in using.values() for each in types})
    raise Problem(
        kinds.TYPE_IN_USE,
        f"{_listed(types)} selected by {_listed(list(using), is_verb=False)}. Take it out of their events first, or "
        "delete them.",
        integrations=list(using),
        eventTypes=types,
    )


def check_empty(config: AppConfig, integrations: Sequence[IntegrationConfig]) -> None:
    """
    Hold back the deletion of an app that has integrations or subscriptions.

    Raises:
        Problem: 409 `app_in_use`, with their number.
    """
    if integrations:
        raise Problem(
            kinds.APP_IN_USE,
            f"The app {config.app} has {len(integrations)} integrations and subscriptions. Delete them first: what "
            "waits for them is recorded as discarded then.",
            integrations=len(integrations),
        )


def app_unknown(app: str) -> Problem:
    """There is no app of this id, or none any more."""
    return Problem(kinds.APP_UNKNOWN, f"There is no app {app[:64]!r}. Check its name.")


def app_exists(app: str) -> Problem:
    """An app of this id is there already."""
    return Problem(kinds.APP_EXISTS, f"There is an app {app} already. Choose another id.")


def limit_reached(app: str, what: str, limit: int) -> Problem:
    """The app, or the installation (`*`), has as many of something as one can have."""
    whose = "The installation" if app == EVERY_APP else f"The app {app}"
    return Problem(
        kinds.LIMIT_REACHED,
        f"{whose} has {limit} {what}, and that is the most. Delete one that is not used first.",
        limit=limit,
    )


# -- what is shown -----------------------------------------------------------------------------------------


def app_json(config: AppConfig) -> dict[str, Any]:
    """An app as HTTP shows it, without its keys and tokens."""
    return _as_created(config) | {
        "version": config.version,
        "createdAt": iso(config.created_at_ms),
        "updatedAt": iso(config.updated_at_ms),
    }


def catalogue_json(config: AppConfig) -> list[dict[str, Any]]:
    """Every type that the app's integrations can select: built in, its own, and those that tenterhook emits."""
    built_in = [each for each in SAMPLES if each in CATALOGUE]
    own = [each for each in config.event_types if each not in CATALOGUE]
    return [type_json(each) for each in (*built_in, *own, *(each for each in SAMPLES if each in OWN_TYPES))]


def type_json(event_type: str) -> dict[str, Any]:
    """A type as HTTP shows it. Of an app's own, tenterhook knows neither a description nor a sample."""
    sample = SAMPLES.get(event_type)
    return {
        "type": event_type,
        "source": "tenterhook" if event_type in OWN_TYPES else "catalogue" if event_type in CATALOGUE else "app",
        "description": None if sample is None else sample.description,
        "sample": None if sample is None else sample.payload,
    }


def _as_created(config: AppConfig) -> dict[str, Any]:
    """The body of a create that would make this app."""
    return {
        "id": config.app,
        "name": config.name,
        "origins": config.origins,
        "eventTypes": config.event_types,
        "allowHttp": config.allow_http,
        "maxActive": config.max_active,
        "publicRatePerS": config.public_rate_per_s,
    }


def _app_id(fields: Fields, before: AppConfig | None) -> str:
    given = fields.text("id", most=64)
    if before is not None:
        if given != before.app:
            fields.refuse("id", "cannot be changed: events and records carry it")
        return before.app
    if given and not APP_ID.fullmatch(given):
        fields.refuse("id", "must be 1 to 64 of a-z 0-9 _ -")
        return ""
    return given


def _origins(fields: Fields, before: list[str]) -> list[str]:
    found = _texts(fields, "origins", MAX_ORIGINS, origin_fault, before)
    if ANY_ORIGIN in found and len(found) > 1:
        fields.refuse("origins", '"*" allows all and stands alone')
    return found


def _texts(fields: Fields, name: str, most: int, fault_of: Callable[[str], str | None], before: list[str]) -> list[str]:
    """An array of texts, each once, in the order given; those that were there *before* may stay."""
    found: list[str] = []
    for at, given in enumerate(fields.list(name, most=most)):
        if not isinstance(given, str):
            fields.refuse(f"{name}[{at}]", f"must be a text, not {kind(given)}")
        elif given not in before and (fault := fault_of(given)):
            fields.refuse(f"{name}[{at}]", fault)
        elif given not in found:
            found.append(given)
    return found


def _listed(names: list[str], *, is_verb: bool = True) -> str:
    """The first few, for a sentence."""
    text = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return f"{text} {'is' if len(names) == 1 else 'are'}" if is_verb else text
