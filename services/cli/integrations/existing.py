"""Create, list, pause, activate and delete integrations, over the admin API."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

from cyclopts import App, Parameter

from schemas.profiles import Ordering, ProfileName
from services.cli.access import AdminOptions, admin_access
from services.cli.errors import WrongUsage
from services.cli.http import admin_client, ask, listed
from services.cli.integrations.shared import (
    COLLECTIONS,
    files,
    one,
    pairs,
    path_of,
    show_table,
    template_of,
    with_ids,
)

app = App(name="integrations")

Several = Annotated[tuple[str, ...], Parameter(consume_multiple=False, negative=(), show_default=False)]


@app.command
def create(
    *,
    name: str,
    url: str,
    events: Several = (),
    header: Several = (),
    secret: Several = (),
    secret_file: Several = (),
    profile: ProfileName = "integration",
    ordering: Ordering | None = None,
    max_in_flight: int | None = None,
    timeout_ms: int | None = None,
    signing: bool | None = None,
    send_traceparent: bool | None = None,
    template_file: Path | None = None,
    access: AdminOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """
    Create an integration, or a booking subscription with `--profile booking`.

    Args:
        name: For people.
        url: Where its events go. May hold references, {secret.NAME}, in the path and the query.
        events: Types it gets, with commas; '*' is all. None are selected by default.
        header: NAME=VALUE, may be repeated. The value may hold references; it is sealed.
        secret: NAME=VALUE, may be repeated. Sealed, and never shown again.
        secret_file: NAME=FILE, may be repeated. As --secret, out of sight of the process list and the shell's history.
        profile: What it is: booking is a subscription to bookings.
        ordering: Which order is kept; integration where absent.
        max_in_flight: Requests at once, where the ordering allows several; 1 to 100.
        timeout_ms: Over the whole request; 1 to 10,000, 5,000 by default.
        signing: Sign requests; bookings always are. The secret is printed this once.
        send_traceparent: Tell receivers the trace of a request that is traced.
        template_file: File with the template of its bodies; they have the profile's own shape where absent.
        access: Which admin API.
        as_json: Print the answer as JSON.
    """
    body: dict[str, Any] = {
        "name": name,
        "url": url,
        "events": [event.strip() for given in events for event in given.split(",") if event.strip()],
        "headers": pairs(header, "--header"),
        "secrets": pairs(secret, "--secret") | files(secret_file),
        "ordering": ordering,
        "maxInFlight": max_in_flight,
        "timeoutMs": timeout_ms,
        "signing": signing,
        "sendTraceparent": send_traceparent,
        "template": None if template_file is None else template_of(template_file),
    }
    body = {field: value for field, value in body.items() if value is not None}
    admin = admin_access(access or AdminOptions())
    with admin_client(admin) as http:
        # The key makes a create that is sent twice on the way one create.
        created = ask(http, "POST", path_of(admin, profile), json=body, headers={"Idempotency-Key": str(uuid4())})
    if as_json:
        print(json.dumps(created))
    else:
        show_table([created])
        if "signingSecret" in created:
            print(f"Signing secret, shown this once: {created['signingSecret']}")


@app.command(name="list")
def list_(
    *,
    profile: ProfileName | None = None,
    access: AdminOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """
    List an app's integrations and subscriptions.

    Args:
        profile: Only integrations, or only booking subscriptions.
        access: Which admin API.
        as_json: Print them as JSON.
    """
    admin = admin_access(access or AdminOptions())
    with admin_client(admin) as http:
        items = [
            each for kind in ([profile] if profile else COLLECTIONS) for each in listed(http, path_of(admin, kind))
        ]
    if as_json:
        print(json.dumps({"items": items, "next": None}))
    elif items:
        show_table(items)
    else:
        print(f"The app {admin.app} has none. `tenterhook integrations create` makes one.", file=sys.stderr)


@app.command
def pause(
    *ids: str,
    access: AdminOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """
    Pause integrations or subscriptions by id. Their deliveries are held, or discarded, as each is set to.

    Args:
        ids: One or more ids, int_... or sub_...
        access: Which admin API.
        as_json: Print each as a line of JSON.
    """
    _act(ids, "pause", None, access, as_json=as_json)


@app.command
def activate(
    *ids: str,
    drain: Annotated[bool, Parameter(negative=())] = False,
    skip: Annotated[bool, Parameter(negative=())] = False,
    since: Annotated[str | None, Parameter(name="--from")] = None,
    access: AdminOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """
    Activate integrations or subscriptions that a person or the breaker has paused.

    Where deliveries were held meanwhile, say what becomes of them: --drain, --skip or --from.

    Args:
        ids: One or more ids, int_... or sub_...
        drain: Send what was held, in order.
        skip: Discard what was held.
        since: Discard what was held of events accepted before this time, send the rest; 2026-01-02T03:04:05Z.
        access: Which admin API.
        as_json: Print each as a line of JSON.
    """
    choices: list[Any] = [
        *(["drain"] if drain else []),
        *(["skip"] if skip else []),
        *([{"from": since}] if since is not None else []),
    ]
    if len(choices) > 1:
        raise WrongUsage("give one of --drain, --skip and --from")
    _act(ids, "activate", {"held": choices[0]} if choices else None, access, as_json=as_json)


@app.command(name="test")
def send_sample(
    *ids: str,
    type: str | None = None,  # noqa: A002  # the field's name
    access: AdminOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """
    Send a sample event to integrations or subscriptions, whatever they select.

    Args:
        ids: One or more ids, int_... or sub_...
        type: The event's type; one that the integration selects where absent.
        access: Which admin API.
        as_json: Print each as a line of JSON.
    """
    admin = with_ids(ids, access)
    with admin_client(admin) as http:
        for each in ids:
            sent = ask(http, "POST", f"{one(admin, each)}/test", json={} if type is None else {"type": type})
            print(json.dumps(sent) if as_json else f"{each} gets {sent['event']} as {sent['id']}")


@app.command
def delete(
    *ids: str,
    access: AdminOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """
    Delete integrations or subscriptions by id. Events accepted from then on do not reach them.

    Args:
        ids: One or more ids, int_... or sub_...
        access: Which admin API.
        as_json: Print what was deleted as JSON.
    """
    admin = with_ids(ids, access)
    with admin_client(admin) as http:
        for each in ids:
            ask(http, "DELETE", one(admin, each))
            print(json.dumps({"deleted": each}) if as_json else f"Deleted {each}")


def _act(ids: tuple[str, ...], verb: str, body: Any, access: AdminOptions | None, *, as_json: bool) -> None:
    """Ask this of each, in turn, and show what they are then."""
    admin = with_ids(ids, access)
    with admin_client(admin) as http:
        for each in ids:
            answer = ask(http, "POST", f"{one(admin, each)}/{verb}", json=body)
            print(json.dumps(answer) if as_json else f"{each} is {answer['status']} (epoch {answer['epoch']})")
