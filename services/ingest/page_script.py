"""
`GET /tenterhook.js`: the script with which a web page emits events (docs/web-pages.md).

Its source is for people. What is served is made from it once, at start: smaller, and the same program.
"""

import re
from hashlib import sha256
from pathlib import Path
from typing import Final

from aiohttp import web

PATH: Final = "/tenterhook.js"

_SOURCE: Final = Path(__file__).with_name("tenterhook.js")

#: A string or a template, which stays as it is; or a mark that needs no space around it.
_WORDLESS: Final = re.compile(r"""("[^"\n]*"|`[^`]*`)|\s*([^\w\s$"`])\s*""")


def served(source: str) -> str:
    """
    The script without its comments and without spaces that mean nothing. Pure.

    It is no minifier for any script, but for one that is written as ours is: comments have lines of their own, every
    statement ends with a semicolon or a block, there are no regular expressions and no `a + +b`.
    """
    lines = [line for line in source.splitlines() if not line.lstrip().startswith("//")]
    squeezed = _WORDLESS.sub(lambda found: found[1] or found[2], "\n".join(lines).strip())
    return squeezed.replace(";}", "}") + "\n"


BODY: Final = served(_SOURCE.read_text(encoding="utf-8")).encode()

#: Any page may load it, one that isolates itself (`Cross-Origin-Embedder-Policy: require-corp`) or checks its hash
#: (`integrity`, which needs CORS) too. There is nothing in it that is not for everybody.
HEADERS: Final = {
    "Content-Type": "text/javascript; charset=utf-8",
    "ETag": f'"{sha256(BODY).hexdigest()[:16]}"',
    # A new release is met within an hour; its address never changes, since pages have it written into them.
    "Cache-Control": "public, max-age=3600",
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}


async def page_script(request: web.Request) -> web.Response:
    """The script, or 304 where the browser has it."""
    known = {tag.value for tag in request.if_none_match or ()}
    if known & {"*", HEADERS["ETag"].strip('"')}:
        return web.Response(status=304, headers=HEADERS)
    return web.Response(body=BODY, headers=HEADERS)
