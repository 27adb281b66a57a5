"""
Topic `lane-rows` folded into memory: the integrations whose deliveries wait on the log, and how far each is.

Pure. Each partition is folded in its own order. Owners of a partition of `deliveries` write a marker to the
partition of the same number here before anything else, and all that they write after it carries their generation.
"""

from dataclasses import dataclass
from typing import Final

import structlog

from streams import codec
from streams.records import LaneRow, Marker

log = structlog.get_logger(__name__)

#: Key of the markers: compaction keeps the newest of a partition.
MARKER_KEY: Final = b"marker"


def row_key(integration: str, generation: int) -> bytes:
    """
    Key of a row. With the generation in it, so that compaction cannot let the late row of a frozen owner take the
    place of its successor's.
    """
    return f"{integration}/{generation}".encode()


@dataclass(frozen=True, slots=True)
class _Held:
    row: LaneRow
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Marked:
    generation: int
    offset: int


class LaneRows:
    """
    The row of each detached integration.

    - A record of a lower generation than the newest marker before it in its partition comes from a replaced owner:
      it is passed over, tombstones included. So an owner that takes over a row writes it again as its own before it
      deletes the old key, and deletes the old key before its own.
    - Of two rows of an integration the higher generation counts, then the later. A row behind the newest marker
      replaces one before it whatever the numbers are: a group that was deleted counts generations anew.
    - A tombstone deletes the row of its own generation alone.
    """

    def __init__(self) -> None:
        #: Records that could not be read.
        self.unreadable = 0
        self._held: dict[str, _Held] = {}
        self._marked: dict[int, _Marked] = {}

    def apply(self, partition: int, key: bytes | None, value: bytes | None, offset: int) -> None:
        """Fold one record in; a value of None deletes the row under that key."""
        try:
            if key == MARKER_KEY:
                self._mark(partition, value, offset)
            else:
                self._row(partition, key, value, offset)
        except codec.Unreadable as error:
            self.unreadable += 1
            _log_unreadable(partition, offset, error)

    def clear(self, partition: int) -> None:
        """Forget a partition: it is read from its beginning again."""
        self._marked.pop(partition, None)
        self._held = {name: held for name, held in self._held.items() if held.partition != partition}

    def get(self, integration: str) -> LaneRow | None:
        """The integration's row; None where it is not detached."""
        held = self._held.get(integration)
        return None if held is None else held.row

    def all(self) -> tuple[LaneRow, ...]:
        """All rows, by integration."""
        return tuple(self._held[key].row for key in sorted(self._held))

    def _mark(self, partition: int, value: bytes | None, offset: int) -> None:
        if value is not None:
            marker = codec.decode_as(Marker, value)
            self._marked[partition] = _Marked(marker.generation, offset)

    def _row(self, partition: int, key: bytes | None, value: bytes | None, offset: int) -> None:
        integration, generation = _parts(key)
        marked = self._marked.get(partition)
        if marked is not None and generation < marked.generation:
            return
        held = self._held.get(integration)
        if value is None:
            if held is not None and held.row.generation == generation:
                del self._held[integration]
            return
        row = codec.decode_as(LaneRow, value)
        if (row.integration, row.generation) != (integration, generation):
            raise codec.Unreadable("its key is another than the one in it")
        is_before_marker = held is not None and marked is not None and held.offset < marked.offset
        if held is None or is_before_marker or generation >= held.row.generation:
            self._held[integration] = _Held(row, partition, offset)


def _parts(key: bytes | None) -> tuple[str, int]:
    """Integration and generation of a row's key."""
    try:
        integration, generation = (key or b"").decode().rsplit("/", 1)
        return integration, int(generation)
    except ValueError:
        raise codec.Unreadable("its key is not integration/generation") from None


def _log_unreadable(partition: int, offset: int, error: codec.Unreadable) -> None:
    log.error("lane_row.unreadable", partition=partition, offset=offset, reason=str(error), hint="kept what was there")
