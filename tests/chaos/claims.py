"""
The claims, each a function from what was recorded of a run to its violations. Pure.

`CLAIMS` numbers them; `check` asks them all. A violation is a sentence that says of what, where and when.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from signal import SIGTERM
from typing import Final, NamedTuple

from services.cli.reconcile.proof import MEANING
from tests.chaos.observed import DIED, SLACK_MS, TICK_MS, Ended, Observed, Request, Taken

#: A retry may be so late while every process is ready: the machine is a busy one.
LATE_MS: Final = 5_000
#: Until a pause is known everywhere while every process is ready.
PAUSED_MS: Final = 1_000
#: What is done to a fleet on purpose.
_CHANGES: Final = ("join", "leave", "update", "back")
#: A process that was asked to stop has ended after this long.
STOP_S: Final = 30.0
#: One that was asked so soon after its start may die of the signal, as anything does that has no handler for it yet.
STARTING_MS: Final = 10_000

Claim = Callable[[Observed], Iterator[str]]


def no_acknowledged_event_is_lost(seen: Observed) -> Iterator[str]:
    """every event that got a 202 is on the log, and was fanned out once, to all who had selected it and nobody else"""
    stored = {each.event_id for each in seen.stored}
    fanned_out: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for receipt in seen.receipts:
        if not receipt.is_repeat:
            fanned_out[receipt.event_id].append(tuple(sorted(receipt.integrations)))
    for sent in seen.sent:
        if sent.acknowledged_ms is None:
            continue
        wanted = tuple(sorted(each.name for each in seen.destinations.values() if sent.type in each.types))
        found = fanned_out.get(sent.event_id, [])
        if sent.event_id not in stored:
            yield f"event {sent.number} ({sent.event_id}) is not on the log"
        elif found != [wanted]:
            yield f"event {sent.number} ({sent.event_id}) was fanned out to {found or 'nobody'} instead of {wanted}"


def one_outcome(seen: Observed) -> Iterator[str]:
    """each of its deliveries has one outcome, or is held for an integration that is paused"""
    for receipt in seen.receipts:
        for integration in receipt.integrations:
            outcomes = seen.outcomes_of.get((integration, receipt.event_id), [])
            if not outcomes and not _is_paused(seen, integration):
                yield f"{integration} {receipt.event_id} has no outcome"
            # An attempt that was repeated has two results, of which the first counts; either may be an outcome.
            if len(outcomes) > 1 and sum(not _is_of_a_repeat(seen, each) for each in outcomes) > 1:
                yield f"{integration} {receipt.event_id} has outcomes {[(it.outcome, it.attempt) for it in outcomes]}"


def results_are_true(seen: Observed) -> Iterator[str]:
    """a result says what the endpoint did: delivered is a 2xx that it gave, a status is the one that it gave"""
    request_of = {id(made): request for request, made in seen.result_of.items()}
    for same in seen.results_of.values():
        for made in same:
            if made.attempt == 0 or not made.reason.startswith("status_"):
                continue
            request, status = request_of.get(id(made)), int(made.reason.removeprefix("status_"))
            if request is None or request.status != status:
                said = "no request" if request is None else f"status {request.status}"
                yield f"{_name(made)} is recorded as {made.reason}, and its endpoint had {said}"


def only_what_was_in_flight_is_repeated(seen: Observed) -> Iterator[str]:
    """a request is repeated, or left without a result, only if it was in flight when a process or a node crashed"""
    for before, after in seen.unexcused:
        again_ms = after.arrived_ms - before.arrived_ms
        yield f"{_name(before)} was sent at {before.arrived_ms:.0f} and again {again_ms:.0f} ms later"
    for request in seen.requests:
        if request not in seen.result_of and not any(seen.is_in_flight(request, crash) for crash in seen.crashes):
            yield f"{_name(request)}, sent at {request.arrived_ms:.0f}, has no result"


def one_at_a_time(seen: Observed) -> Iterator[str]:
    """under `integration` and `strict`, and under `key` for one key, no request starts before the last one has ended"""
    lines: dict[str, list[Request]] = defaultdict(list)
    for request in seen.requests:
        # A crash explains that a request goes on while its repeat, and what follows that, comes; nothing else does.
        if request not in seen.excused and seen.destinations[request.integration].ordering != "none":
            lines[_line(seen, request)].append(request)
    for line, requests in lines.items():
        under_way = None
        for request in requests:
            if under_way and request.arrived_ms < (until_ms := _ended_ms(seen, under_way)):
                early_ms = until_ms - request.arrived_ms
                yield f"{line}: {_name(request)} came {early_ms:.0f} ms before the end of {_name(under_way)}"
            if not under_way or _ended_ms(seen, request) > _ended_ms(seen, under_way):
                under_way = request


def order_is_kept(seen: Observed) -> Iterator[str]:
    """first attempts start in the order of the events: of the integration, or under `key` of its key"""
    for line, firsts in _lines(seen, "integration", "strict", "key").items():
        highest = (-1, -1)
        for request in firsts:
            position = seen.position.get(request.event_id, highest)
            if position < highest:
                yield f"{line}: {request.event_id}, at {position} on the log, came after the one at {highest}"
            highest = max(highest, position)


def nothing_overtakes_what_fails(seen: Observed) -> Iterator[str]:
    """under `strict`, and under `key` for one key, nothing is sent before the last attempt of the one before ended"""
    for line, firsts in _lines(seen, "strict", "key").items():
        for before, after in pairwise(firsts):
            ended = seen.outcomes_of.get((before.integration, before.event_id))
            if not ended or ended[0].attempt < 1:
                continue
            last_ms = min(each.finished_ms for each in ended if each.attempt == ended[0].attempt)
            if after.arrived_ms < last_ms - TICK_MS:
                yield f"{line}: {after.event_id} came before attempt {ended[0].attempt} of {before.event_id} had ended"


def no_retry_is_early(seen: Observed) -> Iterator[str]:
    """no attempt starts before it is due"""
    for made, later in _retried(seen):
        for each in later:
            if each.started_ms < (made.next_due_ms or 0):
                yield f"{_name(each)} started {(made.next_due_ms or 0) - each.started_ms} ms before it was due"
        what = (made.integration, made.event_id, made.next_attempt or 0)
        for request in seen.requests_of.get(what, ())[:1]:
            if request.arrived_ms < (made.next_due_ms or 0) - TICK_MS:
                yield f"{_name(request)} came {(made.next_due_ms or 0) - request.arrived_ms:.0f} ms before it was due"


def no_retry_is_late(seen: Observed) -> Iterator[str]:
    """a retry is back on `deliveries`, or under `strict` and `key` starts, within 5 s of its time with all at work"""
    for each in lateness(seen):
        if each.late_ms > LATE_MS:
            yield f"{each.what} was {each.late_ms:.0f} ms late"


def the_breaker_is_a_fold(seen: Observed) -> Iterator[str]:
    """what the breaker says of each integration is the fold of its results"""
    for name in sorted(seen.folded.keys() | seen.published.keys()):
        folded, published = seen.folded.get(name), seen.published.get(name)
        if folded != published:
            yield f"{name}: published {published}, and its results say {folded}"


def tables_are_true(seen: Observed) -> Iterator[str]:
    """rows on changelogs are what the log says: the breaker's the fold, a lane's the deliveries that it holds"""
    for name in sorted(seen.folded_rows.keys() | seen.rows.keys()):
        if seen.folded_rows.get(name) != seen.rows.get(name):
            yield f"breaker {name}: row {seen.rows.get(name)}, and its results say {seen.folded_rows.get(name)}"
    waiting = _waiting(seen)
    for name in (each.name for each in seen.destinations.values() if each.is_left_paused):
        if not waiting.get(name):
            yield f"lane {name}: nothing waits there, so that there is nothing to compare its row with"
    for name in sorted(seen.lane_rows.keys() | waiting.keys()):
        yield from _a_lane_row_is_true(seen, name, waiting.get(name, []))


def _a_lane_row_is_true(seen: Observed, name: str, waiting: Collection[Taken]) -> Iterator[str]:
    """It counts each record from its frontier on, also a copy that nobody sends, and lists what waits below."""
    row = seen.lane_rows.get(name)
    if row is None:
        yield f"lane {name}: {len(waiting)} deliveries wait, and it has no row"
        return
    late = sum(integration == name and offset >= row.frontier for integration, offset in seen.late_copies)
    above = [each for each in seen.deliveries if each.integration == name and each.offset >= row.frontier]
    if row.held != len(above) + late:
        yield f"lane {name}: its row holds {row.held}, and {len(above)} records and {late} late copies stand there"
    first = seen.first_of
    wrong = {each.offset for each in above if first[each.delivery_id, each.attempt] == each.offset}
    wrong ^= {each.offset for each in waiting if each.offset >= row.frontier}
    if wrong:
        yield f"lane {name}: of what its row counts, or does not, {sorted(wrong)} have a result, or wait"
    listed = {each.offset for each in row.open} ^ {each.offset for each in waiting if each.offset < row.frontier}
    if listed:
        yield f"lane {name}: its row lists what does not wait, or does not list what does: {sorted(listed)}"


def nothing_is_quarantined(seen: Observed) -> Iterator[str]:
    """nothing is put aside"""
    yield from seen.quarantined


def changes_are_kept(seen: Observed) -> Iterator[str]:
    """every change of configuration that got a 2xx is on the log, and versions only rise"""
    there, newest = set(seen.configured), dict[str, int]()
    for change in seen.changed:
        if change not in there:
            yield f"{change} was acknowledged, and is not on the log"
    for change in seen.configured:
        if change.version < newest.get(change.integration, 0):
            yield f"{change.integration} went from version {newest[change.integration]} back to {change.version}"
        newest[change.integration] = change.version


def who_is_asked_to_stop_ends(seen: Observed) -> Iterator[str]:
    """a process that gets SIGTERM ends by itself, with 0, within 30 s"""
    for fault in seen.faults:
        took_s = (fault.ended_ms - fault.began_ms) / 1_000
        is_well = fault.code == 0 or (fault.code == -SIGTERM and fault.ran_ms < STARTING_MS)
        if fault.code is not None and fault.kind != DIED and (not is_well or took_s > STOP_S):
            yield f"{fault.target} ended with {fault.code} after {took_s:.1f} s"


def nobody_ends_unasked(seen: Observed) -> Iterator[str]:
    """no process ends that nobody killed or asked to stop, whatever happens to the others and to the broker"""
    for fault in seen.faults:
        if fault.kind == DIED:
            yield f"{fault.target} ended by itself with {fault.code} at {fault.ended_ms:.0f}"


def reconcile_proves_it(seen: Observed) -> Iterator[str]:
    """`tenterhook reconcile` proves it from the log alone"""
    report = seen.reconciled
    if report is None:
        return
    if report.missing:
        yield f"{report.missing} are missing"
    for kind, count in report.counts.items():
        yield f"{count} x {kind}: {MEANING[kind]}"


def nothing_starts_while_paused(seen: Observed) -> Iterator[str]:
    """nothing is sent later than 1 s after a pause is on the log, or the 20th failure's result, with all at work"""
    for each in sent_while_paused(seen):
        if each.after_ms > PAUSED_MS:
            yield f"{_name(each.request)} came {each.after_ms:.0f} ms after {each.what} was on the log"


