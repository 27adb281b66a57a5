"""
What was recorded of a run, on both ends and from the log, as data: what the claims are checked on.

All times are milliseconds since 1970 UTC, of one machine's clock.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from services.cli.reconcile.proof import Report
from streams.records import BreakerRow, IntegrationState, LaneRow
from tests.chaos.destinations import Destination

#: A request must not take longer than this, answer, result and all; so long before a crash it may have begun.
LONGEST_REQUEST_MS = 15_000
#: Between a time that a process noted and one that another noted of the same moment: they take turns on the machine.
SLACK_MS = 250
#: A request that was answered so long ago has a result: results wait 20 ms to be written together.
RECORDED_MS = 1_000
#: So long ago where a broker's node was away since, or had only just come back.
RECORDED_LATE_MS = 5_000
#: As the kind of what happened: a process ended that nobody had killed or asked to stop.
DIED = "died"
#: By how much clocks in whole milliseconds differ.
TICK_MS = 2


class Sent(NamedTuple):
    """One event at the sending end: sent until a 202 came."""

    event_id: str
    number: int
    type: str
    key: str | None
    #: None: no 202 ever came.
    acknowledged_ms: float | None
    #: Times that it was sent.
    times: int


class Request(NamedTuple):
    """One request at the receiving end."""

    integration: str
    event_id: str
    attempt: int
    key: str | None
    arrived_ms: float
    #: When it was answered, reset, or given up by whoever had sent it.
    ended_ms: float | None
    #: None: it got no answer.
    status: int | None


class Stored(NamedTuple):
    """An event on `events`."""

    partition: int
    offset: int
    event_id: str
    record_id: str
    type: str


class Receipt(NamedTuple):
    """A receipt of fan-out that counts: not a replaced owner's."""

    record_id: str
    event_id: str
    integrations: tuple[str, ...]
    is_repeat: bool
    #: Where the event stands.
    partition: int
    offset: int


class Taken(NamedTuple):
    """A delivery on `deliveries` that counts: not a replaced owner's."""

    partition: int
    offset: int
    delivery_id: str
    integration: str
    event_id: str
    attempt: int
    #: When it was read here: it was appended no later. Its own timestamp is that at which a producer was given it.
    read_ms: float
    #: Whether a retry reader put it back.
    is_retry: bool


class Ended(NamedTuple):
    """A result on `delivery-results`."""

    partition: int
    offset: int
    delivery_id: str
    integration: str
    event_id: str
    attempt: int
    outcome: str | None
    reason: str
    started_ms: int
    finished_ms: int
    #: When it was read here: it was appended no later.
    read_ms: float
    next_attempt: int | None
    next_due_ms: int | None
    #: Whether the next attempt goes through a retry topic.
    is_queued: bool


class Happened(NamedTuple):
    """A fault as it was: what was done, from when to when, and when all processes were ready again."""

    kind: str
    target: str
    began_ms: float
    ended_ms: float
    settled_ms: float
    #: Exit code of a process that was asked to stop, or that ended by itself; None for the others.
    code: int | None = None
    #: For how long it had run when it was asked to stop.
    ran_ms: float = float("inf")

    @property
    def is_crash(self) -> bool:
        """Whether requests in flight then may be repeated."""
        is_worker = self.target.startswith("dispatcher")
        return self.kind == "node" or (is_worker and self.kind in {"kill", "freeze"})

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.kind} {self.target}"


class Changed(NamedTuple):
    """A version of an integration's configuration: as the admin API acknowledged it, or as it is on the log."""

    integration: str
    status: str
    version: int


class Paused(NamedTuple):
    """A time in which nothing may be sent to an integration."""

    integration: str
    #: When the record that paused it was read here: it was appended no later.
    since_ms: float
    #: When the record that ended it was given to a producer, so that nobody can have known before; inf: none did.
    until_ms: float = float("inf")
    #: Where the result stands for which the breaker paused it; None: somebody did at the admin API.
    tripped_by: int | None = None


