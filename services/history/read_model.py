"""
The delivery history of one process: filled from `delivery-results` on one thread, asked on others.

The event loop never waits for the disk. Whatever goes wrong with the file, it is derived from the log: thrown away and
read anew, which takes about two minutes for each million results.
"""

import asyncio
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from services.history import query
from services.history.cursor import BadCursor
from services.history.follow import ResultsFollower
from services.history.query import Bucket, Page, Told, Wanted
from services.history.store import Store
from services.runtime import kinds, metrics
from services.runtime.metric import Sample
from services.runtime.problems import Problem
from services.runtime.settings import HistorySettings
from streams.connection import Connection
from streams.trouble import Trouble

T = TypeVar("T")

log = structlog.get_logger(__name__)

#: Questions that are answered at once.
_READERS: Final = 4
#: 8 MB each: what few questions in a row have in common; the operating system has the rest.
_READER_CACHE_KIB: Final = 8_192
#: SQLite's codes of a file that is no sound database; the lowest byte is the code, the others say more of it.
_BROKEN: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PRIMARY: Final = 0xFF
DAY_MS: Final = 86_400_000
#: Between looks for what is too old, and between two slices of deleting it: new results go first.
_SWEEP_EVERY_S: Final = 60.0
_BETWEEN_SLICES_S: Final = 0.05
#: What a question that cannot be answered now is told to wait.
_RETRY_AFTER_S: Final = 5


class History:
    """Deliveries and their attempts, as far as the log says and the retention keeps them."""

    def __init__(
        self, connection: Connection, settings: HistorySettings, partitions: int, *, now_ms: Callable[[], int]
    ) -> None:
        """
        Open the file; blocks for some milliseconds.

        Args:
            partitions: of `delivery-results`.
            now_ms: milliseconds since 1970 UTC.

        Raises:
            StartupError: the folder cannot be written to, or another process has it.
        """
        self._keep_ms = settings.retention_days * DAY_MS
        self._now_ms = now_ms
        self._own = None if settings.directory else Path(tempfile.mkdtemp(prefix="tenterhook-history-"))
        self._store = Store(settings.directory or self._own or Path())
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="history-writer")
        self._follower = ResultsFollower(
            connection, partitions, self._store, self._written, since_ms=lambda: now_ms() - self._keep_ms
        )
        self._readers = _Readers(self._store, found_broken=self._follower.start_over)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to follow the log. What is there already can be asked at once; `caught_up` waits for the rest."""
        self._tasks = [
            asyncio.create_task(self._follower.run(), name="follow delivery-results"),
            asyncio.create_task(self._sweep(), name="sweep history"),
        ]

    async def caught_up(self) -> None:
        """Returns when everything is in it that was on the log when it started."""
        await self._follower.has_caught_up.wait()

    async def stop(self) -> None:
        """Stop following and answering, and close the file."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._close)

    @property
    def lag(self) -> int | None:
        """Records of the log that are not in it, as of some seconds ago; None while that is not known."""
        return self._follower.lag

    def gauges(self) -> list[Sample]:
        """What Prometheus is told when it asks."""
        return [
            metrics.HISTORY_LAG.of(self.lag or 0),
            metrics.HISTORY_FOLLOWING.of(self._follower.trouble is None),
        ]

    @property
    def trouble(self) -> str | None:
        """Why it does not say all that the log says, for people; None when it does."""
        if self._follower.trouble is not None:
            return f"the delivery history is not followed: {self._follower.trouble}"
        if not self._follower.has_caught_up.is_set():
            return f"the delivery history is being read: {self.lag or 0:,} results to go"
        return None

    @property
    def unread(self) -> str | None:
        """Why it does not say all that was on the log when it began, for people; None once it does."""
        return None if self._follower.has_caught_up.is_set() else self.trouble

    @property
    def holds_up(self) -> str | None:
        """
        Why the process is not ready for its sake: it has not been read once; None after that.

        Nor where it cannot be written: whoever wants to pause an integration need not wait for a disk.
        """
        return None if self._follower.was_read or self._follower.is_unwritable else self.unread

    def check_read(self) -> None:
        """
        Hold a question until it can be answered whole: what is read so far is the oldest.

        Raises:
            Problem: 503 `history_unavailable`.
        """
        reason = self.unread
        if reason is not None:
            raise _unavailable(f"{reason[0].upper()}{reason[1:]}. Repeat the request later.")

    async def page(self, wanted: Wanted, *, limit: int, cursor: str | None = None) -> Page:
        """
        A part of the list, newest first: see `query.page`.

        Raises:
            Problem: 400 `cursor_invalid`; 503 `history_unavailable`.
        """
        try:
            return await self._readers.ask(query.page, wanted, limit=limit, cursor=cursor)
        except BadCursor as error:
            raise Problem(
                kinds.CURSOR_INVALID,
                f"The cursor cannot be used: {error}. Leave it out to begin with the newest, or repeat the filters.",
            ) from None

    async def delivery(self, app: str, id_: str) -> Told | None:
        """
        One delivery with all its attempts; None where there is none.

        Raises:
            Problem: 503 `history_unavailable`.
        """
        return await self._readers.ask(query.delivery, app, id_)

    async def rates(
        self, app: str, integrations: Sequence[str], *, hours: int = query.DAY_HOURS
    ) -> dict[str, list[Bucket]]:
        """
        How the deliveries of each integration ended, hour by hour: see `query.rates`.

        Raises:
            Problem: 503 `history_unavailable`.
        """
        return await self._readers.ask(query.rates, app, integrations, now_ms=self._now_ms(), hours=hours)

    async def _written(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call it on the writer's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, function, *arguments)

    async def _sweep(self) -> None:
        """Delete what is out of retention, a little at a time."""
        trouble = Trouble(log)
        while True:
            after: int | None = -1
            while after is not None:
                try:
                    after = await self._written(self._store.sweep, self._now_ms() - self._keep_ms, after)
                except sqlite3.Error as error:
                    trouble.met("history.not_swept", error)
                    break
                trouble.over()
                await asyncio.sleep(_BETWEEN_SLICES_S)
            await asyncio.sleep(_SWEEP_EVERY_S)

    def _close(self) -> None:
        self._readers.close()
        self._writer.shutdown()
        self._store.close()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)


