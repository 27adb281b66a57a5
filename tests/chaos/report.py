"""What a run came to, for people: the claims as a table, the figures, and what to run again."""

from collections import Counter
from statistics import median

from tests.chaos.claims import Checked, in_flight, judged_whole, lateness, repeats, sent_while_paused, silences, tripped
from tests.chaos.observed import Observed

#: Violations of one claim that are shown.
_SHOWN = 5
#: Silences of one kind of fault that are.
_TOLD = 20


def lines(seen: Observed, checked: list[Checked], steady: tuple[str, ...]) -> list[str]:
    """
    The report.

    Args:
        steady: integrations that get requests all the time while all is well.
    """
    outcomes = Counter(each[0].outcome for each in seen.outcomes_of.values() if each)
    acknowledged = [each for each in seen.sent if each.acknowledged_ms is not None]
    sent_again = sum(each.times - 1 for each in seen.sent)
    faults = Counter(f"{each.kind} {each.target.partition('-')[0]}" for each in seen.faults)
    report = [
        "",
        f"{len(acknowledged)} events acknowledged, {sent_again} sends repeated; {len(seen.requests)} requests",
        f"outcomes: {_told(outcomes)}",
        f"faults: {_told(faults)}",
        f"repeats: {repeats(seen)}, of {in_flight(seen)} requests in flight at {len(seen.crashes)} crashes",
    ]
    late = sorted(each.late_ms for each in lateness(seen))
    if late:
        p99 = late[min(len(late) - 1, len(late) * 99 // 100)]
        report.append(
            f"retries: {len(late)}; late by {median(late):.0f} ms in the middle, {p99:.0f} at the 99th,"
            f" {late[-1]:.0f} at most; {judged_whole(seen)} judged with nothing taken off"
        )
    if seen.paused:
        last_ms = max((each.after_ms for each in sent_while_paused(seen)), default=0.0)
        report.append(
            f"pauses: {len(seen.paused)}, {tripped(seen)} of them by the breaker; the last request after one came"
            f" {last_ms:.0f} ms after it"
        )
    quiet = silences(seen, steady)
    for kind in sorted({each.fault.partition("-")[0] for each in quiet}):
        of_kind = sorted(
            (each for each in quiet if each.fault.partition("-")[0] == kind), key=lambda each: each.seconds
        )
        worst, told = of_kind[-1], " ".join(f"{each.seconds:.1f}" for each in of_kind[-_TOLD:])
        report.append(
            f"longest silence of an integration after {kind}: {worst.seconds:.1f} s ({worst.integration},"
            f" {worst.fault}); of {len(of_kind)}: {told}"
        )
    report.append("")
    for number, claim, violations in checked:
        report.append(f"{'ok ' if not violations else 'NOT'} {number:2} {claim}: {len(violations)} violations")
        report += [f"        {each}" for each in violations[:_SHOWN]]
    return report


def _told(counts: "Counter[str] | Counter[str | None]") -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items(), key=str))
