"""What topics weigh, read from segments made by aiokafka's own builder; what idling processes add up to."""

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from bench.idle import Idle, together
from bench.sizes import PAYLOAD_BYTES, Weight, batches, compressed, delivery, weigh


def batch(records):
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 16_384)
    for offset in range(records):
        builder.append(offset, 1_700_000_000_000, b"int_1", b"x" * 100, [])
    return bytes(builder.build())


def test_batches_of_a_segment_are_counted_with_their_records():
    one, three = batch(1), batch(3)

    assert list(batches(one + three)) == [(len(one), 1), (len(three), 3)]
    assert len(one) < len(three)


def test_a_batch_that_is_being_written_and_what_is_none_is_left_out():
    one = batch(1)

    assert list(batches(one + batch(2)[:-1])) == [(len(one), 1)]
    assert list(batches(b"")) == list(batches(b"\0" * 200)) == []


def test_partitions_of_a_topic_are_weighed_together_without_indexes(tmp_path):
    for name, records in (("tenterhook.fan-out-0", 2), ("tenterhook.fan-out-11", 3), ("__consumer_offsets-4", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "00000000000000000000.log").write_bytes(batch(records))
        (tmp_path / name / "00000000000000000000.index").write_bytes(bytes(1_000))

    assert weigh(tmp_path) == {
        "fan-out": Weight(bytes=len(batch(2)) + len(batch(3)), batches=2, records=5),
        "__consumer_offsets": Weight(bytes=len(batch(1)), batches=1, records=1),
    }


def test_made_up_deliveries_are_as_large_as_those_of_the_runs_and_differ():
    assert {len(delivery(number).payload) for number in range(200)} == {PAYLOAD_BYTES}
    assert len({delivery(number).payload for number in range(200)}) == 200


def test_more_records_in_a_batch_compress_better():
    alone, together_ = compressed(1), compressed(50)

    assert all(0 < together_[topic] < alone[topic] < 1 for topic in alone)


def test_idle_processes_add_up():
    assert together("all", [Idle("a", 0.01, 5), Idle("b", 0.02, 7)]) == Idle("all", 0.03, 12)
