"""
The tables of the history, and which index answers which question.

`place` is a record's partition and offset in one number (`fold.place_of`); SQLite keeps a row under it and ends every
index with it, so that lists by a time have one order. Names (of apps, integrations, types, reasons) are numbers,
since seven indexes repeat them.
"""

from typing import Any, Final

from services.history.fold import Row
from services.history.packed import DELIVERY, EVENT, RECORD, packed_id, unpacked_id
from streams.records import Cause, Outcome

#: Of these tables and of what is in them. A file with another one is thrown away, and read from the log anew.
VERSION: Final = 1

OUTCOMES: Final[tuple[Outcome | None, ...]] = (None, "delivered", "rejected", "exhausted", "blocked", "discarded")
CAUSES: Final[tuple[Cause, ...]] = ("live", "retry", "replay", "test")

OUTCOME_NUMBER: Final = {outcome: number for number, outcome in enumerate(OUTCOMES)}
CAUSE_NUMBER: Final = {cause: number for number, cause in enumerate(CAUSES)}

#: For what ended at a time with an outcome. A file that was made without them gets them when it is opened: 0.6 s each
#: for each million deliveries, once.
BY_END: Final = (
    "CREATE INDEX IF NOT EXISTS by_app_ended ON deliveries (app, outcome, ended_at) WHERE ended_at IS NOT NULL",
    """
    CREATE INDEX IF NOT EXISTS by_integration_ended ON deliveries (integration, outcome, ended_at)
    WHERE ended_at IS NOT NULL
    """,
)

