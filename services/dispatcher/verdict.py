"""
What an attempt means for its delivery: ended, and how, or another attempt.

Pure. Everything is classed here, before any timer: what cannot succeed never enters a retry line.
"""

from dataclasses import dataclass
from typing import Final

from services.dispatcher.plan import Unplannable
from services.dispatcher.sender import Answer, Failure, FailureCode
from streams.records import IntegrationConfig, Outcome

_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 5  # the class of 5xx

#: The guard's word. Asking again changes nothing that we want to depend on: a name that leads inside today may
#: lead outside tomorrow, and is then a new delivery's luck.
_BLOCKED: Final[frozenset[FailureCode]] = frozenset({"address_refused", "url_refused"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an attempt."""

    #: How the delivery ended; None where another attempt follows.
    outcome: Outcome | None
    #: Stable code: `status_200`, `redirect_302`, `timeout`, `address_refused`, `header_unrenderable`, ...
    reason: str
    #: The same for people.
    detail: str

    @property
    def retry(self) -> bool:
        """Whether another attempt follows."""
        return self.outcome is None


def verdict(
    happened: Answer | Failure | Unplannable,
    integration: IntegrationConfig,
    attempt: int,
    *,
    is_asked_for: bool = False,
) -> Verdict:
    """
    What becomes of a delivery after this attempt.

    Args:
        happened: what the sender gave, or what `plan` gave where nothing could be sent.
        integration: its retry policy and number of attempts decide.
        attempt: the number of this one, counted from 1.
        is_asked_for: by a person, who gets one attempt: a retry, a replay, a test.

    Source: product/integrations.txt, "Delivery reliability"; product/booking-webhooks.txt, "Retries".
    """
    if isinstance(happened, Unplannable):
        return Verdict("blocked", happened.code, happened.detail)
    if isinstance(happened, Failure):
        if happened.code in _BLOCKED:
            return Verdict("blocked", happened.code, happened.detail)
        return _failed(happened.code, happened.detail, 1 if is_asked_for else integration.max_attempts, attempt)
    return _answered(happened.status, integration, 1 if is_asked_for else integration.max_attempts, attempt)


def _answered(status: int, integration: IntegrationConfig, attempts: int, attempt: int) -> Verdict:
    match status // 100:
        case 2:
            return Verdict("delivered", f"status_{status}", f"the endpoint answered {status}")
        case 3:
            reason = f"redirect_{status}"
            detail = f"the endpoint answered {status}, and redirects are not followed: set the URL it redirects to"
        case 4:
            reason = f"status_{status}"
            detail = f"the endpoint answered {status}, so it refuses the request: check its log and the integration"
        case _:
            reason, detail = f"status_{status}", f"the endpoint answered {status}"
    if _is_final(status, integration):
        return Verdict("rejected", reason, detail)
    return _failed(reason, detail, attempts, attempt)


def _is_final(status: int, integration: IntegrationConfig) -> bool:
    """Whether an answer other than 2xx ends the delivery at once. Only 5xx is transient; `any_failure` retries all."""
    if integration.retry_policy == "any_failure":
        return False
    if status == _TOO_MANY_REQUESTS and integration.retry_on_429:
        return False
    return status // 100 != _SERVER_ERROR


def _failed(reason: str, detail: str, attempts: int, attempt: int) -> Verdict:
    """A failure that another attempt may mend, as long as attempts are left."""
    if attempt >= attempts:
        return Verdict("exhausted", reason, detail)
    return Verdict(None, reason, detail)
