"""The topics as data: names, partners, retention, and the settings that the promises rest on."""

import re

import pytest

from streams import topics
from streams.connection import Connection
from streams.topics import (
    APP_CONFIG,
    DAY_MS,
    DELIVERIES,
    EVENTS,
    FAN_OUT,
    INTEGRATION_CONFIG,
    INTEGRATION_STATE,
    MAX_MESSAGE_BYTES,
    RESULTS,
    RETRY_DELAYS_S,
    TOPICS,
    Partitions,
    configs,
    partition_count,
)
from tests.records import make_delivery


def test_names_are_unique_and_fit_kafka_behind_any_reasonable_prefix():
    names = [topic.name for topic in TOPICS]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*(\.\d+s)?", name) for name in names)


def test_every_topic_of_the_module_is_in_the_list():
    named = {value for value in vars(topics).values() if isinstance(value, topics.Topic)}

    assert named | set(topics.RETRIES) == set(TOPICS)


def test_a_topic_is_called_by_the_prefix_and_its_name():
    assert Connection("x:1").topic(RESULTS) == "tenterhook.delivery-results"
    assert Connection("x:1", "staging.").topic(RESULTS) == "staging.delivery-results"


@pytest.mark.parametrize(("one", "other"), [(EVENTS, FAN_OUT), (DELIVERIES, RESULTS)])
def test_partners_share_a_partition_number(one, other):
    """A receipt stands in the partition of its event, a result in that of its delivery, whatever the counts are."""
    for partitions in (Partitions(), Partitions(1, 1), Partitions(3, 7)):
        assert partition_count(one, partitions) == partition_count(other, partitions)
    assert one.key == other.key


def test_what_is_followed_has_one_partition():
    for topic in (INTEGRATION_CONFIG, INTEGRATION_STATE, APP_CONFIG):
        assert partition_count(topic, Partitions(8, 16)) == 1


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_topic_is_compacted_for_ever_or_deleted_after_days(topic):
    settings = configs(topic, 1)

    assert (topic.retention_ms is None) == (topic.cleanup == "compact")
    assert settings["cleanup.policy"] == topic.cleanup
    if topic.retention_ms is None:
        assert "retention.ms" not in settings
    else:
        assert settings["retention.ms"] == str(topic.retention_ms)
        assert settings["retention.bytes"] == "-1"  # a broker's own default could delete much earlier


def test_days_are_those_of_the_contract():
    days = {topic.name: topic.retention_ms and topic.retention_ms // DAY_MS for topic in TOPICS}

    assert days == {
        "events": 7,
        "fan-out": 30,
        "deliveries": 7,
        "delivery-results": 30,
        "integration-config": None,
        "integration-state": None,
        "app-config": None,
        "audit": 400,
        "quarantine": 30,
        "event-ids": 9,
        "commands": 1,
        "command-replies": 1,
        "config-history": 400,
        "replays": None,
        "installation": None,
        "schemas": None,
        "lane-rows": None,
        "breaker-rows-changelog": None,
        **{f"retry.{delay_s}s": 7 for delay_s in RETRY_DELAYS_S},
    }


def test_what_waits_stays_a_week_longer_than_it_waits():
    assert {topic.name: topic.retention_ms - 7 * DAY_MS for topic in topics.RETRIES} == {
        f"retry.{delay_s}s": delay_s * 1_000 for delay_s in (1, 5, 20, 80, 320, 1_280, 5_120, 20_480)
    }


def test_receipts_and_results_outlive_the_events_they_tell_of():
    assert FAN_OUT.retention_ms >= EVENTS.retention_ms
    assert RESULTS.retention_ms >= DELIVERIES.retention_ms


@pytest.mark.parametrize(("replicas", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_three_replicas_acknowledge_when_two_have_it(replicas, in_sync):
    assert {configs(topic, replicas)["min.insync.replicas"] for topic in TOPICS} == {in_sync}
    assert {configs(topic, replicas)["unclean.leader.election.enable"] for topic in TOPICS} == {"false"}


def test_the_largest_records_fit_with_room():
    """A payload of 64 KiB in a Delivery; producers and what quarantine wraps stay below what the topics take."""
    from schemas.profiles import MAX_BODY_BYTES
    from streams import codec
    from streams.producer import MAX_REQUEST_BYTES

    largest = len(codec.encode(make_delivery(payload=bytes(MAX_BODY_BYTES))))

    assert largest * 8 < MAX_REQUEST_BYTES < MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    ("key", "has", "want", "enough"),
    [
        ("retention.ms", "604800000", "604800000", True),
        ("retention.ms", "-1", "604800000", True),
        ("retention.ms", "604799999", "604800000", False),
        ("retention.bytes", "-1", "-1", True),
        ("retention.bytes", "1000000000000", "-1", False),
        ("max.message.bytes", "1048588", "4194304", False),
        ("max.message.bytes", "8388608", "4194304", True),
        ("min.insync.replicas", "1", "2", False),
        ("min.insync.replicas", "3", "2", True),
        ("cleanup.policy", "compact,delete", "compact", False),
        ("unclean.leader.election.enable", "true", "false", False),
        ("segment.ms", "1", "21600000", True),
    ],
)
def test_settings_may_promise_more_and_never_less(key, has, want, enough):
    assert topics._is_enough(key, has, want) is enough


def shown(replicas: list[int], counts: Partitions) -> dict[str, dict]:
    """All topics as a broker shows them."""
    return {topic.name: {"partitions": [{"replicas": replicas}] * partition_count(topic, counts)} for topic in TOPICS}


WANTED = {topic.name: topic for topic in TOPICS}


def test_topics_as_they_should_be_differ_in_nothing():
    assert topics._differences(shown([1, 2, 3], Partitions()), WANTED, Partitions(), 3) == []
    assert topics._differences(shown([1, 2, 3], Partitions()), WANTED, Partitions(), 1) == []


def test_fewer_replicas_than_wanted_are_said_with_what_to_do():
    found = topics._differences(shown([1], Partitions()), WANTED, Partitions(), 3)

    assert len(found) == len(TOPICS)
    assert found[0].startswith("topic events has 1 replicas, and these settings want 3.")
    assert "TENTERHOOK_REPLICATION=1" in found[0]


def test_a_broker_that_counts_itself_thrice_has_one_replica():
    assert "has 1 replicas" in topics._differences(shown([111] * 3, Partitions()), WANTED, Partitions(), 3)[0]


def test_another_count_is_said_with_the_setting_that_would_accept_it():
    found = topics._differences(shown([1], Partitions(4, 16)), WANTED, Partitions(8, 16), 1)

    assert [sentence.split(" has ")[0] for sentence in found] == ["topic events", "topic fan-out", "topic event-ids"]
    assert all("TENTERHOOK_PARTITIONS__BY_APP=4" in sentence for sentence in found)


def test_a_followed_topic_with_several_partitions_cannot_be_accepted_by_a_setting():
    several = shown([1], Partitions())
    several["app-config"]["partitions"] *= 4
    (found,) = topics._differences(several, WANTED, Partitions(), 1)

    assert "topic app-config has 4 partitions, and these settings want 1" in found
    assert found.endswith("use another TENTERHOOK_TOPIC_PREFIX")
    assert "PARTITIONS__" not in found
