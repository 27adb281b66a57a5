"""
Why is nothing arriving? The checks of the product page, done for the person: facts in, verdicts and fixes out. Pure.

Source: product/integrations.txt, "Debugging a failing integration".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas.catalogue import ALL_TYPES
from services.console.words import percent, utc
from streams.records import Role

#: `fault`: this is why; `doubt`: it may be; `fine`: it is not this; `unknown`: nothing is known of it yet.
Verdict = Literal["fault", "doubt", "fine", "unknown"]

#: Below this share of delivered ones, some of what is sent does not arrive.
GOOD_RATE: Final = 0.95
#: A delivery that waits longer than this is behind by more than a busy endpoint explains.
LONG_QUEUE_MS: Final = 60_000
#: Event types that are offered to be added at once; more of them are chosen in the settings.
MOST_ADDED: Final = 5

#: Reasons of attempts that ended before anything was sent, since the address may not be reached.
_REFUSED: Final = frozenset({"address_refused", "url_refused", "url_unrenderable"})
#: Of those that no connection came of, and what to look at.
_UNREACHED: Final = {
    "dns_failed": "Check the name in the address, and who answers for it.",
    "connect_refused": "Check that the endpoint runs, and its port.",
    "connect_failed": "Check the way there: routes, a firewall.",
    "tls_failed": "Check the endpoint's certificate.",
    "timeout": "Check that the endpoint is up and not behind a firewall, and answers in time.",
}
#: Of what cannot be filled in, and the page where that is mended.
_UNRENDERED: Final = {
    "secret_unknown": "/secrets",
    "secrets_erased": "/secrets",
    "header_unrenderable": "/edit#headers",
    "template_failed": "/edit#template",
    "signing_secret_missing": "#rotate",
    "signing_secret_unusable": "#rotate",
}


@dataclass(frozen=True, slots=True)
class Fix:
    """A link, or a button that mends it at once."""

    label: str
    #: Path below the integration's page.
    to: str
    #: What a button sends; None: a link.
    sends: Mapping[str, str] | None = None
    #: Who may.
    role: Role = "viewer"


@dataclass(frozen=True, slots=True)
class Check:
    """One question of the page, answered."""

    question: str
    verdict: Verdict
    #: What was found, for people.
    answer: str
    fixes: tuple[Fix, ...] = ()


@dataclass(frozen=True, slots=True)
class Emitted:
    """What the app has emitted lately."""

    #: How far back was looked.
    minutes: int
    #: Events by type.
    by_type: Mapping[str, int]
    #: False where there were more than are looked at.
    is_all: bool = True


_TEST: Final = Fix("Send a test event", "/test", {}, "operator")


def checks(shown: Mapping[str, Any], held: int, tried: Mapping[str, Any] | None) -> list[Check]:
    """
    The checks in the order in which a person would go through them, but for what the app emits.

    Args:
        shown: the integration, as the API shows it.
        held: deliveries that wait.
        tried: the delivery that was begun last, with its attempts, as the API shows it; None where none is known.
    """
    return [
        _paused(shown, held),
        _selected(shown["events"]),
        _reached(tried),
        _answered(tried),
        _queue(shown),
        _rate(shown),
    ]


def _paused(shown: Mapping[str, Any], held: int) -> Check:
    question = "Is it paused?"
    reason = shown["statusReason"]
    if shown["status"] == "paused":
        why = f": {reason}" if reason else ""
        return Check(question, "fault", f"Yes{why}. Nothing is sent until it is activated.", _activations(held))
    if shown["status"] == "failing":
        return Check(question, "doubt", f"Not yet, but it keeps failing: {reason}.")
    return Check(question, "fine", "No, it is active.")


def _activations(held: int) -> tuple[Fix, ...]:
    if not held:
        return (Fix("Activate it", "/activate", {"held": "drain"}, "operator"),)
    return (
        Fix(f"Activate it, and send the {held} held", "/activate", {"held": "drain"}, "operator"),
        Fix("Activate it, and discard them", "/activate", {"held": "skip"}, "operator"),
        Fix("Discard those before a time …", "#activate"),
    )


def _selected(events: Sequence[str]) -> Check:
    question = "Are events selected?"
    choose = Fix("Choose events …", "/edit#events", role="admin")
    if not events:
        every = Fix("Select all events", "/select", {"event": ALL_TYPES}, "admin")
        return Check(question, "fault", "No event is selected, so nothing is ever sent to it.", (choose, every))
    if ALL_TYPES in events:
        return Check(question, "fine", "All events are.")
    return Check(question, "fine", f"These are, and no others: {', '.join(events)}.", (choose,))


def emits(events: Sequence[str], emitted: Emitted | None, offered: frozenset[str]) -> Check:
    """
    Whether the app emits what is selected.

    Args:
        events: that are selected.
        emitted: None where nobody has looked yet: that reads the log.
        offered: event types that it can select.
    """
    question = "Does the app emit them?"
    if emitted is None:
        return Check(question, "unknown", "The log is looked at …", (Fix("Look at the last hour", "/why?look=1"),))
    lately = f"in the last {emitted.minutes} minutes"
    if not emitted.by_type:
        return Check(
            question, "fault", f"The app has emitted no event at all {lately}: look where its events should come from."
        )
    told = ", ".join(f"{name} ({count})" for name, count in sorted(emitted.by_type.items()))
    told = told if emitted.is_all else f"{told} among the first {sum(emitted.by_type.values()):,}"
    if ALL_TYPES in events:
        return Check(question, "fine", f"Yes, {lately}: {told}.")
    others = sorted(set(emitted.by_type) - set(events))
    addable = [each for each in others if each in offered][:MOST_ADDED]
    adds = tuple(Fix(f"Select {each} too", "/select", {"event": each}, "admin") for each in addable)
    if not set(events) & set(emitted.by_type):
        return Check(
            question, "fault", f"It emits events, but none that is selected. {lately.capitalize()}: {told}.", adds
        )
    missing = sorted(set(events) - set(emitted.by_type))
    but = f" None of: {', '.join(missing)}." if missing else ""
    return Check(question, "doubt" if missing else "fine", f"Yes, {lately}: {told}.{but}", adds)


def _reached(tried: Mapping[str, Any] | None) -> Check:
    question = "Can its address be reached?"
    if tried is None:
        return Check(question, "unknown", "Nothing has been sent to it yet.", (_TEST,))
    last = tried["attempts"][-1]
    detail = (last["detail"] or "it was not sent").rstrip(".")
    at = utc(tried["lastAt"])
    address = Fix("Change the address …", "/edit#url", role="admin")
    if last["reason"] in _REFUSED:
        return Check(question, "fault", f"No, it is refused before anything is sent: {detail}.", (address, _TEST))
    if last["reason"] in _UNREACHED and last["timing"]["waitMs"] is None:
        return Check(
            question,
            "fault",
            f"Not the last time ({at}): {detail}. {_UNREACHED[last['reason']]}",
            (*_again(tried), address, _TEST),
        )
    if last["number"]:
        return Check(question, "fine", f"Yes, it was the last time ({at}).")
    return Check(question, "unknown", "The last delivery ended before it was sent.", (_TEST,))


def _answered(tried: Mapping[str, Any] | None) -> Check:
    question = "What became of the last delivery?"
    if tried is None:
        return Check(question, "unknown", "None has been tried yet.")
    last = tried["attempts"][-1]
    at = f"{tried['event']}, {utc(tried['lastAt'])}"
    opened = Fix("Look at what was sent and answered", f"/deliveries/{tried['id']}")
    if tried["outcome"] == "delivered":
        return Check(question, "fine", f"It arrived ({at}): the endpoint answered {last['status']}.", (opened,))
    if tried["outcome"] == "discarded":
        detail = "the integration was paused, or what was held was skipped"
        return Check(question, "doubt", f"It was discarded ({at}): {last['detail'] or detail}.", (opened, _TEST))
    if last["reason"] in _UNRENDERED:
        mend = Fix("Mend it …", _UNRENDERED[last["reason"]], role="admin")
        answer = f"It could not be made ({at}): {last['detail']}."
        return Check(question, "fault", answer, (mend, opened, *_again(tried)))
    patience = (Fix("Change the time-out …", "/edit#timeoutMs", role="admin"),) if last["reason"] == "timeout" else ()
    return Check(question, "fault", _failed(tried, last, at), (opened, *_again(tried), *patience))


def _failed(tried: Mapping[str, Any], last: Mapping[str, Any], at: str) -> str:
    if tried["outcome"] == "rejected":
        return (
            f"The endpoint rejected it with {last['status']} ({at}). Compare what it expects with what is sent: its "
            "address, its token, the shape of the body."
        )
    if tried["outcome"] == "blocked":
        return f"It was blocked before it was sent ({at}): {last['detail'] or last['reason']}."
    what = "gave no answer" if last["status"] is None else f"answered {last['status']}"
    if tried["outcome"] == "open":
        return f"The endpoint {what} to attempt {last['number']} ({at}); another one follows by itself."
    return f"The endpoint {what} to the last of {last['number']} attempts ({at})."


def _again(tried: Mapping[str, Any]) -> tuple[Fix, ...]:
    """The button that sends it again, where it has ended."""
    if tried["outcome"] == "open":
        return ()
    return (Fix("Send it again", f"/deliveries/{tried['id']}/retry", {}, "operator"),)


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
            (Fix("Change the ordering …", "/edit#ordering", role="admin"),),
        )
    return Check(question, "fine", "The oldest has waited for less than a minute.")


def _rate(shown: Mapping[str, Any]) -> Check:
    question = "How many arrive?"
    rate = shown["successRate"]
    if rate is None:
        return Check(question, "unknown", "Nothing has ended in the last 24 hours.")
    verdict: Verdict = "fine" if rate >= GOOD_RATE else "doubt" if rate else "fault"
    fixes = (
        ()
        if verdict == "fine"
        else (
            Fix("Those that were rejected", "/deliveries?outcome=rejected"),
            Fix("Those that used up their attempts", "/deliveries?outcome=exhausted"),
        )
    )
    return Check(question, verdict, f"{percent(rate)} of those that ended in the last 24 hours.", fixes)
