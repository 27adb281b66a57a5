"""
One run: the receiver and the load are started, integrations made, a warm-up sent, then what is measured.

CPU time is read right before the first request and `SETTLE_S` after the last arrival, so that writing results and
committing offsets is in it.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from services.cli.bench.findings import Arrival, accepted, findings, first_arrivals
from services.cli.bench.log import Written, ends_now, order_of, written_since
from services.cli.bench.outcome import Cost, Outcome, Plan
from services.cli.bench.parts import Loading, Receiving, ended
from services.cli.bench.processes import Process, cpu_ms, machine_ms, pss_bytes
from services.cli.bench.results import ResultLog
from services.cli.bench.stack import Stack
from services.cli.bench.stages import stages
from services.cli.bench.targets import targets
from services.cli.errors import Failed
from services.cli.log_access import LogOptions, log_connection
from streams.connection import Connection
from streams.topics import DELIVERIES, EVENTS, FAN_OUT, RESULTS

#: After the last arrival: two intervals in which offsets are committed, and time for a repeat to show itself.
SETTLE_S: Final = 0.5
#: Between two looks at how far it is.
_LOOK_S: Final = 0.05
#: A delivery that is not there after this long without any arrival is lost.
PATIENCE_S: Final = 20.0
#: An answer from ingest takes at most some 5 s; without any for this long it hangs.
_ANSWER_PATIENCE_S: Final = 30.0
#: Places for arrivals, as a multiple of what is expected: room for repeats.
_ROOM: Final = 2


class Arriving(Protocol):
    """What tells of arrivals: the built-in receiver, or the log."""

    @property
    def filled(self) -> int: ...
    def arrivals(self) -> list[Arrival]: ...


#: Called with events answered and deliveries arrived so far.
Progress = Callable[[int, int], None]


def run(plan: Plan, stack: Stack, progress: Progress) -> Outcome:
    """
    Measure.

    Raises:
        Failed: it cannot be measured; the message says what, why and what to do.
    """
    log = log_connection(LogOptions(broker=stack.broker, topic_prefix=plan.topic_prefix)) if stack.broker else None
    with ExitStack() as open_, tempfile.TemporaryDirectory(prefix="tenterhook-bench-") as name:
        folder = Path(name)
        receiving = None
        if plan.receiver is None:
            rows = _ROOM * (plan.events + plan.warm_up) * plan.integrations
            receiving = Receiving(folder, plan.integrations, rows)
            open_.enter_context(ended(receiving.part))
        urls = receiving.urls if receiving else [plan.receiver or ""] * plan.integrations
        ids = open_.enter_context(
            targets(
                stack.admin,
                profile=plan.profile,
                urls=urls,
                ordering=plan.ordering,
                max_in_flight=plan.max_in_flight,
            )
        )
        arriving: Arriving = receiving or open_.enter_context(_followed(log, ids))
        loading = Loading(folder, plan.events + plan.warm_up, _orders(plan, stack))
        open_.enter_context(ended(loading.part))
        loading.part.hear()
        own = [Process(loading.part.pid, os.getpid(), "load (not counted)")]
        if receiving:
            own.append(Process(receiving.part.pid, os.getpid(), "receiver (not counted)"))
        return _Run(plan, stack, log, ids, loading, arriving, own, progress).measured()


@contextmanager
def _followed(log: Connection | None, ids: list[str]) -> Iterator[ResultLog]:
    if log is None:
        raise Failed("arrivals at a receiver of yours are read from the log: give the broker's address with --broker")
    results = ResultLog(log, {each: at for at, each in enumerate(ids)})
    results.start()
    try:
        yield results
    finally:
        results.close()


def _orders(plan: Plan, stack: Stack) -> dict[str, Any]:
    address = urlsplit(stack.ingest.url)
    if address.scheme != "http" or address.path:
        raise Failed(f"the load speaks plain HTTP to ingest itself, not to {stack.ingest.url}: give such an address")
    return {
        "host": address.hostname,
        "port": address.port or 80,
        "app": stack.ingest.app,
        "key": stack.ingest.credential,
        "profile": plan.profile,
        "payload_bytes": plan.payload_bytes,
        "keyed": plan.ordering == "key",
        "connections": plan.connections,
    }


class _Run:
    """A run whose parts are all there."""

    def __init__(
        self,
        plan: Plan,
        stack: Stack,
        log: Connection | None,
        ids: list[str],
        loading: Loading,
        arriving: Arriving,
        own: list[Process],
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._stack = stack
        self._log = log
        self._ids = ids
        self._loading = loading
        self._arriving = arriving
        self._own = own
        self._progress = progress
        self._began_ns = time.time_ns()

    def measured(self) -> Outcome:
        plan = self._plan
        self._warm_up()
        topics = (EVENTS, FAN_OUT, DELIVERIES, RESULTS) if plan.stages else (EVENTS,)
        starts = ends_now(self._log, *topics) if self._log else {}
        own = {each.pid for each in self._own}
        processes = [*(each for each in self._stack.processes() if each.pid not in own), *self._own]
        started_s, busy_ms = time.monotonic(), machine_ms() - cpu_ms(os.getpid())
        before = {each.pid: cpu_ms(each.pid) for each in processes}
        first, last = plan.warm_up, plan.warm_up + plan.events
        self._send(first, last, plan.rate_per_s, self._progress)
        time.sleep(SETTLE_S)
        cpu = {each.pid: cpu_ms(each.pid) - before[each.pid] for each in processes}
        others_ms = machine_ms() - cpu_ms(os.getpid()) - busy_ms - sum(cpu.values())
        others_cores = max(0.0, others_ms / 1000 / (time.monotonic() - started_s))
        written = written_since(self._log, starts, *topics) if self._log else None
        arrived = self._arrived(first, last)
        return Outcome(
            findings=findings(
                self._loading.sent(first, last),
                arrived,
                plan.integrations,
                self._order(written, first, last),
                plan.ordering,
            ),
            costs=tuple(Cost(each, cpu[each.pid], pss_bytes(each.pid), each.pid not in own) for each in processes),
            others_cores=others_cores,
            stages=None
            if written is None or not plan.stages
            else stages(written, arrived, {each: at for at, each in enumerate(self._ids)}),
        )

    def _warm_up(self) -> None:
        plan = self._plan
        if not plan.warm_up:
            return
        expected = self._send(0, plan.warm_up, None, lambda *_: None)
        arrived = len(first_arrivals(self._arrived(0, plan.warm_up)))
        if expected < plan.warm_up * plan.integrations or arrived < expected:
            statuses = sorted({each.status for each in self._loading.sent(0, plan.warm_up)})
            raise Failed(
                f"the warm-up of {plan.warm_up} events failed: ingest answered {statuses}, {arrived} of {expected} "
                "deliveries arrived. See `tenterhook up`'s lines"
            )

    def _send(self, first: int, last: int, rate_per_s: float | None, progress: Progress) -> int:
        """
        Send events and wait until every delivery has arrived, or none comes any more.

        How many deliveries should have arrived.
        """
        already_answered, already_arrived = self._loading.answered, self._arriving.filled
        self._loading.send(first, last, rate_per_s)
        progressed_at, seen = time.monotonic(), (0, 0)
        expected: int | None = None
        while True:
            time.sleep(_LOOK_S)
            self._loading.part.check()
            answered, arrived = self._loading.answered - already_answered, self._arriving.filled - already_arrived
            progress(answered, arrived)
            if (answered, arrived) != seen:
                progressed_at, seen = time.monotonic(), (answered, arrived)
            waited_s = time.monotonic() - progressed_at
            if answered < last - first:
                if waited_s > _ANSWER_PATIENCE_S:
                    raise Failed(f"ingest has not answered for {waited_s:.0f} s: see `tenterhook up`'s lines")
                continue
            if expected is None:
                expected = self._plan.integrations * len(accepted(self._loading.sent(first, last)))
            if waited_s > PATIENCE_S or self._has_arrived(first, last, arrived, expected):
                return expected

    def _has_arrived(self, first: int, last: int, arrived: int, expected: int) -> bool:
        # Counting is cheap, so it comes first; among as many as expected there may be repeats.
        return arrived >= expected and len(first_arrivals(self._arrived(first, last))) >= expected

    def _arrived(self, first: int, last: int) -> list[Arrival]:
        return [
            each for each in self._arriving.arrivals() if first <= each.number < last and each.sent_ns >= self._began_ns
        ]

    def _order(self, written: list[Written] | None, first: int, last: int) -> list[int] | None:
        """The order in which events were accepted; None where nobody can tell."""
        if self._plan.connections == 1:
            # The next is sent when the one before is accepted.
            return list(range(first, last))
        return None if written is None else order_of(written, self._stack.ingest.app, self._began_ns)
