"""
What browsers want to hear before a page may send events, and read the answer.

Pure. The origin is always named, never `*`, and credentials are allowed: `navigator.sendBeacon` sends every request
with credentials, and a browser drops a beacon of `application/json` whose preflight does not allow them. That gives
nothing away, since ingest knows no cookies; who sends is decided by the key alone.
Source: Fetch standard, "CORS protocol"; Beacon, "Processing model".
"""

from typing import Final

from services.ingest.keys import KEY_HEADER, allows_origin
from streams.records import AppConfig

#: Chromium keeps a preflight's answer for two hours at most, Firefox for a day.
MAX_AGE_S: Final = 7_200


def cors_headers(origin: str | None, app: AppConfig | None) -> dict[str, str]:
    """Headers of any answer to a page of *origin*; it may read the answer where the app allows the origin."""
    if origin is None or app is None or not allows_origin(app, origin):
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "Retry-After",
        "Vary": "Origin",
    }


def preflight_headers(origin: str, app: AppConfig) -> dict[str, str]:
    """Headers of the answer to a preflight of an allowed origin."""
    return {
        **cors_headers(origin, app),
        "Access-Control-Allow-Methods": "POST",
        "Access-Control-Allow-Headers": f"Authorization, Content-Type, {KEY_HEADER}",
        "Access-Control-Max-Age": str(MAX_AGE_S),
    }
