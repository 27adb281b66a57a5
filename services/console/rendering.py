"""
Templates into pages, and static files out of memory: all is read once at start, so that no request waits for a disk.

Everything that goes into a page is escaped by Jinja2; no template marks anything as safe.
"""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web
from jinja2 import DictLoader, Environment, StrictUndefined

from services.console.words import percent, span, utc

_HERE: Final = Path(__file__).parent

_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

#: Scripts and styles are our own files, nothing is inline, nobody frames us, forms go to us alone.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: with that, browsers say `Origin: null` of our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_STATIC: Final = {
    path.name: (path.read_bytes(), _TYPES[path.suffix])
    for path in sorted((_HERE / "static").rglob("*"))
    if path.suffix in _TYPES
}
#: In the address of every static file, so that a new release is never met with an old file.
_RELEASE: Final = sha256(b"".join(content for content, _ in _STATIC.values())).hexdigest()[:12]


def _environment() -> Environment:
    pages = {path.name: path.read_text(encoding="utf-8") for path in (_HERE / "templates").glob("*.html")}
    environment = Environment(
        loader=DictLoader(pages),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"utc": utc, "span": span, "percent": percent, "json": as_json, "pairs": pairs}
    environment.globals["release"] = _RELEASE
    return environment


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Names of a choice, each with itself as what is shown."""
    return [(each, each) for each in names]


def as_json(value: Any) -> str:
    """JSON, to be escaped as any other text."""
    return msgspec.json.encode(value).decode()


_ENVIRONMENT: Final = _environment()


def html(template: str, status: int = 200, **values: Any) -> web.Response:
    """A page that nobody keeps: it is about one moment, and may hold what is shown once."""
    text = _ENVIRONMENT.get_template(template).render(values)
    return web.Response(status=status, text=text, content_type="text/html", headers={"Cache-Control": "no-store"})


async def static(request: web.Request) -> web.Response:
    """A file of ours."""
    found = _STATIC.get(request.match_info["file"])
    if found is None:
        raise web.HTTPNotFound
    content, kind = found
    return web.Response(
        body=content,
        content_type=kind,
        charset="utf-8",
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )


async def guard_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """What keeps every answer of this port from being framed, sniffed or made to run what is not ours."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
