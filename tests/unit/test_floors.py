"""The pure parts of takeovers: what is held, what is late, and the floors that are stored with commits."""

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from services.dispatcher.appended import Floor
from services.runtime.settings import PartitionSettings
from streams.takeover import Ends, Generations, Held

#: What Apache Kafka takes as the metadata of a commit (`offset.metadata.max.bytes`).
METADATA_BYTES = 4_096

offsets = st.integers(0, 2**63 - 1)


def test_ends_never_go_down():
    partition = TopicPartition("deliveries", 0)
    ends = Ends()
    ends.saw(partition, 9)
    ends.saw(partition, 3)
    ends.reach({partition: 5})
    assert ends.of(partition) == 10


def test_a_floor_is_held_until_the_last_record_with_found_effects_is_taken():
    held = Held()
    held.hold({0: "old", 1: "old"}, [(0, 7), (0, 12), (0, 9)])
    assert held.floor(0, "own") == "old"
    assert held.floor(1, "own") == "own", "nothing was found for this one"
    held.passed(0, 11)
    assert held.floor(0, "own") == "old"
    held.passed(0, 12)
    assert held.floor(0, "own") == "own"


def test_another_assignment_holds_nothing_of_the_one_before():
    held = Held()
    held.hold({0: "old"}, [(0, 7)])
    held.clear()
    assert held.floor(0, "own") == "own"


def test_the_newest_marker_counts_not_the_highest():
    """A group that was deleted starts counting anew."""
    generations = Generations()
    assert not generations.is_late("deliveries", 0, 1)
    generations.saw("deliveries", 0, 57)
    assert generations.is_late("deliveries", 0, 56)
    generations.saw("deliveries", 0, 1)
    assert not generations.is_late("deliveries", 0, 1)


def test_a_marker_speaks_of_its_own_source_and_of_the_partition_that_it_stands_on():
    generations = Generations()
    generations.saw("deliveries 0", 0, 5)
    assert not generations.is_late("deliveries 0", 1, 4)
    assert not generations.is_late("deliveries 1", 0, 4)


def test_what_stands_below_the_beginning_is_known_by_its_generation():
    generations = Generations()
    assert generations.is_late("deliveries", 0, 4, before=5)
    assert not generations.is_late("deliveries", 0, 5, before=5)
    generations.saw("deliveries", 0, 6)
    assert generations.is_late("deliveries", 0, 5, before=5)
    assert generations.least("deliveries", 2, before=5) == 5
    generations.saw("deliveries", 1, 6)
    assert generations.least("deliveries", 2, before=5) == 6


@given(offsets, offsets, st.lists(offsets, min_size=1, max_size=300).map(tuple))
def test_a_floor_reads_as_it_was_written(generation, receipts, deliveries):
    floor = Floor(generation, receipts, deliveries)
    assert Floor.parse(str(floor), len(deliveries)) == floor


@pytest.mark.parametrize("stored", ["", "garbage", "1;2", "1;2;", "1;2;x,4,5", "1;2;3,4", "1;2;3,4,5,6", "7"])
def test_anything_else_reads_as_the_beginning_of_everything(stored):
    assert Floor.parse(stored, 3) == Floor(0, 0, (0, 0, 0))


def test_the_floor_of_the_largest_installation_fits_into_a_commit():
    most = max(
        constraint.le
        for constraint in PartitionSettings.model_fields["by_integration"].metadata
        if hasattr(constraint, "le")
    )
    # A trillion records on every partition: three hundred years at a hundred a second each.
    assert len(str(Floor(2**31 - 1, 10**12, most * (10**12,)))) < METADATA_BYTES
