"""A failed attempt that is read again, whose next attempt was made already, has nothing left to do."""

from services.dispatcher.recorded import ENDED, Recorded
from tests.breaking import make_result

FLOOR = "0;0;0"


def read_again(*results):
    """What became of the delivery at offset 7, after these results were read back."""
    recorded = Recorded(("events", 1), {})
    recorded.begin({0: FLOOR}, {}, 1)
    for offset, result in enumerate(results):
        recorded.note(result, 0, offset, {0: 0})
    return recorded.find(0, 7)


def test_its_retry_record_is_written_again_only_as_long_as_the_next_attempt_has_no_result():
    failed = make_result(1, source_offset=7, next_attempt=2, next_due_at_ms=1, next_slot=3)
    made = make_result(1, attempt=2, source_offset=9, next_attempt=3, next_due_at_ms=2, next_slot=3)
    other = make_result(2, attempt=2, source_offset=9, next_attempt=3, next_due_at_ms=2, next_slot=3)
    assert read_again(failed).attempt == read_again(failed, other).attempt == 2
    assert read_again(failed, made) == ENDED
