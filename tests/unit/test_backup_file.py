"""A backup's file: what was put in comes out, and nothing else is taken for it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.backup import KEPT, Kept, for_a_new_log, lines_of, records_of, unreadable_of, versions_for
from streams import codec
from streams.records import IntegrationConfig, Record
from streams.topics import CONFIG_HISTORY, INTEGRATION_CONFIG
from tests.apps import make_app
from tests.records import make_integration

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


def configured(topic: str = INTEGRATION_CONFIG.name, **changes: Any) -> Kept:
    return Kept(topic, b"int_1", codec.encode(make_integration(version=7, epoch=3, **changes)), 1)


class TestOnANewLog:
    """Offsets of the old topic mean nothing there."""

    @pytest.mark.parametrize(
        "left_out", [{"skip_before": 5}, {"from_before": 5, "from_ms": 7}, {"skip_before": 4, "from_before": 5}]
    )
    def test_no_activation_of_before_leaves_anything_out(self, left_out: dict[str, Any]) -> None:
        restored = for_a_new_log(configured(**left_out))

        assert codec.decode_as(IntegrationConfig, restored.value) == make_integration(version=7, epoch=3)
        assert restored._replace(value=None) == configured()._replace(value=None)

    @pytest.mark.parametrize(
        "record",
        [
            configured(),
            configured(CONFIG_HISTORY.name, skip_before=5),
            Kept(INTEGRATION_CONFIG.name, b"int_1", None, 1),
            Kept(INTEGRATION_CONFIG.name, b"int_1", b"no record of ours", 1),
        ],
    )
    def test_anything_else_is_as_it_was(self, record: Kept) -> None:
        assert for_a_new_log(record) is record


def kept(topic: str, key: str, config: Record | None) -> Kept:
    return Kept(topic, key.encode(), b"garbage" if config is None else codec.encode(config), 0)


def test_of_what_cannot_be_read_the_newest_version_anywhere_is_written_again() -> None:
    """In the backup, on the log before it, or in the history; of what can be read nothing is."""
    there = [
        kept("config-history", "int_1", make_integration("int_1", version=3)),
        kept("config-history", "int_1", None),
        kept("app-config", "demo", make_app("demo", version=1)),
        kept("app-config", "demo", None),
        kept("app-config", "other", make_app("other", version=5)),
        kept("integration-config", "int_1", None),
        kept("integration-config", "int_2", None),
        kept("integration-config", "int_3", None),
        kept("integration-config", "int_4", None),
        kept("integration-config", "int_4", make_integration("int_4", version=9)),
    ]
    backed_up = [
        kept("integration-config", "int_1", make_integration("int_1", version=2)),
        kept("integration-config", "int_2", make_integration("int_2", version=1)),
        kept("integration-config", "int_2", make_integration("int_2", version=2)),
        kept("integration-config", "int_3", make_integration("int_2", version=7)),
        kept("app-config", "demo", make_app("demo", version=2)),
        kept("app-config", "other", make_app("other", version=6)),
    ]

    found, left = versions_for(there, backed_up)

    assert found == [
        kept("app-config", "demo", make_app("demo", version=2)),
        kept("integration-config", "int_1", make_integration("int_1", version=3)),
        kept("integration-config", "int_2", make_integration("int_2", version=2)),
    ]
    assert left == ["int_3 (integration-config)"]
    assert versions_for([*there, *found], backed_up) == ([], left)


def test_what_is_not_what_its_topic_holds_counts_as_unreadable() -> None:
    """Under the ids of another registry a record may be read as one of another kind."""
    deleted = Kept("integration-config", b"int_1", None, 1)
    readable = [configured(), configured(CONFIG_HISTORY.name), kept("app-config", "demo", make_app()), deleted]

    assert unreadable_of(readable) == 0
    assert unreadable_of([*readable, kept("app-config", "demo", None), kept("audit", "demo", make_app())]) == 2
