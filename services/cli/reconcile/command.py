"""The command: options in, the proof or what is wrong out."""

import json
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from services.cli.log_access import LogOptions, ask_log, log_connection, progress_bar, time_ms
from services.cli.reconcile.proof import FIRST_MS, LAST_MS, LATE, MEANING, Report, Said, Span
from services.cli.reconcile.reading import Reconciliation
from services.cli.tables import print_table

DONE, FAILED = 0, 1


def reconcile(
    *,
    since: str | None = None,
    until: str | None = None,
    log: LogOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    Prove from the log that every accepted event reached everybody who selected it, or list what is missing.

    Events against fan-out's receipts against deliveries against outcomes. Exits with 1 where something is missing or
    there twice. What a worker wrote after it had lost its partition, beside another outcome, is listed apart.

    Args:
        since: Only events accepted at this time or later, 2026-01-02T03:04:05Z; else all that are kept.
        until: Only events accepted before this time.
        log: Which log.
        as_json: Print the report as JSON.
    """
    span = Span(
        time_ms(since, "--since") if since is not None else FIRST_MS,
        time_ms(until, "--until") if until is not None else LAST_MS,
    )
    connection = log_connection(log or LogOptions())
    with progress_bar(quiet=as_json) as progress:
        task = progress.add_task("Reading the log", total=None)
        work = Reconciliation(connection, span, lambda read, of: progress.update(task, completed=read, total=of))
        report = ask_log(connection, work.run())
    if as_json:
        print(json.dumps(as_document(report)))
    else:
        _show(report)
    return DONE if report.is_proven else FAILED


def as_document(report: Report) -> dict[str, Any]:
    """The report as it is printed with `--json`."""
    return {
        "proven": report.is_proven,
        "events": {
            "accepted": report.accepted,
            "fannedOut": report.fanned_out,
            "repeats": report.repeats,
            "waiting": report.waiting,
            "quarantined": report.quarantined_events,
        },
        "pairs": {
            "selected": report.pairs,
            "outcomes": dict(report.outcomes),
            "open": report.open,
            "quarantined": report.quarantined,
            "missing": report.missing,
        },
        "counts": dict(report.counts),
        "findings": [asdict(finding) for finding in report.findings],
        "late": {"count": report.late_outcomes, "outcomes": [asdict(outcome) for outcome in report.late]},
    }


def _show(report: Report) -> None:
    print(
        f"{report.accepted} events: {report.fanned_out} fanned out ({report.repeats} repeats of an id), "
        f"{report.waiting} waiting, {report.quarantined_events} quarantined"
    )
    ended = report.outcomes.total()
    print(
        f"{report.pairs} events x integrations = {ended} outcomes + {report.open} open + "
        f"{report.quarantined} quarantined" + (f" + {report.missing} missing" if report.missing else "")
    )
    for outcome, count in sorted(report.outcomes.items()):
        print(f"  {outcome}: {count}")
    if report.late_outcomes:
        _show_late(report)
    if report.is_proven:
        but = " but those" if report.late_outcomes else ""
        print(f"Proven: nothing is missing, and nothing has two outcomes{but}.")
        return
    for kind, count in sorted(report.counts.items()):
        print(f"{count} x {kind}: {MEANING[kind]}")
    table = Table("what", "event at", "integration", "delivery")
    for each in report.findings:
        event = "" if each.offset is None else f"{each.partition}@{each.offset}"
        table.add_row(each.kind, event, each.integration or "", each.delivery or "")
    print_table(table)
    if len(report.findings) < report.counts.total():
        print(f"The first {len(report.findings)} of {report.counts.total()}.")


def _show_late(report: Report) -> None:
    print(f"{report.late_outcomes} x late: {LATE}")
    table = Table("event at", "integration", "delivery", "late", "other")
    for each in report.late:
        table.add_row(
            f"{each.partition}@{each.offset}", each.integration, each.delivery, _told(each.late), _told(each.other)
        )
    print_table(table)
    if len(report.late) < report.late_outcomes:
        print(f"The first {len(report.late)} of {report.late_outcomes}.")


def _told(said: Said) -> str:
    return f"{said.partition}@{said.offset}: attempt {said.attempt} {said.outcome}"
