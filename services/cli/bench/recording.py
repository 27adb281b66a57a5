"""
Rows of whole numbers in a file that two processes map: one writes them as it goes, the other reads them at any time.

A row costs its writer some stores into memory and no system call, so that measuring does not weigh on what is measured.
"""

import mmap
from pathlib import Path
from typing import Final

_BYTES: Final = 8
#: Numbers before the first column: how many rows are filled, and how many found no place.
_HEAD: Final = 2


class Recording:
    """Columns of signed 64-bit numbers, all of one length, zero until written."""

    def __init__(self, path: Path, columns: int, rows: int, *, create: bool = False) -> None:
        if create:
            with path.open("wb") as file:
                file.truncate((_HEAD + columns * rows) * _BYTES)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        cells = memoryview(self._map).cast("q")
        self.rows = rows
        self.head = cells[:_HEAD]
        self.columns = tuple(cells[_HEAD + at * rows : _HEAD + (at + 1) * rows] for at in range(columns))

    @property
    def filled(self) -> int:
        """How many rows are there, where rows are appended."""
        return self.head[0]

    @property
    def overflown(self) -> int:
        """How many rows found no place. None is expected: the file has room for far more than was asked for."""
        return self.head[1]

    def append(self, *row: int) -> None:
        """Add one row, its count last, so that a reader sees whole rows; one without a place is only counted."""
        at = self.head[0]
        if at == self.rows:
            self.head[1] += 1
            return
        for column, value in zip(self.columns, row, strict=True):
            column[at] = value
        self.head[0] = at + 1


#: Columns of the load's file, a row an event: when its request started, when it was answered, with which status.
SENT_NS, ANSWERED_NS, STATUS = range(3)
#: In the place of a status: the connection ended before there was an answer.
UNANSWERED: Final = -1
#: Columns of the receiver's file, a row an arrival: when, at which integration, which event, when that was sent.
ARRIVED_NS, INTEGRATION, NUMBER, STAMP_NS = range(4)

LOAD_COLUMNS: Final = 3
ARRIVAL_COLUMNS: Final = 4
