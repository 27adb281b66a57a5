"""
Topic `replays` folded into memory: what was asked for, and how far each replay is.

Pure. Two writers, two kinds of keys: who asks writes the row under the replay's id (and writes it again to cancel); the
worker that carries it out writes its progress under `id/generation`. With the generation in the key, compaction cannot
let the late row of a frozen worker take the place of its successor's.
"""

from typing import Final

import msgspec
import structlog

from streams import codec
from streams.records import Replay

log = structlog.get_logger(__name__)

RUNNING: Final = "running"

#: In the place of a generation, in a row that was asked for.
ASKED: Final = -1


def row_key(replay: Replay) -> bytes:
    """The key that a row has on the topic."""
    return replay.id.encode() if replay.generation == ASKED else f"{replay.id}/{replay.generation}".encode()


class Replays:
    """
    Every replay on the topic.

    Of the rows of progress that of the highest generation counts: an owner writes each as its own, and then deletes
    those before it, before it does anything else.
    """

    def __init__(self) -> None:
        #: Records that could not be read.
        self.unreadable = 0
        self._asked: dict[str, Replay] = {}
        self._progress: dict[str, dict[int, Replay]] = {}

    def apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """Fold one record in; a value of None deletes the row under that key."""
        try:
            replay, generation = _parts(key)
            row = None if value is None else codec.decode_as(Replay, value)
            if row is not None and (row.id, row.generation) != (replay, generation):
                raise codec.Unreadable("its key is another than the one in it")  # noqa: TRY301  # as other unreadable ones
        except codec.Unreadable as error:
            self.unreadable += 1
            log.error("replay.unreadable", offset=offset, reason=str(error), hint="kept what was there")  # noqa: TRY400
            return
        self._fold(replay, generation, row)

    def clear(self) -> None:
        """Forget everything; see `Follower`."""
        self._asked.clear()
        self._progress.clear()

    def get(self, replay: str) -> Replay | None:
        """The replay as it stands; None where nobody asked for it."""
        asked = self._asked.get(replay)
        return None if asked is None else merged(asked, self.progress(replay))

    def all(self) -> tuple[Replay, ...]:
        """All of them, by id, which is by the time they were asked for."""
        return tuple(merged(self._asked[key], self.progress(key)) for key in sorted(self._asked))

    def progress(self, replay: str) -> Replay | None:
        """The row that says how far it is; None where no worker has begun."""
        rows = self._progress.get(replay)
        return rows[max(rows)] if rows else None

    def keys(self, replay: str) -> set[bytes]:
        """Keys of all its rows on the topic."""
        rows = [*self._progress.get(replay, {}).values()]
        rows += [self._asked[replay]] if replay in self._asked else []
        return {row_key(row) for row in rows}

    def is_cancelled(self, replay: str) -> bool:
        """Whether somebody has cancelled it."""
        asked = self._asked.get(replay)
        return asked is not None and asked.state == "cancelled"

    def _fold(self, replay: str, generation: int, row: Replay | None) -> None:
        if generation != ASKED:
            rows = self._progress.setdefault(replay, {})
            if row is None:
                rows.pop(generation, None)
            else:
                rows[generation] = row
            if not rows:
                del self._progress[replay]
        elif row is None:
            self._asked.pop(replay, None)
        else:
            self._asked[replay] = row


def merged(asked: Replay, progress: Replay | None) -> Replay:
    """What was asked for with how far it is. Once ended it stays so; cancelled counts as soon as it is asked for."""
    if progress is None:
        return asked
    if progress.state != RUNNING:
        return progress
    return msgspec.structs.replace(progress, state=asked.state)


def _parts(key: bytes | None) -> tuple[str, int]:
    """Replay and generation of a row's key; ASKED in that of the row that was asked for."""
    try:
        replay, slash, generation = (key or b"").decode().partition("/")
        return replay, int(generation) if slash else ASKED
    except ValueError:
        raise codec.Unreadable("its key is not replay/generation") from None
