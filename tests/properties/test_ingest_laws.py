"""Laws of what stands around `accept`: batches, the rate of public keys, and what is remembered of ids."""

import json

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.batch import split
from services.ingest.rate import BURST_S, take, wait_s
from services.ingest.repeats import VALID_MS, AcceptedIds, Seen
from services.runtime.problems import Problem

# -- batches -------------------------------------------------------------------------------------------------

texts = st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
blanks = st.text(alphabet=" \t\r\n", max_size=3).map(str.encode)


def written(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


@given(items=st.lists(values, min_size=1, max_size=20), blank=blanks)
def test_an_array_comes_apart_into_the_bytes_that_it_was_made_of(items, blank):
    parts = [written(item) for item in items]

    assert split(blank + b"[" + (blank + b"," + blank).join(parts) + blank + b"]" + blank) == parts


@given(items=st.lists(st.dictionaries(texts, values, max_size=4), min_size=1, max_size=20), ends=st.booleans())
def test_lines_come_apart_into_the_bytes_that_they_were_made_of(items, ends):
    parts = [written(item) for item in items]

    assert split(b"\n".join(parts) + (b"\n" if ends else b"")) == parts


def split_or_refused(body: bytes) -> list[bytes] | Problem:
    try:
        return split(body)
    except Problem as problem:
        return problem


@given(body=st.binary(max_size=200) | st.text(alphabet='[]{},":1 \n', max_size=60).map(str.encode))
def test_arbitrary_bytes_are_items_or_a_problem_of_the_sender(body):
    items = split_or_refused(body)

    if isinstance(items, Problem):
        assert items.status in {400, 413}
    else:
        assert 1 <= len(items) <= 500
        assert sum(map(len, items)) <= len(body)


# -- the rate ------------------------------------------------------------------------------------------------

#: Pauses in seconds, and how many events are wanted after each. In 64ths, so that sums are exact.
asked = st.lists(st.tuples(st.integers(0, 256).map(lambda parts: parts / 64), st.integers(1, 500)), max_size=60)


@given(asked=asked, rate_per_s=st.integers(1, 200))
def test_no_stretch_of_time_has_more_than_the_burst_and_its_own_share(asked, rate_per_s):
    bucket, now_s, taken = None, 1_000.0, []
    for pause_s, wanted in asked:
        now_s += pause_s
        bucket, count = take(bucket, wanted=wanted, rate_per_s=rate_per_s, now_s=now_s)
        assert 0 <= count <= wanted
        taken.append((now_s, count))

    for first in range(len(taken)):
        for last in range(first, len(taken)):
            stretch_s = taken[last][0] - taken[first][0]
            assert sum(count for _, count in taken[first : last + 1]) <= rate_per_s * (BURST_S + stretch_s)


@given(
    pauses=st.lists(st.integers(0, 64), max_size=100),
    rate_per_s=st.integers(1, 200),
)
def test_who_keeps_to_the_rate_is_never_refused(pauses, rate_per_s):
    """One event each 1 / rate, some of them late."""
    bucket, now_s = None, 1_000.0
    for pause in pauses:
        now_s += (1 + pause / 64) / rate_per_s
        bucket, count = take(bucket, wanted=1, rate_per_s=rate_per_s, now_s=now_s)
        assert count == 1


@given(asked=asked, rate_per_s=st.integers(1, 200), wanted=st.integers(1, 1_000))
def test_after_the_wait_that_is_told_there_is_what_was_wanted_and_a_second_before_there_is_not(
    asked, rate_per_s, wanted
):
    bucket, now_s = None, 1_000.0
    for pause_s, count in [*asked, (0.0, 1_000)]:
        now_s += pause_s
        bucket, _ = take(bucket, wanted=count, rate_per_s=rate_per_s, now_s=now_s)
    wait = wait_s(bucket, wanted=wanted, rate_per_s=rate_per_s)
    most = min(wanted, BURST_S * rate_per_s)

    assert wait >= 1
    assert take(bucket, wanted=wanted, rate_per_s=rate_per_s, now_s=now_s + wait)[1] == most
    if wait > 1:
        assert take(bucket, wanted=wanted, rate_per_s=rate_per_s, now_s=now_s + wait - 1)[1] < most


# -- ids -----------------------------------------------------------------------------------------------------


@given(
    accepted=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from([b"c", b"d"]), st.integers(0, VALID_MS)), max_size=40
    ),
    room=st.integers(1, 12),
)
def test_what_is_remembered_is_what_a_memory_without_bounds_would_say(accepted, room):
    """It may have forgotten an id; what it says of one is right."""
    ids, all_of_them, now_ms = AcceptedIds(max_ids=room), {}, 0
    for number, letter, pause_ms in accepted:
        name, content = b"%d" % number, letter * 9
        now_ms += pause_ms
        first = all_of_them.get(name)
        is_known = first is not None and now_ms - first[0] < VALID_MS
        found = ids.find(name, content, now_ms=now_ms)

        if found is not None:
            assert is_known
            assert found == Seen(first[0], same=first[1] == content)
        else:
            # Told to be new, and stored.
            ids.add(name, content, accepted_at_ms=now_ms)
            all_of_them[name] = (now_ms, content)
            assert ids.find(name, content, now_ms=now_ms) == Seen(now_ms, same=True)
        assert len(ids) <= max(room, 2)
