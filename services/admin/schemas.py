"""`GET /schemas/ids/{id}`, for everybody: the schema of a record, asked for as a Confluent schema registry is."""

from typing import Final

import msgspec
from aiohttp import web

from services.runtime import kinds
from services.runtime.problems import Problem
from streams import codec

#: Of an id in decimal: four bytes.
_MOST_DIGITS: Final = 10


def serve_schemas(app: web.Application) -> None:
    """Answer for the committed ids, and for those that this process knows of the schema registry that it uses."""
    app.router.add_get("/schemas/ids/{id}", _schema)


async def _schema(request: web.Request) -> web.Response:
    given = request.match_info["id"]
    is_number = given.isascii() and given.isdigit() and len(given) <= _MOST_DIGITS
    text = codec.text_of(int(given)) if is_number else None
    if text is None:
        raise Problem(
            kinds.SCHEMA_UNKNOWN,
            "There is no schema of that id: the committed ones have ids from 1073741824 on, and those of a schema "
            "registry are known where the setting schema_registry_url names it.",
        )
    return web.Response(body=msgspec.json.encode({"schema": text}), content_type="application/json")