CLAIMS: Final[tuple[Claim, ...]] = (
    no_acknowledged_event_is_lost,
    one_outcome,
    results_are_true,
    only_what_was_in_flight_is_repeated,
    one_at_a_time,
    order_is_kept,
    nothing_overtakes_what_fails,
    no_retry_is_early,
    no_retry_is_late,
    the_breaker_is_a_fold,
    tables_are_true,
    nothing_is_quarantined,
    changes_are_kept,
    who_is_asked_to_stop_ends,
    reconcile_proves_it,
    nobody_ends_unasked,
    nothing_starts_while_paused,
)


class Checked(NamedTuple):
    """One claim, and its violations."""

    number: int
    claim: str
    violations: list[str]


def check(seen: Observed) -> list[Checked]:
    """All claims."""
    return [Checked(number, claim.__doc__ or "", list(claim(seen))) for number, claim in enumerate(CLAIMS, 1)]


# -- figures -----------------------------------------------------------------------------------------------------


def repeats(seen: Observed) -> int:
    """Requests that were sent before: the same attempt of the same delivery."""
    return sum(len(same) - 1 for same in seen.requests_of.values())


def in_flight(seen: Observed) -> int:
    """Requests that were in flight at some crash, by the clocks alone; repeats that nothing excuses left out."""
    wrong = {after for _, after in seen.unexcused}
    return sum(
        any(seen.is_in_flight(each, crash, TICK_MS) for crash in seen.crashes)
        for each in seen.requests
        if each not in wrong
    )


