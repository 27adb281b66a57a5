"""
How often a record stood first when a worker ended without settling, kept in the metadata of commits.

Pure. A worker that takes a partition over stores `u<count>|` before the floor, and takes it away when it settles. So
whoever finds it knows that its predecessor died, and how many had died before that with the same record first.
"""

from typing import Final, NamedTuple

#: From so many on, a record is handed over alone.
ALONE: Final = 2

#: From so many on, it is put aside: it was alone when the last three died. One could have been ended by anything, just
#: then; half an hour of kills, one each three seconds, put four innocent records aside when one was enough.
FATAL: Final = 5


class Standing(NamedTuple):
    """A record that stands first, and how many workers died with it there."""

    offset: int
    unclean: int


def read(metadata: str) -> tuple[int, str]:
    """How many workers have died with the stored offset's record first, the last one included; and the floor."""
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
