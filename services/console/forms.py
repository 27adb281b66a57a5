"""
The settings of an integration as a form: what a browser sends becomes the JSON that the API takes, and back. Pure.

Nothing is judged here that the API judges: what is no number goes on as it was typed, and is refused there.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from multidict import MultiMapping

from services.admin.fields import Refusal, shortened
from services.admin.shown import MASK

#: Rows for new secrets in a form that creates.
SECRET_ROWS: Final = 3

#: Names of fields in the API, and of those in the form that show their refusals.
_SHOWN_AT: Final = {
    "retry.policy": "retryPolicy",
    "retry.maxAttempts": "maxAttempts",
    "retry.delaysMs": "delays",
    "retry.on429": "on429",
}
FIELDS: Final = frozenset(
    {"name", "url", "events", "headers", "secrets", "timeoutMs", "ordering", "maxInFlight", "whilePaused"}
    | {"autoPause", "signing", "sendTraceparent", "template"}
    | set(_SHOWN_AT.values())
)

#: Of a wait: to the millisecond, and shorter than 32 years.
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?")

Form = MultiMapping[str]


def settings_of(form: Form) -> tuple[dict[str, Any], list[Refusal]]:
    """
    The JSON of a create or patch that the form asks for, and what of it cannot even be read.

    A field that was left empty is left out: its default counts. A box that is not ticked is not sent, and is false.
    """
    headers, faults = headers_of(form.get("headers", ""))
    events = form.getall("events", [])
    body: dict[str, Any] = {
        "name": form.get("name", "").strip(),
        "url": form.get("url", "").strip(),
        "events": ["*"] if form.get("allEvents") else [each for each in events if each],
        "headers": headers,
        "autoPause": "autoPause" in form,
        "signing": "signing" in form,
        "sendTraceparent": "sendTraceparent" in form,
    }
    retry: dict[str, Any] = {"on429": "on429" in form}
    _number(form, "timeoutMs", body)
    _number(form, "maxInFlight", body)
    _number(form, "maxAttempts", retry)
    _text(form, "ordering", body)
    _text(form, "whilePaused", body)
    if form.get("retryPolicy"):
        retry["policy"] = form["retryPolicy"]
    if form.get("delays", "").strip():
        retry["delaysMs"] = delays_of(form["delays"])
    template = form.get("template", "").replace("\r\n", "\n")
    if template.strip():
        body["template"] = template
    body["retry"] = retry
    return body, faults


def secrets_of(form: Form) -> dict[str, str]:
    """Names and values of new secrets; rows without either are passed over. The values are shown to nobody again."""
    names, values = form.getall("secretName", []), form.getall("secretValue", [])
    return {name.strip(): value for name, value in zip(names, values, strict=False) if name.strip() or value}


def patch_of(body: dict[str, Any], shown: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that makes the integration as the form says: what the form no longer has is taken away."""
    given = {name.lower() for name in body["headers"]}
    gone = {name: None for name in shown["headers"] if name.lower() not in given}
    patch = body | {"headers": gone | body["headers"]}
    if "template" not in patch:
        patch["template"] = None
    return patch


def still_masked(headers: Mapping[str, str], shown: Mapping[str, str]) -> list[Refusal]:
    """
    Headers whose value has a mask in it and is not as it was shown: stored, it would take the place of the real one.

    Args:
        shown: as the form was given them. One that comes back unchanged stays as it is.
    """
    same = {name.lower(): value for name, value in shown.items()}
    return [
        Refusal("headers", f"{shortened(name)} has {MASK} in its value, and is not as it was: type the whole value")
        for name, value in headers.items()
        if MASK in value and same.get(name.lower()) != value
    ]


def headers_of(text: str) -> tuple[dict[str, str], list[Refusal]]:
    """Lines of `Name: value`, and what is wrong with those that are none. Values are not quoted."""
    found: dict[str, str] = {}
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        name = name.strip()
        if not colon or not name:
            faults.append(Refusal("headers", f"line {number} is not of the form Name: value"))
        elif name.lower() in {each.lower() for each in found}:
            faults.append(Refusal("headers", f"line {number} repeats a name: names are the same in any case"))
        else:
            found[name] = value.strip()
    return found, faults


def delays_of(text: str) -> list[Any]:
    """Waits in seconds with commas between them, in milliseconds; what is no number, as it was typed."""
    return [_ms(each.strip()) for each in text.split(",")]


def values_of(shown: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the form of an integration, from its JSON."""
    retry = shown["retry"]
    return {
        "name": shown["name"],
        "url": shown["url"],
        "events": shown["events"],
        "headers": "\n".join(f"{name}: {value}" for name, value in shown["headers"].items()),
        "timeoutMs": shown["timeoutMs"],
        "retryPolicy": retry["policy"],
        "maxAttempts": retry["maxAttempts"],
        "delays": ", ".join(seconds(each) for each in retry["delaysMs"]),
        "on429": retry["on429"],
        "ordering": shown["ordering"],
        "maxInFlight": shown["maxInFlight"],
        "whilePaused": shown["whilePaused"],
        "autoPause": shown["autoPause"],
        "signing": shown["signing"],
        "sendTraceparent": shown["sendTraceparent"],
        "template": shown["template"] or "",
    }


def typed(form: Form) -> dict[str, Any]:
    """What was typed, to be shown again beside its refusals; values of secrets are not."""
    texts = ("name", "url", "headers", "timeoutMs", "retryPolicy", "maxAttempts", "delays", "ordering", "maxInFlight")
    return {
        **{name: form.get(name, "") for name in (*texts, "whilePaused", "template")},
        **{name: name in form for name in ("on429", "autoPause", "signing", "sendTraceparent")},
        "events": ["*"] if form.get("allEvents") else form.getall("events", []),
        "secretNames": form.getall("secretName", []),
    }


def by_field(refusals: Iterable[Refusal]) -> dict[str, list[str]]:
    """What is wrong, by the field of the form that shows it; under an empty name what belongs to none."""
    found: dict[str, list[str]] = {}
    for refusal in refusals:
        where, rest = _place(refusal.field)
        found.setdefault(where, []).append(f"{rest} {refusal.detail}".strip())
    return found


def _place(field: str) -> tuple[str, str]:
    """Where a refusal is shown, and the part of its name that the place does not say."""
    plain, _, index = field.partition("[")
    if plain in _SHOWN_AT:
        return _SHOWN_AT[plain], f"entry {int(index[:-1]) + 1}" if index else ""
    if plain in FIELDS:
        return plain, ""
    head, _, rest = field.partition(".")
    return (head, rest) if head in FIELDS else ("", field)


def seconds(ms: int) -> str:
    """Milliseconds as seconds, as short as they can be: `5`, `0.25`."""
    whole, rest = divmod(ms, 1000)
    return f"{whole}.{rest:03}".rstrip("0").rstrip(".")


def choices(known: Iterable[str], selected: Sequence[str]) -> list[str]:
    """Event types that a form offers: those that there are, and those selected that are no more."""
    return sorted({*known, *selected} - {"*"})


def _ms(text: str) -> Any:
    if not _SECONDS.fullmatch(text):
        return text
    whole, _, rest = text.partition(".")
    return int(whole) * 1000 + int(f"{rest:0<3}")


def _number(form: Form, name: str, body: dict[str, Any]) -> None:
    given = form.get(name, "").strip()
    if given:
        is_number = given.isascii() and given.isdecimal() and len(given) < 16  # noqa: PLR2004
        body[name] = int(given) if is_number else given


def _text(form: Form, name: str, body: dict[str, Any]) -> None:
    if form.get(name):
        body[name] = form[name]
