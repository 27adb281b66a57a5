"""What is recorded of the topics stays, whoever records it beside others, and whatever compaction takes."""

from hypothesis import given
from hypothesis import strategies as st

from streams.installation import compared, joined, key_of
from streams.records import Installation

#: Topics of three releases, and the first one's key.
RELEASES = (4, 6, 7)
FIRST_KEY = b"topics"


def as_there(count: int, ids: str = "first") -> Installation:
    names = [f"topic-{number}" for number in range(count)]
    return Installation(topic_ids={name: f"{ids}-{name}" for name in names}, partitions=dict.fromkeys(names, 1))


def start(log: list[tuple[bytes, Installation]], release: int, missed: int) -> None:
    """A process that has not seen the newest *missed* records: others begin beside it."""
    seen = [record for _, record in log[: len(log) - missed]]
    now = as_there(RELEASES[release])
    if release == 0:
        if not seen:
            log.append((FIRST_KEY, now))
        return
    recorded = joined([*seen, now])
    if recorded != joined(seen):
        log.append((key_of(recorded), recorded))


def compacted(log: list[tuple[bytes, Installation]]) -> list[Installation]:
    newest = {key: at for at, (key, _) in enumerate(log)}
    return [record for at, (key, record) in enumerate(log) if newest[key] == at]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1))
def test_every_topic_of_every_release_that_has_run_is_recorded_and_stays_so(starts):
    log: list[tuple[bytes, Installation]] = []
    for release, missed in starts:
        start(log, release, min(missed, len(log)))

    newest = max(release for release, _ in starts)
    for records in ([record for _, record in log], compacted(log)):
        assert joined(records) == as_there(RELEASES[newest])
        # The first release goes by the record that it meets first.
        assert compared("t.", records[0], as_there(RELEASES[0]), "t.installation") == []
        assert len(compared("t.", records[0], as_there(RELEASES[0], "second"), "t.installation")) == RELEASES[0]


def test_the_first_that_is_recorded_of_a_topic_counts():
    records = [as_there(4), as_there(6, "second")]

    assert joined(records).topic_ids == {**as_there(6, "second").topic_ids, **as_there(4).topic_ids}
    said = compared("t.", joined(records), as_there(6, "second"), "t.installation")
    assert [each.split()[1] for each in said] == [f"t.topic-{number}" for number in range(4)]