def _unavailable(detail: str) -> Problem:
    return Problem(kinds.HISTORY_UNAVAILABLE, detail, headers={"Retry-After": str(_RETRY_AFTER_S)})


class _Readers:
    """Threads that ask the file, each on a connection of its own."""

    def __init__(self, store: Store, *, found_broken: Callable[[], None]) -> None:
        self._store = store
        self._found_broken = found_broken
        self._trouble = Trouble(log)
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="history-reader")
        self._own = threading.local()
        self._all: list[sqlite3.Connection] = []

    async def ask(self, question: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """
        The answer to a question of `query`.

        Raises:
            Problem: 503 `history_unavailable`.
        """

        def asked() -> T:
            try:
                return question(self._file(), *arguments, **named)
            except sqlite3.OperationalError:  # the file was replaced between its name and its opening
                return question(self._file(anew=True), *arguments, **named)

        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, asked)
        except sqlite3.Error as error:
            self._trouble.met("history.not_asked", error)
            if getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _BROKEN:
                self._found_broken()
            raise _unavailable("The delivery history cannot be read now. Repeat the request.") from None
        self._trouble.over()
        return answer

    def close(self) -> None:
        self._threads.shutdown()
        for file in self._all:
            file.close()

    def _file(self, *, anew: bool = False) -> sqlite3.Connection:
        path = self._store.path
        file: sqlite3.Connection | None = getattr(self._own, "file", None)
        if file is not None and (anew or self._own.path != path):
            self._all.remove(file)
            file.close()
            file = None
        if file is None:
            # Closed by another thread, when all have ended.
            file = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
            file.execute("PRAGMA query_only = ON")
            file.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
            self._own.file, self._own.path = file, path
            self._all.append(file)
        return file
