"""
The history on disk: an SQLite file that one process writes, and only from one thread at a time.

A batch of records goes in with the positions behind it in one transaction, so that after a kill at any moment the file
holds both or neither, and reading goes on exactly where it was. All of it is derived from the log: a file that is
broken, of another version or of another log is thrown away and filled anew.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import structlog

from services.history import tables
from services.history.fold import HOUR_MS, Folded, Row, Taken, fold_all, partition_of, place_of
from services.history.packed import DELIVERY, packed_id, packed_record, pattern_of
from services.runtime.serving import StartupError
from streams import codec
from streams.records import Result

log = structlog.get_logger(__name__)

#: Partition, offset, value.
Raw = tuple[int, int, bytes | None]

#: Deliveries that are looked at in one slice of deleting: some ten milliseconds, in which nothing else is written.
SLICE: Final = 500

#: 64 MB of pages. The places that are written to at once are the ends of seven indexes for each integration.
_CACHE_KIB: Final = 65_536
#: Pages of the write-ahead log, 32 MB, after which it is copied into the file: a page that was written by many
#: transactions is copied once.
_CHECKPOINT_PAGES: Final = 8_192
#: What the write-ahead log may keep of the disk after it has been copied into the file.
_WAL_BYTES: Final = 67_108_864
#: Names held in memory; who uses more of them than that looks some of them up again.
_MAX_NAMES: Final = 50_000
#: The same of patterns: of 1 KB, as a rule.
_MAX_PATTERNS: Final = 10_000
_ASKED_AT_ONCE: Final = 250
_ROWS: Final = f"{tables.ROW} WHERE id IN ({','.join('?' * _ASKED_AT_ONCE)})"

_NAME: Final = "results-{:06}.sqlite"
_NAMES: Final = "results-*.sqlite"


class Store:
    """The file, while this process has it. Its methods block: call them on one thread that is not the event loop's."""

    def __init__(self, directory: Path) -> None:
        """
        Open what is there, or begin anew.

        Raises:
            StartupError: the folder cannot be written to, or another process has it.
        """
        directory = directory.resolve()
        self._directory = directory
        self._lock = _locked(directory)
        #: Records that could not be read, since this was opened.
        self.unreadable = 0
        self._names: dict[str, int] = {}
        #: By integration.
        self._patterns: dict[str, bytes] = {}
        files = sorted(directory.glob(_NAMES))
        found = _opened(files[-1]) if files else None
        #: The file. Another one after `start_over`, since readers may still have the former open.
        self.path = files[-1] if found else directory / _NAME.format(_number(files[-1]) + 1 if files else 1)
        self._file = found or _made(self.path)
        self._remove_others()

    def close(self) -> None:
        """Close the file, and let others have the folder."""
        self._file.close()
        self._lock.close()

    def start_over(self, topic_id: str | None) -> None:
        """
        Begin with an empty file.

        Args:
            topic_id: of the topic that it will be filled from; None where the broker gives none.
        """
        path = self._directory / _NAME.format(_number(self.path) + 1)
        made = _made(path)
        if topic_id is not None:
            made.execute("INSERT INTO log VALUES (?)", (topic_id,))
        self._file.close()
        self._forget()
        # Last, since readers go where it says.
        self._file, self.path = made, path
        self._remove_others()

    @property
    def topic_id(self) -> str | None:
        """Of the topic that is in it; None where that is not known."""
        found = self._file.execute("SELECT topic_id FROM log").fetchone()
        return None if found is None else str(found[0])

    def positions(self) -> dict[int, int]:
        """By partition, below which offset everything is in it."""
        return dict(self._file.execute("SELECT partition, position FROM positions"))

    def fold(self, records: Iterable[Raw], positions: Mapping[int, int]) -> None:
        """
        Take these records in, and with them the positions behind them; all or nothing.

        Those of one partition come in their order. What is below its partition's position is in already, and passed
        over.

        Raises:
            sqlite3.Error: nothing was taken in.
        """
        with self._transaction():
            batch = self._taken(records)
            self._write(fold_all(self._rows({each.result.delivery_id for each in batch}), batch))
            self._file.executemany(tables.MOVE, positions.items())

    def _taken(self, records: Iterable[Raw]) -> list[Taken]:
        """The results among them that are not in yet."""
        positions = self.positions()
        taken = []
        for partition, offset, value in records:
            if offset < positions.get(partition, 0) or value is None:
                continue
            try:
                record = codec.decode(value)
            except codec.Unreadable as error:
                self.unreadable += 1
                log.warning("history.unreadable", partition=partition, offset=offset, reason=str(error))
                continue
            if isinstance(record, Result):  # what else is there are markers and hand-overs
                taken.append(Taken(record, place_of(partition, offset), value))
        return taken

    def sweep(self, before_ms: int, after: int = -1) -> int | None:
        """
        Delete, of the next few deliveries, those whose last result is older; where to go on, None when it is done.

        Results of a partition get newer with their places. So when a whole slice has none that is old, the rest of
        its partition is left for another time.

        Args:
            before_ms: milliseconds since 1970 UTC.
            after: what the call before this one returned.

        Raises:
            sqlite3.Error: nothing was deleted.
        """
        looked_at = self._file.execute(
            "SELECT place, began_at, last_at FROM deliveries WHERE place > ? ORDER BY place LIMIT ?", (after, SLICE)
        ).fetchall()
        if not looked_at:
            self._file.execute("DELETE FROM hours WHERE hour < ?", (before_ms // HOUR_MS,))
            return None
        old = [(place,) for place, _, last_at in looked_at if last_at < before_ms]
        if old:
            with self._transaction():
                self._file.executemany("DELETE FROM attempts WHERE delivery = ? AND delivery <> place", old)
                self._file.executemany("DELETE FROM attempts WHERE place = ?", old)
                self._file.executemany("DELETE FROM deliveries WHERE place = ?", old)
        first, last = looked_at[0][0], looked_at[-1][0]
        has_old = any(began_at < before_ms for _, began_at, _ in looked_at)
        if not has_old and partition_of(first) == partition_of(last):
            return place_of(partition_of(last) + 1, 0) - 1
        return int(last)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._file.execute("COMMIT")
        except BaseException:
            self._forget()  # some may have been new
            with suppress(sqlite3.Error):
                self._file.execute("ROLLBACK")
            raise

    def _rows(self, deliveries: Iterable[str]) -> dict[str, Row]:
        """By delivery, those that there are. Most are not, and asking for many at once costs a fifth."""
        ids = [packed_id(each, DELIVERY) for each in deliveries]
        found = {}
        for start in range(0, len(ids), _ASKED_AT_ONCE):
            some: list[bytes | str | None] = list(ids[start : start + _ASKED_AT_ONCE])
            some += [None] * (_ASKED_AT_ONCE - len(some))  # one statement, prepared once
            for columns in self._file.execute(_ROWS, some):
                row = tables.row_of(columns)
                found[row.delivery_id] = row
        return found

    def _write(self, folded: Folded) -> None:
        number = self._number
        self._file.executemany(
            tables.INSERT_ROW,
            [
                tables.inserted(
                    row,
                    app=number(row.app),
                    integration=number(row.integration),
                    type_=number(row.type),
                    reason=number(row.reason),
                )
                for row in folded.made.values()
            ],
        )
        self._file.executemany(
            tables.CHANGE_ROW, [tables.changed(row, reason=number(row.reason)) for row in folded.changed.values()]
        )
        self._file.executemany(
            tables.INSERT_ATTEMPT,
            [
                (taken.place, delivery, packed_record(taken.value, self._pattern(taken.result)))
                for taken, delivery in folded.attempts
            ],
        )
        self._file.executemany(
            tables.COUNT_ENDED,
            [
                (
                    number(end.integration),
                    end.hour,
                    number(end.app),
                    *(count if outcome == end.outcome else 0 for outcome in tables.OUTCOMES[1:]),
                )
                for end, count in folded.ended.items()
            ],
        )

    def _pattern(self, result: Result) -> bytes:
        """What results of its integration are compressed with; made of this one where it is the first."""
        pattern = self._patterns.get(result.integration)
        if pattern is None:
            if len(self._patterns) >= _MAX_PATTERNS:
                self._patterns.clear()
            number = self._number(result.integration)
            self._file.execute("INSERT INTO patterns VALUES (?,?) ON CONFLICT DO NOTHING", (number, pattern_of(result)))
            [pattern] = self._file.execute(tables.PATTERN, (number,)).fetchone()
            self._patterns[result.integration] = pattern
        return pattern

    def _number(self, name: str) -> int:
        """The number that stands for this name; a new one where it is new."""
        number = self._names.get(name)
        if number is None:
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            self._file.execute("INSERT INTO names (text) VALUES (?) ON CONFLICT DO NOTHING", (name,))
            [number] = self._file.execute("SELECT number FROM names WHERE text = ?", (name,)).fetchone()
            self._names[name] = number
        return number

    def _forget(self) -> None:
        """What is held in memory of the file."""
        self._names.clear()
        self._patterns.clear()

    def _remove_others(self) -> None:
        for file in self._directory.glob(f"{_NAMES}*"):
            if not file.name.startswith(self.path.name):
                with suppress(OSError):
                    file.unlink()


def _locked(directory: Path) -> IO[str]:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (directory / "lock").open("a")
    except OSError as error:
        raise StartupError(
            f"the delivery history cannot be kept in {directory}: {error.strerror}. Set TENTERHOOK_HISTORY__DIRECTORY "
            "to a folder that can be written to"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StartupError(
            f"another process keeps its delivery history in {directory}: give each a folder of its own with "
            "TENTERHOOK_HISTORY__DIRECTORY"
        ) from None
    return lock


def _opened(path: Path) -> sqlite3.Connection | None:
    """The file there; None where it cannot be used."""
    file = _connected(path)
    try:
        [version] = file.execute("PRAGMA user_version").fetchone()
        if version == tables.VERSION:
            _prepare(file)
            file.execute("SELECT partition FROM positions").fetchall()
            for index in tables.BY_END:
                file.execute(index)
            return file
        log.warning("history.other_version", version=version, hint="reading the results anew")
    except sqlite3.DatabaseError as error:
        log.warning("history.file_broken", file=path.name, reason=str(error), hint="reading the results anew")
    file.close()
    return None


def _made(path: Path) -> sqlite3.Connection:
    path.unlink(missing_ok=True)  # half made, when the disk was full
    # By us, since SQLite would let others read it, and give its other files the same mode.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    file = _connected(path)
    _prepare(file)
    file.execute("BEGIN")
    for statement in tables.TABLES:
        file.execute(statement)
    file.execute(f"PRAGMA user_version = {tables.VERSION}")
    file.execute("COMMIT")
    return file


def _connected(path: Path) -> sqlite3.Connection:
    # On one thread at a time, and not always the same.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _prepare(file: sqlite3.Connection) -> None:
    file.execute("PRAGMA journal_mode = WAL")
    # A transaction that a power cut takes away is read from the log again; a kill of the process takes none away.
    file.execute("PRAGMA synchronous = NORMAL")
    file.execute("PRAGMA secure_delete = FAST")
    file.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    file.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    file.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")


def _number(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0
