"""Which deliveries a form asks for: the fields of a query become a question to the history, and back. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, get_args
from urllib.parse import urlencode

from services.history.query import Wanted
from services.runtime import kinds
from services.runtime.problems import Problem
from streams.records import Cause, Outcome

OUTCOMES: Final = (*get_args(Outcome), "open")
CAUSES: Final = get_args(Cause)

_TEXTS: Final = ("integration", "outcome", "type", "cause", "event", "since", "until")
#: Of what a person types or pastes.
_MOST_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """What a form asks for."""

    wanted: Wanted
    #: As it was typed, by field; empty where nothing was.
    typed: dict[str, str]

    @property
    def is_filtered(self) -> bool:
        """Whether anything but the integration of the page is asked for."""
        return any(self.typed.values())

    @property
    def query(self) -> str:
        """The same as a query, for a link."""
        return urlencode({name: value for name, value in self.typed.items() if value})


def asked(query: Mapping[str, str], app: str, integration: str | None = None) -> Asked:
    """
    What a query asks for.

    Args:
        integration: of whose page it is; None: of any, or the one that the query names.

    Raises:
        Problem: 400 `invalid_query`: no outcome, no cause, or no time, which the page's own form does not send.
    """
    typed = {name: query.get(name, "").strip()[:_MOST_CHARS] for name in _TEXTS}
    if integration is not None:
        typed["integration"] = ""
    given: dict[str, Any] = {name: value or None for name, value in typed.items()}
    for name, known in (("outcome", OUTCOMES), ("cause", CAUSES)):
        if given[name] is not None and given[name] not in known:
            raise _refused(name, f"must be one of {', '.join(known)}")
    return Asked(
        Wanted(
            app=app,
            integration=integration or given["integration"],
            outcome=given["outcome"],
            type=given["type"],
            cause=given["cause"],
            event=given["event"],
            since_ms=_time_ms("since", given["since"]),
            until_ms=_time_ms("until", given["until"]),
        ),
        typed,
    )


def _time_ms(name: str, text: str | None) -> int | None:
    """A field of the browser's has no zone: the page says that it is UTC."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000)
    except (ValueError, OverflowError):
        raise _refused(name, "must be a time, for example 2026-01-02T03:04") from None


def _refused(name: str, detail: str) -> Problem:
    return Problem(kinds.INVALID_QUERY, f"{name} {detail}.", field=name)
