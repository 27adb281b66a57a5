"""
Why is nothing arriving? The checks of the product page, done for the person: facts in, verdicts and fixes out. Pure.

Source: product/integrations.txt, "Debugging a failing integration".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas.catalogue import ALL_TYPES

#: `fault`: this is why; `doubt`: it may be; `fine`: it is not this; `unknown`: nothing is known of it yet.
Verdict = Literal["fault", "doubt", "fine", "unknown"]

#: Below this share of delivered ones, some of what is sent does not arrive.
GOOD_RATE: Final = 0.95
#: A delivery that waits longer than this is behind by more than a busy endpoint explains.
LONG_QUEUE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Fix:
    """A button, or a link."""

    label: str
    #: Path below the integration's page.
    to: str


@dataclass(frozen=True, slots=True)
class Check:
    """One question of the page, answered."""

    question: str
    verdict: Verdict
    #: What was found, for people.
    answer: str
    fix: Fix | None = None


@dataclass(frozen=True, slots=True)
class Emitted:
    """What the app has emitted lately."""

    #: How far back was looked.
    minutes: int
    #: Events by type.
    by_type: Mapping[str, int]


def checks(shown: Mapping[str, Any], emitted: Emitted | None) -> list[Check]:
    """
    The checks in the order in which a person would go through them.

    Args:
        shown: the integration, as the API shows it.
        emitted: None where nobody has looked yet: it reads the log.
    """
    return [
        _paused(shown),
        _selected(shown["events"]),
        _emits(shown["events"], emitted),
        _queue(shown),
        _last(shown["lastDelivery"]),
        _rate(shown),
    ]


def _paused(shown: Mapping[str, Any]) -> Check:
    question = "Is it paused?"
    reason = shown["statusReason"]
    if shown["status"] == "paused":
        why = f": {reason}" if reason else ""
        return Check(
            question, "fault", f"Yes{why}. Nothing is sent until it is activated.", Fix("Activate", "#activate")
        )
    if shown["status"] == "failing":
        return Check(question, "doubt", f"Not yet, but it keeps failing: {reason}.", Fix("See the last delivery", ""))
    return Check(question, "fine", "No, it is active.")


def _selected(events: Sequence[str]) -> Check:
    question = "Are events selected?"
    fix = Fix("Select events", "/edit#events")
    if not events:
        return Check(question, "fault", "No event is selected, so nothing is ever sent to it.", fix)
    if ALL_TYPES in events:
        return Check(question, "fine", "All events are.")
    return Check(question, "fine", f"These are, and no others: {', '.join(events)}.", fix)


def _emits(events: Sequence[str], emitted: Emitted | None) -> Check:
    question = "Does the app emit them?"
    if emitted is None:
        return Check(question, "unknown", "The log was not looked at yet.", Fix("Look at the last hour", "/why?look=1"))
    lately = f"in the last {emitted.minutes} minutes"
    if not emitted.by_type:
        return Check(
            question, "fault", f"The app has emitted no event at all {lately}: look where its events should come from."
        )
    told = ", ".join(f"{name} ({count})" for name, count in sorted(emitted.by_type.items()))
    if ALL_TYPES in events or set(events) & set(emitted.by_type):
        missing = sorted(set(events) - set(emitted.by_type) - {ALL_TYPES})
        but = f" None of: {', '.join(missing)}." if missing else ""
        return Check(question, "doubt" if missing else "fine", f"Yes, {lately}: {told}.{but}")
    return Check(
        question,
        "fault",
        f"It emits events, but none that is selected. {lately.capitalize()}: {told}.",
        Fix("Select events", "/edit#events"),
    )


def _queue(shown: Mapping[str, Any]) -> Check:
    question = "Does something wait?"
    age_ms = shown["queueAgeMs"]
    if age_ms is None or shown["status"] == "paused":
        return Check(question, "fine", "What waits is held by the pause." if age_ms is not None else "Nothing does.")
    if age_ms > LONG_QUEUE_MS:
        return Check(
            question,
            "doubt",
            f"The oldest delivery has waited for {age_ms // 1000} seconds: the endpoint answers slower than events "
            "come, or a failing delivery keeps its place in the order.",
            Fix("Change the ordering", "/edit#ordering"),
        )
    return Check(question, "fine", "The oldest has waited for less than a minute.")


def _last(last: Mapping[str, Any] | None) -> Check:
    question = "What became of the last delivery?"
    if last is None:
        return Check(question, "unknown", "None has ended yet.")
    at = f"{last['event']} at {last['at']}"
    if last["outcome"] == "delivered":
        return Check(question, "fine", f"It arrived ({at}): the endpoint answered {last['status']}.")
    if last["outcome"] == "discarded":
        return Check(
            question, "doubt", f"It was discarded ({at}): the integration was paused, or what was held was skipped."
        )
    return Check(question, "fault", _failed(last, at), Fix("Change the settings", "/edit#url"))


def _failed(last: Mapping[str, Any], at: str) -> str:
    if last["outcome"] == "rejected":
        return (
            f"The endpoint rejected it with {last['status']} ({at}). Compare what it expects with what is sent: its "
            "address, its token, the shape of the body."
        )
    if last["outcome"] == "blocked":
        return (
            f"It was blocked before it was sent ({at}): the address is private or not allowed, or URL, headers or "
            "template could not be filled in."
        )
    if last["status"] is None:
        return (
            f"No answer came in {last['attempt']} attempts ({at}): a name that does not resolve, a firewall, or an "
            "endpoint that is down or too slow."
        )
    return f"The endpoint answered {last['status']} to the last of {last['attempt']} attempts ({at})."


def _rate(shown: Mapping[str, Any]) -> Check:
    question = "How many arrive?"
    rate = shown["successRate"]
    if rate is None:
        return Check(question, "unknown", "Nothing has ended in the last 24 hours.")
    verdict: Verdict = "fine" if rate >= GOOD_RATE else "doubt" if rate else "fault"
    return Check(question, verdict, f"{rate:.1%} of those that ended in the last 24 hours.")