class Late(NamedTuple):
    """A retry, and by how much it was late."""

    what: str
    late_ms: float
    #: What was taken off, since deliveries may have waited for a fault then.
    left_out_ms: float


def lateness(seen: Observed) -> list[Late]:
    """
    By how much each retry was late, times taken off in which deliveries may have waited for a fault.

    Of retries in a topic, until they are back on `deliveries`: what then waits in line waits for what is before it.
    """
    back: dict[tuple[str, int], float] = {}
    for each in seen.deliveries:
        if each.is_retry:
            back.setdefault((each.delivery_id, each.attempt), each.read_ms)
    found = []
    for made, later in _retried(seen):
        due_ms, attempt = made.next_due_ms or 0, made.next_attempt or 0
        if made.is_queued:
            at_ms = back.get((made.delivery_id, attempt))
        else:
            at_ms = min((float(each.started_ms) for each in later), default=None)
        if at_ms is not None:
            what = f"{made.integration} {made.event_id} attempt {attempt}"
            left_out_ms = seen.unsettled_ms(due_ms, at_ms)
            found.append(Late(what, max(0.0, at_ms - due_ms - left_out_ms), left_out_ms))
    return found


def judged_whole(seen: Observed) -> int:
    """Retries whose lateness was judged with nothing taken off."""
    return sum(not each.left_out_ms for each in lateness(seen))


