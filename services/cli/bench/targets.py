"""The integrations that a run delivers to: made over the admin API, and deleted again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

from schemas.catalogue import ALL_TYPES
from schemas.profiles import MAX_ACTIVE_INTEGRATIONS, Ordering
from services.cli.access import Access
from services.cli.bench.wire import TYPES, Profile
from services.cli.errors import Failed
from services.cli.http import Waiting, admin_client, ask

_COLLECTIONS: Final[dict[Profile, str]] = {"integration": "integrations", "booking": "subscriptions"}


@contextmanager
def targets(
    admin: Access, *, profile: Profile, urls: Sequence[str], ordering: Ordering, max_in_flight: int
) -> Iterator[list[str]]:
    """
    Ids of new integrations, one for each of the *urls*, that take the load's events; deleted afterwards.

    Raises:
        Failed: another integration would get the load's events too, or one is refused.
    """
    path = f"/v1/apps/{quote(admin.app, safe='')}/{_COLLECTIONS[profile]}"
    made: list[str] = []
    with admin_client(admin) as http:
        _check_alone(http, admin.app, profile, len(urls))
        try:
            for at, url in enumerate(urls):
                body = _wanted(profile, f"bench {at + 1}", url, ordering, max_in_flight)
                made.append(ask(http, "POST", path, json=body, headers={"Idempotency-Key": str(uuid4())})["id"])
            yield made
        finally:
            for each in made:
                # One that cannot be deleted must not stop the others from being deleted.
                with suppress(Failed):
                    ask(http, "DELETE", f"{path}/{each}")


def _wanted(profile: Profile, name: str, url: str, ordering: Ordering, max_in_flight: int) -> dict[str, Any]:
    return {
        "name": name,
        "url": url,
        "events": [TYPES[profile]],
        "ordering": ordering,
        "maxInFlight": max_in_flight,
    }


def _check_alone(http: Waiting, app: str, profile: Profile, wanted: int) -> None:
    """Nobody else's endpoint may get the load's events, and there must be places for ours."""
    for collection in _COLLECTIONS.values():
        items = ask(http, "GET", f"/v1/apps/{quote(app, safe='')}/{collection}", params={"limit": 200})["items"]
        for item in items:
            if {TYPES[profile], ALL_TYPES} & set(item["events"]):
                raise Failed(
                    f"{item['id']} of the app {app} takes {TYPES[profile]} too, and would get the load: "
                    "delete it, use another app, or measure with --start"
                )
        active = sum(item["status"] == "active" for item in items)
        if (
            collection == _COLLECTIONS["integration"] == _COLLECTIONS[profile]
            and active + wanted > MAX_ACTIVE_INTEGRATIONS
        ):
            raise Failed(
                f"the app {app} has {active} active integrations of the {MAX_ACTIVE_INTEGRATIONS} that it may have: "
                f"no place for {wanted} more. Use another app, or measure with --start"
            )
