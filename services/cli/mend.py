"""`tenterhook mend`: partitions that have lost their records go on, with what was written since."""

import json
import sys
from functools import partial
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.table import Table

from services.cli.asking import agreed
from services.cli.errors import Failed
from services.cli.log_access import LogOptions, ask_log, log_connection, progress_bar
from services.cli.tables import print_table
from streams.connection import Connection
from streams.mending import Lost, StillRead, lost_partitions, mend

#: The consumer groups, whose commits tell how far a partition was read.
GROUPS: Final = ("dispatcher", "breaker", "admin")


def command(
    *,
    yes: Annotated[bool, Parameter(negative=())] = False,
    log: LogOptions | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """
    List partitions that have lost their records, and with --yes let them go on. Stop all services before.

    Each is listed that ends before what was read of it. What was written to it since the loss is moved behind every
    offset that was ever used, in order, and is read from there. What was lost stays lost. Where it was interrupted,
    repeat it. Exit code 1 while there are any.

    Args:
        yes: Move the records, without asking.
        log: Which log.
        as_json: Print them as JSON.
    """
    connection = log_connection(log or LogOptions())
    lost = ask_log(connection, lost_partitions(connection, GROUPS))
    if not as_json:
        _show(lost)
    if lost and not (yes or as_json):
        agreed(
            "Let them go on without what they have lost? All services have to be stopped.",
            would=f"{len(lost)} partitions would go on without what they have lost",
            not_done="Nothing was moved.",
        )
    moved = _mend(connection, lost, quiet=as_json) if yes or not as_json else {}
    if as_json:
        print(json.dumps({"lost": [_document(each, moved.get(each)) for each in lost]}))
    elif lost:
        print(f"They go on. Moved: {sum(moved.values())} records that were written since. Start the services.")
    return 1 if len(moved) < len(lost) else 0


def _mend(connection: Connection, lost: list[Lost], *, quiet: bool) -> dict[Lost, int]:
    """How many records were moved of each."""
    moved = {}
    with progress_bar(quiet=quiet) as bar:
        for each in lost:
            topic, number = each.partition
            task = bar.add_task(f"{topic} {number}", total=max(each.moved_to - each.ends_at, 0))
            try:
                moved[each] = ask_log(connection, mend(connection, each, partial(bar.advance, task)))
            except StillRead as error:
                raise Failed(str(error)) from None
    return moved


def _document(lost: Lost, moved: int | None) -> dict[str, Any]:
    return {
        "topic": lost.partition.topic,
        "partition": lost.partition.partition,
        "readTo": lost.committed.offset,
        "beginsAt": lost.begins_at,
        "endsAt": lost.ends_at,
        "moved": moved,
    }


def _show(lost: list[Lost]) -> None:
    if not lost:
        print("No partition has lost what was read of it.", file=sys.stderr)
        return
    table = Table("topic", "partition", "was read to", "begins at", "ends at")
    for each in lost:
        at = (each.partition.partition, each.committed.offset, each.begins_at, each.ends_at)
        table.add_row(each.partition.topic, *map(str, at))
    print_table(table)
