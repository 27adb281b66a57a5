"""A backup's file: what was put in comes out, and nothing else is taken for it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.backup import KEPT, Kept, lines_of, records_of

records = st.lists(
    st.builds(
        Kept,
        topic=st.sampled_from([topic.name for topic in KEPT]),
        key=st.none() | st.binary(max_size=20),
        value=st.none() | st.binary(max_size=200),
        at_ms=st.integers(0, 2**41),
    ),
    max_size=8,
)


@given(records)
def test_what_was_put_in_comes_out(given: list[Kept]) -> None:
    assert list(records_of(lines_of(given, at_ms=0))) == given
    assert list(records_of(f"{line}\n" for line in lines_of(given, at_ms=0))) == given


@given(records, st.data())
def test_a_file_that_lost_lines_or_was_changed_is_refused(given: list[Kept], data: st.DataObject) -> None:
    lines = list(lines_of([*given, Kept("audit", b"demo", b"value", 1)], at_ms=0))
    number = data.draw(st.integers(1, len(lines) - 1))
    shortened = lines[:number] + lines[number + 1 :]
    with pytest.raises(ValueError):
        list(records_of(shortened))
    changed = json.loads(lines[-2])
    changed[3] += 1
    with pytest.raises(ValueError, match="changed"):
        list(records_of([*lines[:-2], json.dumps(changed), lines[-1]]))


@pytest.mark.parametrize(
    "lines", [[], ["null"], ["[]"], ["{}"], ["no json"], ['{"tenterhook": "backup", "format": 2}']]
)
def test_another_file_is_refused(lines: list[str]) -> None:
    with pytest.raises(ValueError):
        list(records_of(lines))


def test_a_topic_that_is_not_configuration_is_refused() -> None:
    lines = list(lines_of([Kept("deliveries", b"int_1", b"value", 1)], at_ms=0))
    with pytest.raises(ValueError, match="deliveries"):
        list(records_of(lines))
