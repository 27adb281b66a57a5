"""`tenterhook audit`: who changed what, read from the log, and the proof that nobody changed the log."""

import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from aiokafka import ConsumerRecord
from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from services.admin.audit import Verification
from services.admin.routes.audit import audit_json
from services.cli.errors import WrongUsage
from services.cli.log_access import (
    LogOptions,
    ask_log,
    log_connection,
    partitions_of,
    progress_bar,
    read,
    reading,
    spans_of,
    starts_at,
    time_ms,
)
from services.cli.tables import print_table
from services.runtime.times import iso
from streams import codec
from streams.connection import Connection
from streams.features import features_of
from streams.records import AuditRecord
from streams.topics import AUDIT

app = App(name="audit")

DONE, FAILED = 0, 1

#: What is listed where no time is given.
DEFAULT_SINCE_S: Final = 7 * 86_400
DEFAULT_LIMIT: Final = 50

#: By so much the clocks of two machines may differ: who decided a change, and who wrote it.
_SLACK_MS: Final = 60_000

#: Called with how many records of how many were read.
Say = Callable[[int, int], object]

#: A record, and what it says; None where that cannot be read.
See = Callable[["ConsumerRecord[Any, Any]", AuditRecord | None], object]

AsJson = Annotated[bool, Parameter(name="--json", negative=())]


@app.default
def audit(
    *,
    verify: Annotated[bool, Parameter(negative=())] = False,
    log: LogOptions | None = None,
    as_json: AsJson = False,
) -> int:
    """
    List what was done lately, as `audit list` does; with --verify as `audit verify`.

    Args:
        verify: Prove that nobody has changed the audit log.
        log: Which log.
        as_json: Print JSON.
    """
    if verify:
        return verify_(log=log, as_json=as_json)
    list_(log=log, as_json=as_json)
    return DONE


@app.command(name="list")
def list_(
    *,
    of: Annotated[str | None, Parameter(name="--app")] = None,
    since: str | None = None,
    limit: int = DEFAULT_LIMIT,
    log: LogOptions | None = None,
    as_json: AsJson = False,
) -> None:
    """
    List who did what, allowed or refused, the newest last.

    Args:
        of: Only what was done to this app; '*' is what belongs to none.
        since: Only what was done at this time or later, 2026-01-02T03:04:05Z; else in the last 7 days.
        limit: So many at most, the newest.
        log: Which log.
        as_json: Print them as JSON.
    """
    if limit < 1:
        raise WrongUsage("--limit must be at least 1")
    since_ms = int((time.time() - DEFAULT_SINCE_S) * 1000) if since is None else time_ms(since, "--since")
    newest: deque[AuditRecord] = deque(maxlen=limit)
    fitting = 0

    def see(_: "ConsumerRecord[Any, Any]", record: AuditRecord | None) -> None:
        nonlocal fitting
        if record is not None and record.at_ms >= since_ms and of in {None, record.app}:
            newest.append(record)
            fitting += 1

    connection = log_connection(log or LogOptions())
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("Reading the audit log", total=None)
        work = _read(connection, see, lambda done, all_: progress.update(task, completed=done, total=all_), since_ms)
        ask_log(connection, work)
    left_out = fitting - len(newest)
    if as_json:
        print(json.dumps({"items": [audit_json(each) for each in newest], "leftOut": left_out}))
    elif newest:
        _show(newest)
    else:
        print("There is nothing of that kind. --since goes further back than 7 days.", file=sys.stderr)
    if left_out and not as_json:
        print(f"{left_out} older ones are left out: --limit shows more.", file=sys.stderr)


@app.command(name="verify")
def verify_(*, log: LogOptions | None = None, as_json: AsJson = False) -> int:
    """
    Prove that nobody has changed the audit log, or name the first broken record of each app.

    Each record has a hash of itself and of the app's record before it: one that was changed, taken out, put in or
    moved shows. Exits with 1 then. What was taken from the very end does not show; compare the ends that are printed
    with those of another day.

    Args:
        log: Which log.
        as_json: Print the report as JSON.
    """
    connection = log_connection(log or LogOptions())
    proof = Proof()
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("Reading the audit log", total=None)

        def say(done: int, all_: int) -> None:
            progress.update(task, completed=done, total=all_)

        ask_log(connection, _read(connection, proof.see, say, begins=proof.begin))
    if as_json:
        print(json.dumps(proof.document()))
    else:
        _tell(proof)
    return FAILED if proof.first else DONE