@dataclass
class Observed:
    """One run."""

    destinations: Mapping[str, Destination]
    sent: list[Sent] = field(default_factory=list)
    #: In the order of their arrival.
    requests: list[Request] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    deliveries: list[Taken] = field(default_factory=list)
    #: Integration and offset of those that a replaced owner appended: dropped when their turn comes.
    late_copies: list[tuple[str, int]] = field(default_factory=list)
    #: Each partition in its order.
    results: list[Ended] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    #: By topic without prefix: the ids of the schemas of its records.
    schema_ids: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    faults: list[Happened] = field(default_factory=list)
    #: By integration: the fold of its results; what the breaker has published; and its row on the changelog.
    folded: dict[str, IntegrationState] = field(default_factory=dict)
    published: dict[str, IntegrationState] = field(default_factory=dict)
    folded_rows: dict[str, BreakerRow] = field(default_factory=dict)
    rows: dict[str, BreakerRow] = field(default_factory=dict)
    lane_rows: dict[str, LaneRow] = field(default_factory=dict)
    changed: list[Changed] = field(default_factory=list)
    #: Of `integration-config`, in its order.
    configured: list[Changed] = field(default_factory=list)
    paused: list[Paused] = field(default_factory=list)
    #: What `tenterhook reconcile` says; None: it was not asked.
    reconciled: Report | None = None

    @cached_property
    def position(self) -> dict[str, tuple[int, int]]:
        """Where the event of that id stands on `events`: the record that won."""
        return {each.event_id: (each.partition, each.offset) for each in self.receipts if not each.is_repeat}

    @cached_property
    def first_of(self) -> dict[tuple[str, int], int]:
        """Where each delivery and attempt stands on `deliveries` first: its retry reader may have left two."""
        first: dict[tuple[str, int], int] = {}
        for each in self.deliveries:
            pair = each.delivery_id, each.attempt
            first[pair] = min(each.offset, first.get(pair, each.offset))
        return first

    @cached_property
    def requests_of(self) -> dict[tuple[str, str, int], list[Request]]:
        """By integration, event and attempt, in the order of their arrival."""
        found: dict[tuple[str, str, int], list[Request]] = defaultdict(list)
        for each in self.requests:
            found[each.integration, each.event_id, each.attempt].append(each)
        return found

    @cached_property
    def results_of(self) -> dict[tuple[str, str, int], list[Ended]]:
        """By integration, event and attempt, as they stand; stored twice, once."""
        found: dict[tuple[str, str, int], list[Ended]] = defaultdict(list)
        for each in self.results:
            same = found[each.integration, each.event_id, each.attempt]
            if not any((each.started_ms, each.finished_ms) == (it.started_ms, it.finished_ms) for it in same):
                same.append(each)
        return found

    @cached_property
    def outcomes_of(self) -> dict[tuple[str, str], list[Ended]]:
        """By integration and event, the results with an outcome; the first one counts."""
        found: dict[tuple[str, str], list[Ended]] = defaultdict(list)
        for (integration, event_id, _), results in self.results_of.items():
            found[integration, event_id] += [each for each in results if each.outcome is not None]
        for results in found.values():
            results.sort(key=lambda each: (each.partition, each.offset))
        return found

    @cached_property
    def result_of(self) -> dict[Request, Ended]:
        """The result that each request became; none for those that nobody recorded."""
        found: dict[Request, Ended] = {}
        for what, requests in self.requests_of.items():
            # The shortest that fits: that of a worker that was frozen spans those of its successor.
            left = sorted(self.results_of.get(what, ()), key=lambda each: each.finished_ms - each.started_ms)
            for request in requests:
                made = next((each for each in left if _is_of(each, request)), None)
                if made is not None:
                    left.remove(made)
                    found[request] = made
        return found

    @cached_property
    def crashes(self) -> list[Happened]:
        """The faults at which requests in flight may be lost or repeated."""
        return [each for each in self.faults if each.is_crash]

    def is_in_flight(self, request: Request, crash: Happened, slack_ms: float = SLACK_MS) -> bool:
        """
        Whether it was under way at that crash: from its first byte until its result is on the broker.

        A frozen worker has one more kind: what it had begun before the freeze, and sent when it woke.
        """
        made = self.result_of.get(request)
        if crash.kind == "freeze" and made is not None and made.started_ms <= crash.began_ms + slack_ms:
            # Its own work, however late it arrived and was recorded.
            return made.finished_ms >= crash.began_ms - slack_ms
        end_ms = crash.ended_ms if crash.kind == "node" else crash.began_ms
        # Without a result, it died: whatever the clocks say, so shortly before.
        until_ms = end_ms + (SLACK_MS if made is None else slack_ms)
        if not crash.began_ms - LONGEST_REQUEST_MS <= request.arrived_ms <= until_ms:
            return False
        if made is None:
            return request.ended_ms is None or request.ended_ms >= crash.began_ms - self._recorded_ms(request, crash)
        return made.read_ms >= crash.began_ms - slack_ms

    def _recorded_ms(self, request: Request, crash: Happened) -> int:
        """How long before that crash an answer may have come that nobody could record."""
        return next(
            (
                RECORDED_LATE_MS
                for each in self.crashes
                if each.kind == "node"
                and each.began_ms < crash.began_ms
                and each.ended_ms + RECORDED_LATE_MS >= (request.ended_ms or crash.began_ms)
            ),
            RECORDED_MS,
        )

    def explains(self, crash: Happened, before: Sequence[Request], after: Request) -> bool:
        """
        Whether HTTP's limit at that crash explains that a request was sent though the same attempt had been sent.

        The limit is that a sender which is gone cannot tell how far it got. It explains two things:

        - **Taken over.** Who sent it took over from somebody whose request stood nowhere on the log. So a crash lies
          between the two: the request before it was in flight when that crash began, this one came afterwards, and by
          then no earlier one had been recorded. Where a worker was killed, the one before has no result at all: whoever
          took over has read what stood there before the kill, and whose result is later lived on. Where one was frozen
          or a node was away, its result came when that was over.
        - **Woken.** Its sender had begun it before a freeze, when no earlier one had been recorded, and sent it when it
          woke, after its successor's. That is for the later one alone, and for no crash but the freeze that its own
          work spans.

        That the later one was itself in flight at some crash explains nothing: it should not have been sent. A crash
        explains one copy of an attempt; `unexcused` sees to it.

        Args:
            before: the same attempt's requests until then, in the order of their arrival; at least one.
        """
        # Whoever woke took over from nobody: who comes afterwards did so from the one before that.
        last = next((each for each in reversed(before) if not self.is_woken(each)), before[-1])
        is_taken_over = crash.began_ms <= after.arrived_ms and self._is_left_by(last, crash)
        return (is_taken_over or self._is_woken_from(after, crash)) and not any(
            self._is_recorded_before(each, crash) for each in before
        )

    def is_woken(self, request: Request) -> bool:
        """Whether its sender had begun it before it froze, and sent it when it woke."""
        return any(self._is_woken_from(request, crash) for crash in self.crashes)

    def _is_woken_from(self, request: Request, crash: Happened) -> bool:
        if crash.kind != "freeze" or request.arrived_ms < crash.ended_ms - SLACK_MS:
            return False
        made = self.result_of.get(request)
        if made is None:
            # Who sent it died before it wrote: then it came at once.
            return request.arrived_ms <= crash.ended_ms + SLACK_MS
        return self.spans(made, crash)

    def spans(self, made: Ended, freeze: Happened) -> bool:
        """Whether the attempt was under way from before that freeze until after it."""
        began_before = made.started_ms <= freeze.began_ms + SLACK_MS
        return freeze.kind == "freeze" and began_before and made.finished_ms >= freeze.ended_ms - SLACK_MS

    @cached_property
    def unexcused(self) -> list[tuple[Request, Request]]:
        """The repeats that no crash of their own excuses, each after the request before it."""
        return [
            (same[number - 1], same[number])
            for same in self.requests_of.values()
            if len(same) > 1
            for number in self._without_a_crash(same)
        ]

    @cached_property
    def excused(self) -> set[Request]:
        """The requests of attempts that were sent more than once, each time with an excuse."""
        wrong = {_attempt_of(after) for _, after in self.unexcused}
        repeated = (same for same in self.requests_of.values() if len(same) > 1)
        return {each for same in repeated for each in same if _attempt_of(each) not in wrong}

    def _without_a_crash(self, same: Sequence[Request]) -> list[int]:
        """The copies, by number, that are left when each crash explains one at most, and as many as can be have one."""
        explaining = {
            number: [crash for crash in self.crashes if self.explains(crash, same[:number], same[number])]
            for number in range(1, len(same))
        }
        copy_of: dict[Happened, int] = {}

        def finds_one(number: int, tried: set[Happened]) -> bool:
            for crash in explaining[number]:
                if crash in tried:
                    continue
                tried.add(crash)
                if crash not in copy_of or finds_one(copy_of[crash], tried):
                    copy_of[crash] = number
                    return True
            return False

        return [number for number in explaining if not finds_one(number, set())]

    def _is_left_by(self, request: Request, crash: Happened) -> bool:
        """Whether who died or froze in that crash may have been its sender, and left it in flight."""
        made = self.result_of.get(request)
        is_late = made is None or (crash.kind != "kill" and made.read_ms >= crash.ended_ms - TICK_MS)
        return is_late and self.is_in_flight(request, crash)

    def _is_recorded_before(self, request: Request, crash: Happened) -> bool:
        made = self.result_of.get(request)
        return made is not None and made.read_ms < crash.began_ms

    def unsettled_ms(self, from_ms: float, to_ms: float, *others: str) -> float:
        """
        For how much of that time deliveries may have waited for a fault: for what it took all to be ready again, and
        to have felt it, since a dispatcher or a node was struck. Others have no part in deliveries.

        Args:
            others: services that have a part in what is asked about.
        """
        struck = (each for each in self.faults if each.target.startswith(("dispatcher", "node", *others)))
        spans = sorted((max(each.began_ms, from_ms), min(each.settled_ms, to_ms)) for each in struck)
        total, until = 0.0, from_ms
        for begin, end in spans:
            if end > max(begin, until):
                total += end - max(begin, until)
                until = end
        return total


def _is_of(result: Ended, request: Request) -> bool:
    late_ms = LONGEST_REQUEST_MS if result.reason == "timeout" else TICK_MS
    return result.started_ms - TICK_MS <= request.arrived_ms <= result.finished_ms + late_ms


def _attempt_of(request: Request) -> tuple[str, str, int]:
    return request.integration, request.event_id, request.attempt
