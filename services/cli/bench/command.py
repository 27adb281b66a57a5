"""The command: options to a plan, a progress bar, the report."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from schemas.profiles import MAX_ACTIVE_INTEGRATIONS, MAX_BODY_BYTES, MAX_IN_FLIGHT, Ordering
from services.cli.access import READY_FILE, AdminOptions, admin_access, ingest_access
from services.cli.bench.outcome import Outcome, Plan
from services.cli.bench.report import as_json as outcome_as_json
from services.cli.bench.report import faults, show
from services.cli.bench.run import Progress, run
from services.cli.bench.stack import Stack, own_stack, running_stack
from services.cli.bench.wire import Profile, least_payload_bytes
from services.cli.errors import WrongUsage

DONE, FAILED = 0, 1

#: Each has a port, a connection pool and a line of its own; more of them measure the machine's limits, not ours.
_MOST_INTEGRATIONS: Final = 200
_MOST_CONNECTIONS: Final = 1_000
#: Numbers of events have nine digits.
_MOST_EVENTS: Final = 10_000_000
#: What stands around a payload in a delivery, at most.
_ENVELOPE_BYTES: Final = 1_024


def bench(
    *,
    events: int = 10_000,
    integrations: int = 3,
    size: int = 1_024,
    connections: int = 32,
    rate: float | None = None,
    ordering: Ordering = "integration",
    max_in_flight: int | None = None,
    profile: Profile = "integration",
    warm_up: int = 500,
    receiver: str | None = None,
    start: Annotated[bool, Parameter(negative=())] = False,
    broker: str | None = None,
    ready_file: Path = READY_FILE,
    ingest: Annotated[str | None, Parameter(env_var="TENTERHOOK_INGEST_URL")] = None,
    key: Annotated[str | None, Parameter(env_var="TENTERHOOK_KEY")] = None,
    access: AdminOptions | None = None,
    topic_prefix: Annotated[str, Parameter(env_var="TENTERHOOK_TOPIC_PREFIX")] = "tenterhook.",
    stages: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Measure deliveries per second, CPU and latency, and look for lost, repeated and reordered deliveries.

    Makes integrations of its own in an app, posts events, counts what arrives, and deletes the integrations again.
    Exits with 1 when an event was not accepted, or a delivery was lost, repeated or, against the ordering's promise,
    out of order.

    Args:
        events: How many to post, after the warm-up.
        integrations: How many get every event; up to 3, or up to 200 with --profile booking.
        size: Bytes of each event's payload.
        connections: To ingest, with one request under way on each.
        rate: Events per second; without it, as fast as the connections go.
        ordering: Of the integrations.
        max_in_flight: Requests at once, where the ordering allows several; else 100.
        profile: Of the integrations; those of booking are signed subscriptions.
        warm_up: Events before those that are measured; they are not counted.
        receiver: Where deliveries go; else to a built-in receiver. Its arrivals are read from the log.
        start: Start a tenterhook by itself, on free ports and with its data in a temporary folder, and stop it after.
        broker: With --start, as `up --broker` takes it; else HOST:PORT of the running one's, if not known.
        ready_file: That a running `up` has written.
        ingest: Address of the ingest service; else that of `up`.
        key: A secret key of the app, sk_...; else that of `up`.
        access: Which admin API.
        topic_prefix: Before every topic's name, where the log is read.
        stages: Show how long each step of a delivery took, as the log has it.
        as_json: Print the outcome as JSON.
    """
    plan = Plan(
        events=_within("--events", events, 1, _MOST_EVENTS),
        integrations=_integrations(integrations, profile),
        payload_bytes=_within("--size", size, least_payload_bytes(profile), MAX_BODY_BYTES - _ENVELOPE_BYTES),
        connections=_within("--connections", connections, 1, _MOST_CONNECTIONS),
        rate_per_s=_rate(rate),
        profile=profile,
        ordering=ordering,
        max_in_flight=_max_in_flight(max_in_flight, ordering),
        warm_up=_within("--warm-up", warm_up, 0, _MOST_EVENTS),
        receiver=_receiver(receiver),
        topic_prefix=topic_prefix,
        stages=stages,
    )
    with (
        _unwinding(),
        _stack(start, broker, ready_file, ingest, key, access or AdminOptions()) as stack,
        _progress(plan, as_json) as progress,
    ):
        outcome = run(plan, stack, progress)
    return _reported(plan, stack, outcome, as_json=as_json)


def _reported(plan: Plan, stack: Stack, outcome: Outcome, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(outcome_as_json(plan, stack, outcome)))
    else:
        show(plan, stack, outcome)
    return FAILED if faults(plan, outcome.findings) else DONE


def _stack(
    start: bool, broker: str | None, ready_file: Path, ingest: str | None, key: str | None, access: AdminOptions
) -> AbstractContextManager[Stack]:
    if start:
        if ingest or key or access != AdminOptions():
            raise WrongUsage(
                "--start starts a tenterhook of its own: leave out --ingest, --admin, --app, --key and --token"
            )
        return own_stack(broker or "auto")
    if not ready_file.exists() and not (access.token and key):
        raise WrongUsage(
            f"no tenterhook to measure: {ready_file} is not there. Add --start for one of its own, or name a running "
            "one with --ready-file, or with --app, --key, --token and, where they are others, --ingest and --admin"
        )
    admin = admin_access(access, ready_file)
    return nullcontext(running_stack(ingest_access(admin.app, ingest, key, ready_file), admin, broker, ready_file))


@contextmanager
def _progress(plan: Plan, quiet: bool) -> Iterator[Progress]:
    """A bar for arrivals, on stderr, where someone may be watching."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda *_: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Twice a second: drawing takes time from what is measured.
    with Bars(*columns, console=console, refresh_per_second=2, transient=True) as bars:
        accepted = bars.add_task("answered", total=plan.events)
        arrived = bars.add_task("arrived", total=plan.events * plan.integrations)

        def progress(answered: int, arrivals: int) -> None:
            bars.update(accepted, completed=answered)
            bars.update(arrived, completed=arrivals)

        yield progress


@contextmanager
def _unwinding() -> Iterator[None]:
    """SIGTERM ends what was started and deletes what was made, as Ctrl-C does."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _within(option: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise WrongUsage(f"{option} must be from {least:,} to {most:,}")
    return value


def _integrations(integrations: int, profile: Profile) -> int:
    if profile == "integration" and integrations > MAX_ACTIVE_INTEGRATIONS:
        raise WrongUsage(
            f"an app has at most {MAX_ACTIVE_INTEGRATIONS} active integrations: add --profile booking, whose "
            "subscriptions (signed, scheduled.created) have no such limit"
        )
    return _within("--integrations", integrations, 1, _MOST_INTEGRATIONS)


def _rate(rate: float | None) -> float | None:
    if rate is not None and not 0 < rate < float("inf"):
        raise WrongUsage("--rate must be above 0")
    return rate


def _max_in_flight(given: int | None, ordering: Ordering) -> int:
    if given is None:
        return MAX_IN_FLIGHT if ordering in ("none", "key") else 1
    return _within("--max-in-flight", given, 1, MAX_IN_FLIGHT)


def _receiver(url: str | None) -> str | None:
    if url is not None and not url.startswith(("http://", "https://")):
        raise WrongUsage("--receiver must start with http:// or https://")
    return url
