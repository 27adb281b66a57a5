"""What `tenterhook up` tells when all is ready: a text for people, a document for programs. Pure."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

#: A page's event, as the widget sends it.
_EXAMPLE: Final = {"type": "call_ended", "payload": {"callId": "call_1", "durationS": 42}}


@dataclass(frozen=True, slots=True)
class Ready:
    """Where everything is, and what opens it."""

    #: Addresses, without a slash at the end.
    ingest: str
    admin: str
    #: Of the health and metrics port.
    dispatcher: str
    app: str
    public_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str = field(repr=False)
    #: `host:port,…`.
    broker: str
    broker_kind: str
    #: Of `up` itself, and of its children by name.
    pid: int
    pids: Mapping[str, int]

    def document(self) -> dict[str, Any]:
        """The ready file: the first six by contract, the rest for measuring and for tests."""
        return {
            "ingest": self.ingest,
            "admin": self.admin,
            "app": self.app,
            "publicKey": self.public_key,
            "secretKey": self.secret_key,
            "token": self.token,
            "dispatcher": self.dispatcher,
            "broker": self.broker,
            "brokerKind": self.broker_kind,
            "pid": self.pid,
            "pids": dict(self.pids),
        }

    def curl(self) -> str:
        """One line that sends an event when it is pasted into a shell."""
        words = (
            *("curl", "-i", f"{self.ingest}/v1/apps/{self.app}/events"),
            *("-H", f"Authorization: Bearer {self.secret_key}"),
            *("-H", "Content-Type: application/json"),
            *("-d", json.dumps(_EXAMPLE)),
        )
        return shlex.join(words)

    def text(self, command: str, ready_file: Path, *, is_found: bool) -> str:
        """
        For people.

        Args:
            command: how `tenterhook` was called.
            ready_file: where the document is.
            is_found: whether the other commands look there when they are called in this folder.
        """
        access = "" if is_found else f" --admin {self.admin} --app {self.app} --token {self.token}"
        create = f"integrations create --name sink --url http://127.0.0.1:9000/ --events '*'{access}"
        return f"""
  ingest  {self.ingest}
  admin   {self.admin}
  app     {self.app}, its keys and a token are in {ready_file}

In a second terminal a receiver that prints what arrives, in a third an integration with it:

{command} sink
{command} {create}

Then an event:

{self.curl()}

Ctrl-C drains and stops.
"""
