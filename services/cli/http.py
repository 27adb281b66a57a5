"""Asks a service over HTTP, and says in one line what went wrong."""

from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from services.cli.access import Access
from services.cli.errors import Failed

#: Longer than a service waits for its broker (5 s), so that its own answer is what is shown.
TIMEOUT_S: Final = 15.0

_LOOPBACK: Final = {"127.0.0.1", "localhost", "::1"}


def client(url: str, headers: dict[str, str]) -> httpx.Client:
    """A client of the service at *url*. Proxies of the environment are used, but never for this machine."""
    return httpx.Client(
        base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=urlsplit(url).hostname not in _LOOPBACK
    )


def admin_client(admin: Access) -> httpx.Client:
    """A client of the admin API that shows its token."""
    return client(admin.url, {"Authorization": f"Bearer {admin.credential}"})


def listed(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    """
    All items of a list, page after page.

    Raises:
        Failed: as `ask`.
    """
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = ask(client, "GET", path, params={"limit": 200, "cursor": cursor})
        items += page["items"]
        cursor = page["next"]
    return items


def ask(client: httpx.Client, method: str, path: str, **request: Any) -> Any:
    """
    The JSON of a 2xx answer; None where it has no body.

    Raises:
        Failed: there was no answer, or it was a refusal; the message has the problem's code and detail.
    """
    try:
        response = client.request(method, path, **request)
    except httpx.InvalidURL:
        raise Failed(f"{client.base_url} is no address: correct it") from None
    except httpx.TimeoutException:
        raise Failed(f"{client.base_url} did not answer within {TIMEOUT_S:.0f} s") from None
    except httpx.TransportError as error:
        raise Failed(
            f"{client.base_url} cannot be reached ({error}): is it running? `tenterhook up` starts it"
        ) from None
    if response.is_success:
        return response.json() if response.content else None
    raise Failed(_refusal(response))


def _refusal(response: httpx.Response) -> str:
    """Code and detail of the problem; the status alone where it is none of ours."""
    try:
        problem = response.json()
        return f"{problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return (
            f"{response.url.host} answered {response.status_code} {response.reason_phrase}, and not as tenterhook does"
        )