@dataclass(frozen=True, slots=True)
class Finding:
    """A record that is not as it must be."""

    #: None: not known, since it cannot be read.
    id: str | None
    offset: int
    reason: str


@dataclass(slots=True)
class Proof:
    """What reading the whole topic has shown, by app."""

    records: Counter[str] = field(default_factory=Counter)
    ends: dict[str, bytes] = field(default_factory=dict)
    #: The first broken record of each app that has one.
    first: dict[str, Finding] = field(default_factory=dict)
    _chains: Verification = field(default_factory=Verification)

    def begin(self, offset: int) -> None:
        """Where the topic begins: at 0, nothing has fallen out of retention."""
        self._chains = Verification(from_the_first=offset == 0)

    def see(self, raw: "ConsumerRecord[Any, Any]", record: AuditRecord | None) -> None:
        """The next record of the topic."""
        key = (raw.key or b"").decode(errors="replace")
        of = key if record is None else record.app
        self.records[of] += 1
        if record is None:
            self._broken(of, Finding(None, raw.offset, "it cannot be read as an audit record"))
            return
        broken = self._chains.see(record)
        self.ends[of] = record.hash
        if broken is not None:
            self._broken(of, Finding(record.id, raw.offset, broken.reason))
        elif key != of:
            self._broken(of, Finding(record.id, raw.offset, f"it stands under the key {key!r}, and is of {of!r}"))

    def _broken(self, of: str, finding: Finding) -> None:
        self.first.setdefault(of, finding)

    def document(self) -> dict[str, Any]:
        """As it is printed with `--json`."""
        return {
            "whole": not self.first,
            "apps": [
                {
                    "app": each,
                    "records": self.records[each],
                    "end": self.ends[each].hex() if each in self.ends else None,
                    "broken": None
                    if (found := self.first.get(each)) is None
                    else {"id": found.id, "offset": found.offset, "reason": found.reason},
                }
                for each in sorted(self.records)
            ],
        }


async def _read(
    connection: Connection,
    see: See,
    say: Say,
    since_ms: int | None = None,
    begins: Callable[[int], object] | None = None,
) -> None:
    """
    Every record of the topic that was committed, in order.

    Args:
        since_ms: only what was written at this time or later, where the broker can tell.
        begins: called with the first offset.
    """
    isolation = (await features_of(connection)).isolation
    there = await partitions_of(connection, AUDIT)
    async with reading(connection, isolation=isolation) as consumer:
        spans = await spans_of(consumer, connection, there[AUDIT])
        if since_ms is not None:
            spans = await starts_at(consumer, connection, spans, since_ms - _SLACK_MS)
    [(start, end)] = spans.values()
    if begins is not None:
        begins(start)

    def seen(raw: "ConsumerRecord[Any, Any]") -> None:
        see(raw, _decoded(raw.value))
        say(raw.offset + 1 - start, end - start)

    await read(connection, spans, seen, isolation=isolation)


def _decoded(value: bytes | None) -> AuditRecord | None:
    try:
        return codec.decode_as(AuditRecord, value)
    except codec.Unreadable:
        return None


def _show(records: "deque[AuditRecord]") -> None:
    table = Table("at", "app", "who", "from", "action", "target", "allowed", "details")
    for each in records:
        details = ", ".join(f"{name}={value}" for name, value in each.details.items())
        allowed = "yes" if each.allowed else "no"
        cells = (iso(each.at_ms), each.app, each.who, each.ip or "", each.action, each.target, allowed, details)
        # As Text: names may hold what rich takes for markup.
        table.add_row(*map(Text, cells))
    print_table(table)


def _tell(proof: Proof) -> None:
    table = Table("app", "records", "end of the chain", "first broken record")
    for each in sorted(proof.records):
        found = proof.first.get(each)
        said = "" if found is None else f"{found.id or 'a record'} at offset {found.offset}: {found.reason}"
        end = proof.ends[each].hex()[:16] if each in proof.ends else ""
        table.add_row(*map(Text, (each, str(proof.records[each]), end, said)))
    print_table(table)
    count = proof.records.total()
    if proof.first:
        print(f"Broken: {len(proof.first)} of {len(proof.records)} chains, in {count} records.")
    else:
        print(f"Proven: no record of {count} was changed, taken out, put in or moved.")
