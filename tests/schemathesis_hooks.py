"""
What the description says in words, for schemathesis: JSON Schema has none for it, so that data made from the schemas
alone would be refused rightly. Loaded by its program (`SCHEMATHESIS_HOOKS`), for every request.

Nothing but what is right by the schema is changed, so what must be refused for its shape still is.
"""

import re
from typing import Any

import schemathesis

KNOWN_TYPE = "call_ended"
BOOKING_TYPE = "scheduled.created"
PAST = "2026-01-02T03:04:05Z"
LATER = "2026-01-02T03:04:06Z"


@schemathesis.hook
def before_call(context: Any, case: schemathesis.Case, kwargs: Any) -> None:
    if isinstance(case.body, dict):
        case.body = sensible(case.body, booking="subscriptions" in case.operation.path)


def sensible(body: dict[str, Any], *, booking: bool) -> dict[str, Any]:
    """The body, with what it refers to there and what goes together going together."""
    found = dict(body)
    if isinstance(url := found.get("url"), str):
        found["url"] = re.sub(r"^(?i:(https?))://[^/?#@{}\\]+(.*)$", _with_host, url, flags=re.DOTALL)
    if is_texts(events := found.get("events")) and all(re.fullmatch(r"\*|[A-Za-z0-9][\w.-]*", each) for each in events):
        known = BOOKING_TYPE if booking else KNOWN_TYPE
        found["events"] = [each if each in ("*", BOOKING_TYPE) else known for each in events if each != "*"] or events
    if isinstance(headers := found.get("headers"), dict):
        found["headers"] = {
            name: _unbraced(value) if isinstance(value, str) else value
            for name, value in {name.lower(): (name, value) for name, value in headers.items()}.values()
        }
    if isinstance(held := found.get("held"), dict) and is_time(held.get("from")):
        found["held"] = held | {"from": PAST}
    if isinstance(found.get("template"), str):
        found["template"] = '{"event": {{ event }}}'
    if is_time(found.get("from")) and "held" not in found:
        found["from"] = PAST
        found |= {"until": LATER} if is_time(found.get("until")) else {}
    if isinstance(found.get("sample"), int) and "from" in found and found.get("dryRun") in (None, False):
        found["dryRun"] = True
    if found.get("now") is True and isinstance(found.get("overlapMs"), int):
        del found["overlapMs"]
    if isinstance(retry := found.get("retry"), dict) and isinstance(delays := retry.get("delaysMs"), list):
        found["retry"] = retry if retry.get("maxAttempts") is None else retry | {"maxAttempts": len(delays) + 1}
    return found


def is_time(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d[Tt]", value) is not None


def is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _with_host(url: re.Match[str]) -> str:
    """With a host that is one, and in ASCII: many letters beyond it cannot be printed, so a URL may not have them."""
    return f"{url[1]}://a.example" + re.sub(r"[^\s\x00-\x9f]", "x", _unbraced(url[2]))


def _unbraced(text: str) -> str:
    """Without references to secrets that are not there."""
    return text.replace("{", "(").replace("}", ")")
