"""Keys go to the partitions that every other Kafka client sends them to."""

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from streams.producer import partition_of


@given(key=st.binary(max_size=80), count=st.integers(1, 64))
def test_a_key_s_partition_is_the_default_one(key, count):
    partitions = list(range(count))

    assert partition_of(key, partitions, partitions) == DefaultPartitioner()(key, partitions, partitions)


@given(available=st.lists(st.integers(0, 63), min_size=1, unique=True))
def test_without_a_key_any_available_partition_will_do(available):
    assert partition_of(None, list(range(64)), available) in available
