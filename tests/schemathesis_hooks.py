"""
What the description says in words, for schemathesis: JSON Schema has none for it, so that data made from the schemas
alone would be refused rightly. Loaded by its program (`SCHEMATHESIS_HOOKS`), for every request.

Nothing but what is right by the schema is changed, so what must be refused for its shape still is.
"""

import os
import re
from typing import Any

import schemathesis

KNOWN_TYPE = "call_ended"
BOOKING_TYPE = "scheduled.created"
PAST = "2026-01-02T03:04:05Z"
LATER = "2026-01-02T03:04:06Z"
APP_ID = r"[a-z0-9_-]{1,64}"
SECRET_NAME = r"[A-Za-z0-9_-]{1,64}"
DELIVERY = r"[A-Za-z0-9_-]{1,128}"
CURSOR = r"[A-Za-z0-9_-]{32}"
MAX_TYPE_LENGTH = 128
MOST = {"id": 64, "confirm": 200}
LINE = r"(?=.*\S)[^\x00-\x1f\x7f-\x9f\u2028\u2029]*"

#: The app that everything is tried in, where one is named: apps are made elsewhere. Named here and not by schemathesis'
#: settings, which would make a request with a wrong one right and take it for wrong still.
APP = os.environ.get("TRIED_APP")

#: What would end that app, or change it for all that is to come; and the app to do it to.
ELSEWHERE = {
    ("PATCH", "/v1/apps/{app}"): "spare",
    ("DELETE", "/v1/apps/{app}"): "gone",
    ("POST", "/v1/apps/{app}/erase"): "spare",
}


#: Apps that were created meanwhile: what follows from that is asked of them.
MADE: set[str] = set()


@schemathesis.hook
def after_call(context: Any, case: schemathesis.Case, response: schemathesis.Response) -> None:
    if (case.operation.path, response.status_code) == ("/v1/apps", 201):
        MADE.add(response.json()["id"])


@schemathesis.hook
def before_call(context: Any, case: schemathesis.Case, kwargs: Any) -> None:
    path, parameters = case.operation.path, case.path_parameters or {}
    if APP and "app" in parameters and re.fullmatch(APP_ID, str(parameters["app"])) and parameters["app"] not in MADE:
        parameters["app"] = ELSEWHERE.get((case.method.upper(), path), APP)
    if isinstance(case.body, dict):
        case.body = sensible(case.body, path, allows_http=APP is not None and parameters.get("app") == APP)
    if (case.method.upper(), path) in ELSEWHERE and isinstance(case.body, dict):
        own = [name for name in ("id", "confirm") if is_line(case.body.get(name), most=MOST[name])]
        case.body = case.body | dict.fromkeys(own, parameters["app"])
    if "name" in parameters and re.fullmatch(SECRET_NAME, str(parameters["name"])):
        # One that was put is deleted and shown.
        parameters["name"] = "token"
    if "delivery" in parameters and re.fullmatch(DELIVERY, str(parameters["delivery"])):
        # Three are there, and three are not.
        parameters["delivery"] = f"dlv_int_1_{1 + len(parameters['delivery']) % 6}"
    if (
        path.endswith("/deliveries")
        and "cursor" in (case.query or {})
        and re.fullmatch(CURSOR, str(case.query["cursor"]))
    ):
        # Of no list: one that a list has answered with, other tests follow.
        del case.query["cursor"]


def sensible(body: dict[str, Any], path: str, *, allows_http: bool) -> dict[str, Any]:
    """The body, with what it refers to there and what goes together going together."""
    if path.endswith("/replay"):
        return _of_replay(dict(body))
    if path.endswith("/deliveries/retry") and re.fullmatch(CURSOR, str(body.get("cursor"))):
        return {name: value for name, value in body.items() if name != "cursor"}  # as in a list
    if path.endswith("/test"):
        is_known = "subscriptions" in path or not is_line(body.get("type"), most=MAX_TYPE_LENGTH)
        return body if is_known else body | {"type": KNOWN_TYPE}
    if "integrations" in path or "subscriptions" in path:
        return _of_integration(dict(body), booking="subscriptions" in path, allows_http=allows_http)
    if is_texts(origins := body.get("origins")):
        bare = [re.sub(r"(?<=[^:/]):(80|443)$", "", each) for each in origins]
        return body | {"origins": bare if len(bare) == 1 else [each for each in bare if each != "*"]}
    return body


def _of_replay(found: dict[str, Any]) -> dict[str, Any]:
    if is_time(found.get("from")):
        found["from"] = PAST
        found |= {"until": LATER} if is_time(found.get("until")) else {}
    if isinstance(found.get("sample"), int | float) and found.get("dryRun") in (None, False):
        found["dryRun"] = True
    return found


def _of_integration(found: dict[str, Any], *, booking: bool, allows_http: bool) -> dict[str, Any]:
    if isinstance(url := found.get("url"), str):
        found["url"] = re.sub(r"^(?i:(https?))://[^/?#@{}\\]+(.*)$", _with_host, url, flags=re.DOTALL)
        found["url"] = found["url"] if allows_http else re.sub(r"^(?i:http):", "https:", found["url"])
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
    if found.get("now") is True and isinstance(found.get("overlapMs"), int | float):
        del found["overlapMs"]
    if isinstance(retry := found.get("retry"), dict) and isinstance(delays := retry.get("delaysMs"), list):
        found["retry"] = retry if retry.get("maxAttempts") is None else retry | {"maxAttempts": len(delays) + 1}
    return found


def is_line(value: Any, *, most: int) -> bool:
    """Whether it is a text in one line that is not blank."""
    return isinstance(value, str) and len(value) <= most and re.fullmatch(LINE, value) is not None


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