class SentWhilePaused(NamedTuple):
    """A request to an integration that is paused, and how long after that was known."""

    request: Request
    #: What made it known.
    what: str
    #: Times taken off in which who has to know it may have been struck by a fault.
    after_ms: float


def sent_while_paused(seen: Observed) -> list[SentWhilePaused]:
    """
    The requests that came after a pause was on the log, or after the failure was that made the breaker pause.

    When they came, not when they were begun, which their dispatcher alone knows: where it froze in between, it sends
    them when it wakes, and that time is taken off. From the failure on, times of the breaker's faults are, too; once
    the pause is on the log, what becomes of the breaker excuses nothing.
    """
    requests: dict[str, list[Request]] = defaultdict(list)
    for request in seen.requests:
        requests[request.integration].append(request)
    read_ms = {(each.integration, each.offset): each.read_ms for each in seen.results}
    found = []
    for paused in seen.paused:
        known: list[tuple[str, float, tuple[str, ...]]] = [("its pause", paused.since_ms, ())]
        if paused.tripped_by is not None:
            failed_ms = read_ms.get((paused.integration, paused.tripped_by), paused.since_ms)
            known.append(("its 20th failure", failed_ms, ("breaker",)))
        for what, since_ms, others in known:
            for each in _between(requests[paused.integration], since_ms, paused.until_ms):
                left_out_ms = seen.unsettled_ms(since_ms, each.arrived_ms, *others)
                found.append(SentWhilePaused(each, what, each.arrived_ms - since_ms - left_out_ms))
    return found


def tripped(seen: Observed) -> int:
    """How often the breaker paused an integration."""
    return sum(each.tripped_by is not None for each in seen.paused)


@dataclass(frozen=True, slots=True)
class Silence:
    """The longest time without a request that an integration had from a fault on."""

    fault: str
    integration: str
    seconds: float


