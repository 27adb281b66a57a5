"""`tenterhook send`: posts events, as an app's server would."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress

from services.cli.access import ingest_access
from services.cli.errors import Failed, WrongUsage
from services.cli.http import waiting
from services.runtime.times import iso
from tenterhook import Accepted, Client, Retries, TenterhookError

#: Of one event, where ingest has no time for it.
_ATTEMPTS: Final = 4


def send(
    type: str,  # noqa: A002  # the field's name
    /,
    *,
    payload: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    app: Annotated[str | None, Parameter(env_var="TENTERHOOK_APP")] = None,
    key: Annotated[str | None, Parameter(env_var="TENTERHOOK_KEY")] = None,
    ingest: Annotated[str | None, Parameter(env_var="TENTERHOOK_INGEST_URL")] = None,
    id: str | None = None,  # noqa: A002  # the field's name
    ordering_key: str | None = None,
    origin: str | None = None,
    count: int = 1,
    retry: bool = True,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """
    Send an event, or several of the same.

    Args:
        type: Its type, for example call_ended.
        payload: JSON, or @FILE, or - for standard input. Sent on byte for byte; null where absent.
        app: Whose event; else the app of `up`.
        key: A key of the app, sk_... or pk_...; else that of `up`.
        ingest: Address of the ingest service; else that of `up`.
        id: Its id: a repeat within 24 hours is delivered once. A new one where absent.
        ordering_key: What it is about, for integrations that keep order by key.
        origin: The page it comes from, as a browser would say; public keys need one.
        count: How many, one after another; the first refusal ends it.
        retry: Send it again where ingest has no time for it (429, 503): three times more, with the same id, not before
            its Retry-After.
        as_json: Print each answer as a line of JSON.
    """
    if count < 1:
        raise WrongUsage("--count must be at least 1")
    if id is not None and count > 1:
        raise WrongUsage("--id names one event: leave it out, or send one")
    content = None if payload is None else msgspec.Raw(_payload(payload))
    access = ingest_access(app, ingest, key)
    client = Client(
        access.app,
        key=access.credential,
        ingest=access.url,
        origin=origin,
        # Somebody waits: where nobody answers, they are told at once.
        retries=Retries(attempts=_ATTEMPTS if retry else 1, when_unanswered=False),
        on_retry=_say_again,
    )
    with waiting(client) as http:
        http.shows = http.shows and count == 1
        for at in _counted(count, quiet=as_json):
            try:
                accepted = http.run(client.send(type, content, id=id, ordering_key=ordering_key))
            except Failed as failed:
                raise Failed(f"{failed} ({at} of {count} were accepted)" if count > 1 else str(failed)) from None
            if as_json:
                print(json.dumps(_document(accepted)))
            elif count == 1:
                print(f"Accepted {accepted.id} at {_time(accepted)}{_again(accepted)}")
    if count > 1 and not as_json:
        print(f"Accepted {count} events")


def _document(accepted: Accepted) -> dict[str, Any]:
    """As ingest answers it."""
    shown: dict[str, Any] = {"id": accepted.id, "acceptedAt": _time(accepted)}
    return shown | ({"duplicate": True} if accepted.duplicate else {})


def _time(accepted: Accepted) -> str:
    return iso(round(accepted.accepted_at.timestamp() * 1000))


def _again(accepted: Accepted) -> str:
    return ": a repeat, delivered once" if accepted.duplicate else ""


def _say_again(error: TenterhookError, wait_s: float) -> None:
    print(f"tenterhook: {error} Again in {wait_s:.1f} s.", file=sys.stderr)


def _payload(given: str) -> bytes:
    """The payload's bytes, as they are, once they are known to be JSON."""
    try:
        if given == "-":
            content = sys.stdin.buffer.read()
        elif given.startswith("@"):
            content = Path(given[1:]).read_bytes()
        else:
            content = given.encode()
    except OSError as error:
        raise WrongUsage(f"--payload: {given[1:]} cannot be read ({error.strerror})") from None
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WrongUsage(f"--payload is not JSON: {error}") from None
    return content.strip()


def _counted(count: int, *, quiet: bool) -> Iterator[int]:
    """0 to count - 1, with a progress bar where people watch."""
    if quiet or count == 1:
        yield from range(count)
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(range(count), description="Sending")
