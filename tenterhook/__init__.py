"""
A typed async client of tenterhook: send events, configure integrations, look at deliveries.

    async with Client("demo", key="sk_…") as client:
        accepted = await client.send("call_ended", {"callId": "call_1"})

`docs/python-client.md` shows the rest. It stands alone: it needs httpx and msgspec, and nothing of the services.
"""

from tenterhook.client import Client
from tenterhook.integrations import Integrations, Patch, Retrying, Settings
from tenterhook.problems import (
    Conflict,
    Invalid,
    NoAnswer,
    NotAllowed,
    NotFound,
    Refused,
    TenterhookError,
    TooMany,
    Unavailable,
)
from tenterhook.records import (
    Accepted,
    Attempt,
    AuditRecord,
    Delivery,
    DryRun,
    Hour,
    Integration,
    ListedDelivery,
    MadeDelivery,
    Page,
    Replay,
    Retried,
    RevealedSecret,
    Rotated,
    SampleDelivery,
    Secret,
    Version,
)
from tenterhook.retries import Retries
from tenterhook.sending import Event

__all__ = [
    "Accepted",
    "Attempt",
    "AuditRecord",
    "Client",
    "Conflict",
    "Delivery",
    "DryRun",
    "Event",
    "Hour",
    "Integration",
    "Integrations",
    "Invalid",
    "ListedDelivery",
    "MadeDelivery",
    "NoAnswer",
    "NotAllowed",
    "NotFound",
    "Page",
    "Patch",
    "Refused",
    "Replay",
    "Retried",
    "Retries",
    "Retrying",
    "RevealedSecret",
    "Rotated",
    "SampleDelivery",
    "Secret",
    "Settings",
    "TenterhookError",
    "TooMany",
    "Unavailable",
    "Version",
]