def silences(seen: Observed, integrations: tuple[str, ...]) -> list[Silence]:
    """
    Of each fault that deliveries may wait for, that of the integration that waited longest, until all was ready.

    Those are faults of dispatchers and nodes, and of whatever is added, taken away or replaced. Who gets nothing any
    more was silent until the last event was accepted, at least.
    """
    last_ms = max((each.acknowledged_ms or 0.0 for each in seen.sent), default=0.0)
    arrived: dict[str, list[float]] = defaultdict(list)
    for each in seen.requests:
        arrived[each.integration].append(each.arrived_ms)
    found = []
    for fault in seen.faults:
        if not fault.target.startswith(("dispatcher", "node")) and fault.kind not in _CHANGES:
            continue
        worst = Silence(fault.name, "", 0.0)
        for name in integrations:
            times = [at_ms for at_ms in arrived[name] if at_ms > fault.began_ms]
            inside = [at_ms for at_ms in times if at_ms < fault.settled_ms]
            ends = times[len(inside) : len(inside) + 1] or [max(last_ms, fault.began_ms)]
            times = [fault.began_ms, *inside, *ends]
            longest = max((b - a for a, b in pairwise(times)), default=0.0)
            if longest > worst.seconds * 1_000:
                worst = Silence(fault.name, name, longest / 1_000)
        found.append(worst)
    return found


# -- what claims share -------------------------------------------------------------------------------------------


def _lines(seen: Observed, *orderings: str) -> dict[str, list[Request]]:
    """Of each integration, or key where that is what keeps its order: first attempts as they came first."""
    lines: dict[str, list[Request]] = defaultdict(list)
    came: set[tuple[str, str]] = set()
    for request in seen.requests:
        ordering = seen.destinations[request.integration].ordering
        if request.attempt != 1 or ordering not in orderings or (request.integration, request.event_id) in came:
            continue
        came.add((request.integration, request.event_id))
        lines[_line(seen, request)].append(request)
    return lines


def _between(requests: list[Request], from_ms: float, to_ms: float) -> list[Request]:
    """Those that came between these times."""
    first = bisect_right(requests, from_ms, key=lambda each: each.arrived_ms)
    return requests[first : bisect_left(requests, to_ms, key=lambda each: each.arrived_ms)]


def _line(seen: Observed, request: Request) -> str:
    """The integration, or the key of it where that is what keeps its order."""
    key = f" {request.key}" if seen.destinations[request.integration].ordering == "key" else ""
    return request.integration + key


def _ended_ms(seen: Observed, request: Request) -> float:
    """
    When it had ended at the latest for whoever sent it, less what clocks differ by.

    Without a result, when the endpoint was done with it or saw it given up, which it sees late.
    """
    made = seen.result_of.get(request)
    if made is not None:
        return made.finished_ms - TICK_MS
    return request.arrived_ms if request.ended_ms is None else request.ended_ms - SLACK_MS


def _retried(seen: Observed) -> Iterator[tuple[Ended, list[Ended]]]:
    """Each failed attempt that another one follows, and the results of that one; where there are several, the last."""
    for same in seen.results_of.values():
        made = same[-1]
        if made.next_attempt is not None and len(same) == 1:
            yield made, seen.results_of.get((made.integration, made.event_id, made.next_attempt), [])


def _waiting(seen: Observed) -> dict[str, list[Taken]]:
    """By integration: deliveries that are on the log and have no result, each by its first record."""
    done = {(each.delivery_id, each.attempt) for same in seen.results_of.values() for each in same}
    ended = {each.delivery_id for same in seen.outcomes_of.values() for each in same}
    waiting: dict[str, list[Taken]] = defaultdict(list)
    for each in seen.deliveries:
        pair = each.delivery_id, each.attempt
        if each.delivery_id not in ended and pair not in done and seen.first_of[pair] == each.offset:
            waiting[each.integration].append(each)
    return waiting


def _is_paused(seen: Observed, integration: str) -> bool:
    """Whether it was at the end: by the breaker, or by somebody at the admin API."""
    state = seen.published.get(integration)
    configured = next((each.status for each in reversed(seen.configured) if each.integration == integration), None)
    return configured == "paused" or (state is not None and state.state == "paused")


def _is_of_a_repeat(seen: Observed, made: Ended) -> bool:
    """
    Whether the result is of an attempt that was sent more than once, each time with an excuse; or of a worker that
    had begun it before a freeze, and had nothing to send any more when it woke.
    """
    if any(seen.spans(made, crash) for crash in seen.crashes):
        return True
    same = seen.requests_of.get((made.integration, made.event_id, made.attempt), [])
    return any(each in seen.excused for each in same)


def _name(what: Request | Ended) -> str:
    return f"{what.integration} {what.event_id} attempt {what.attempt}"
