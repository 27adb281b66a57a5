"""
How often a record stood first when a worker ended without settling, kept in the metadata of commits.

Pure. A worker that takes a partition over stores `u<count>|` before the floor, and takes it away when it settles. So
whoever finds it knows that its predecessor died, and how many had died before that with the same record first.
"""

import re
from typing import Final, NamedTuple

#: From so many on, a record is handed over alone.
ALONE: Final = 2

#: From so many on, it is put aside: it was alone when the last three died. One could have been ended by anything, just
#: then; half an hour of kills, one each three seconds, put four innocent records aside when one was enough.
FATAL: Final = 5


#: Before everything else: the log ended before this offset, which had been read up to, when somebody took it over.
_SHORT: Final = "short"


#: Offset and time of the last finished record, which is to tell a log that has lost its records and grown beyond the
#: commit from a whole one. Releases before this one take it for a part of the floor, and would read all that is kept;
#: so this one reads past it, for whoever goes back to it, and the next one writes it.
_LAST: Final = re.compile(r"\Aat\d+:\d+\|")


class Standing(NamedTuple):
    """A record that stands first, and how many workers died with it there."""

    offset: int
    unclean: int


def read(metadata: str) -> tuple[int, str]:
    """How many workers have died with the stored offset's record first, the last one included; and the floor."""
    if is_short(metadata):
        metadata = metadata.partition("|")[2]
    metadata = _LAST.sub("", metadata, count=1)
    count, bar, floor = metadata.partition("|")
    if bar and count[:1] == "u" and count[1:].isdecimal():
        return int(count[1:]) + 1, floor
    return 0, metadata


def written(standing: Standing | None, committable: int, floor: str) -> str:
    """
    What is stored with a commit of *committable*.

    Args:
        standing: of the partition's first record; None where this worker has settled. Progress forgets it.
    """
    if standing is None:
        return floor
    return f"u{standing.unclean if committable <= standing.offset else 0}|{floor}"


def is_short(metadata: str) -> bool:
    """Whether the partition was found to end before its committed offset: see `streams.engine.shortened`."""
    return metadata.startswith(_SHORT)


def noted_short(metadata: str, moves_to: int | None = None) -> str:
    """
    What is stored from then on, until the partition begins at or behind the committed offset.

    Args:
        moves_to: where what it holds is being moved to, once that has begun.
    """
    rest = metadata.partition("|")[2] if is_short(metadata) else metadata
    return f"{_SHORT}{'' if moves_to is None else f':{moves_to}'}|{rest}"


def moves_to(metadata: str) -> int | None:
    """Where what the partition holds is being moved to; None where that has not begun."""
    number = metadata.partition("|")[0].removeprefix(f"{_SHORT}:")
    return int(number) if is_short(metadata) and number.isdecimal() else None
