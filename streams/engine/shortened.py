"""
Partitions that have lost what was read of them: their log ends before the committed offset.

Kafka gives a partition whose disks are lost a new, empty log under the same topic id, and new records the offsets of
lost ones. Who read on at its beginning would take new records for known ones: results, receipts, rows and cursors name
offsets. Who waited for the committed offset would lose all that is written until then. So nothing is read of it before
`tenterhook mend` has moved what it holds behind all offsets that were ever used (docs/operating.md).

That is noted with the commit, so that a log that has grown past the committed offset meanwhile is not taken for whole.

A compacted topic that a group reads (`replays`) is not held back: nothing names its offsets, and what stands there is
what is true. It is read from its beginning again, and what was lost is lost.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from aiokafka import OffsetAndMetadata, TopicPartition

from streams.connection import Connection
from streams.engine.standing import is_short
from streams.topics import TOPICS

#: Between looks at whether it has been mended.
LOOK_AGAIN_S: Final = 5.0

#: For an election's time a leader may not know yet how far its log was replicated: asked again before it counts.
ASK_AGAIN_S: Final = 1.0


class LogShortened(Exception):
    """These partitions hold other records than were read of them."""

    def __init__(self, partitions: Iterable[TopicPartition]) -> None:
        self.partitions = sorted(partitions)
        super().__init__(
            f"{', '.join(f'{topic} {number}' for topic, number in self.partitions)} ended before what was read of it:"
            " its records are lost. Stop all services, run tenterhook mend, and start them again"
        )


def shortened(
    stored: Mapping[TopicPartition, OffsetAndMetadata],
    beginnings: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> set[TopicPartition]:
    """
    Those of which nothing may be read.

    Args:
        stored: what was committed; an offset of -1 where nothing was.
        ends: of all of them, or of those that are known exactly.
    """
    return {
        each
        for each, (offset, metadata) in stored.items()
        if beginnings[each] < offset and (is_short(metadata) or ends.get(each, offset) < offset)
    }


def fallen_out(
    stored: Mapping[TopicPartition, OffsetAndMetadata], beginnings: Mapping[TopicPartition, int]
) -> dict[TopicPartition, tuple[int, int]]:
    """
    First and last offset of what retention took before it was finished, of the partitions where it did.

    From 0 on where nothing is committed any more: Kafka forgets that of a group without members after 7 days. Nothing
    of partitions that had lost their records: that was said, and they begin behind their commits since they are mended.
    """
    return {
        each: (max(offset, 0), beginnings[each] - 1)
        for each, (offset, metadata) in stored.items()
        if beginnings[each] > max(offset, 0) and not is_short(metadata)
    }


def of_compacted(connection: Connection, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
    """Those of our topics that are compacted."""
    names = {connection.topic(topic) for topic in TOPICS if topic.cleanup == "compact"}
    return {each for each in partitions if each.topic in names}