TABLES: Final = (
    "CREATE TABLE names (number INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",
    """
    CREATE TABLE deliveries (
        place INTEGER PRIMARY KEY, last_place INTEGER NOT NULL, id BLOB NOT NULL, record BLOB NOT NULL,
        event BLOB NOT NULL, app INTEGER NOT NULL, integration INTEGER NOT NULL, type INTEGER NOT NULL,
        cause INTEGER NOT NULL, of BLOB, outcome INTEGER NOT NULL, attempts INTEGER NOT NULL, repeats INTEGER NOT NULL,
        status INTEGER, reason INTEGER NOT NULL, accepted_at INTEGER NOT NULL, began_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL, ended_at INTEGER, next_due_at INTEGER
    )
    """,
    "CREATE INDEX by_id ON deliveries (id)",
    "CREATE INDEX by_event ON deliveries (event)",
    "CREATE INDEX by_of ON deliveries (of) WHERE of IS NOT NULL",
    "CREATE INDEX by_app ON deliveries (app, began_at)",
    "CREATE INDEX by_app_outcome ON deliveries (app, outcome, began_at)",
    *BY_END,
    "CREATE INDEX by_app_type ON deliveries (app, type, began_at)",
    "CREATE INDEX by_app_cause ON deliveries (app, cause, began_at) WHERE cause > 0",
    "CREATE INDEX by_integration ON deliveries (integration, began_at)",
    "CREATE INDEX by_integration_outcome ON deliveries (integration, outcome, began_at)",
    # A result as it was on the wire. `delivery` is the place of its delivery's first result; nearly always its own.
    "CREATE TABLE attempts (place INTEGER PRIMARY KEY, delivery INTEGER NOT NULL, record BLOB NOT NULL)",
    "CREATE INDEX by_delivery ON attempts (delivery) WHERE delivery <> place",
    # What results of an integration are compressed with; never changed while the integration has any.
    "CREATE TABLE patterns (integration INTEGER PRIMARY KEY, pattern BLOB NOT NULL)",
    """
    CREATE TABLE hours (
        integration INTEGER NOT NULL, hour INTEGER NOT NULL, app INTEGER NOT NULL, delivered INTEGER NOT NULL,
        rejected INTEGER NOT NULL, exhausted INTEGER NOT NULL, blocked INTEGER NOT NULL, discarded INTEGER NOT NULL,
        PRIMARY KEY (integration, hour)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX by_hour ON hours (hour)",
    # Below which offset of each partition every record is in the tables: written with them, or not at all.
    "CREATE TABLE positions (partition INTEGER PRIMARY KEY, position INTEGER NOT NULL)",
    # The id that the broker gave to the topic which is in the tables.
    "CREATE TABLE log (topic_id TEXT NOT NULL)",
)

#: As `row_of` reads them.
ROW: Final = """
    SELECT place, last_place, id, record, event, (SELECT text FROM names WHERE number = app),
        (SELECT text FROM names WHERE number = integration), (SELECT text FROM names WHERE number = type), cause, of,
        outcome, attempts, repeats, status, (SELECT text FROM names WHERE number = reason), accepted_at, began_at,
        last_at, ended_at, next_due_at
    FROM deliveries
"""

INSERT_ROW: Final = "INSERT INTO deliveries VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
#: What a later result may change; as `changed` gives it.
CHANGE_ROW: Final = """
    UPDATE deliveries SET last_place = ?, outcome = ?, attempts = ?, repeats = ?, status = ?, reason = ?, last_at = ?,
        ended_at = ?, next_due_at = ? WHERE place = ?
"""
INSERT_ATTEMPT: Final = "INSERT INTO attempts VALUES (?,?,?)"
COUNT_ENDED: Final = """
    INSERT INTO hours VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET delivered = delivered + excluded.delivered,
        rejected = rejected + excluded.rejected, exhausted = exhausted + excluded.exhausted,
        blocked = blocked + excluded.blocked, discarded = discarded + excluded.discarded
"""
PATTERN: Final = "SELECT pattern FROM patterns WHERE integration = ?"
#: A position never goes back: who folds an older batch again changes nothing.
MOVE: Final = """
    INSERT INTO positions VALUES (?,?) ON CONFLICT DO UPDATE SET position = max(position, excluded.position)
"""


def row_of(columns: tuple[Any, ...]) -> Row:
    """The row of a line of `ROW`."""
    of = columns[9]
    return Row(
        place=columns[0],
        last_place=columns[1],
        delivery_id=unpacked_id(columns[2], DELIVERY),
        record_id=unpacked_id(columns[3], RECORD),
        event_id=unpacked_id(columns[4], EVENT),
        app=columns[5],
        integration=columns[6],
        type=columns[7],
        cause=CAUSES[columns[8]],
        of=None if of is None else unpacked_id(of, DELIVERY),
        outcome=OUTCOMES[columns[10]],
        attempts=columns[11],
        repeats=columns[12],
        status=columns[13],
        reason=columns[14],
        accepted_at_ms=columns[15],
        began_at_ms=columns[16],
        last_at_ms=columns[17],
        ended_at_ms=columns[18],
        next_due_at_ms=columns[19],
    )


def inserted(row: Row, *, app: int, integration: int, type_: int, reason: int) -> tuple[Any, ...]:
    """What `INSERT_ROW` takes; the numbers are those of the row's names."""
    return (
        row.place,
        row.last_place,
        packed_id(row.delivery_id, DELIVERY),
        packed_id(row.record_id, RECORD),
        packed_id(row.event_id, EVENT),
        app,
        integration,
        type_,
        CAUSE_NUMBER[row.cause],
        None if row.of is None else packed_id(row.of, DELIVERY),
        OUTCOME_NUMBER[row.outcome],
        row.attempts,
        row.repeats,
        row.status,
        reason,
        row.accepted_at_ms,
        row.began_at_ms,
        row.last_at_ms,
        row.ended_at_ms,
        row.next_due_at_ms,
    )


def changed(row: Row, *, reason: int) -> tuple[Any, ...]:
    """What `CHANGE_ROW` takes."""
    return (
        row.last_place,
        OUTCOME_NUMBER[row.outcome],
        row.attempts,
        row.repeats,
        row.status,
        reason,
        row.last_at_ms,
        row.ended_at_ms,
        row.next_due_at_ms,
        row.place,
    )
