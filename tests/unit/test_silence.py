"""How long fetches wait, by what they have brought: pure, but for the one attribute of aiokafka's that is set."""

import inspect
from types import SimpleNamespace

from aiokafka.consumer.fetcher import Fetcher

from streams.features import APACHE_KAFKA, EMBEDDED
from streams.silence import SILENT_S, FetchWaits


def looked(features, *looks):
    """After each look, of (seconds, whether it brought records): the wait, and whether aiokafka looks around less."""
    now_s = 100.0
    fetcher = SimpleNamespace(_fetch_max_wait_ms=features.fetch_wait_ms, _fetcher_timeout=0.2)
    waits = FetchWaits(SimpleNamespace(_fetcher=fetcher), features, now_s=lambda: now_s)
    found = []
    for after_s, has_records in looks:
        now_s = 100.0 + after_s
        waits.saw(has_records=has_records)
        found.append((fetcher._fetch_max_wait_ms, fetcher._fetcher_timeout > 0.2))
    return found


def test_a_silent_topic_is_asked_more_seldom_until_the_first_record():
    short, long = EMBEDDED.fetch_wait_ms, EMBEDDED.silent_fetch_wait_ms

    assert looked(
        EMBEDDED,
        (SILENT_S - 1, False),
        (SILENT_S + 1, False),
        (SILENT_S + 2, True),
        (2 * SILENT_S + 1, False),
        (2 * SILENT_S + 3, False),
    ) == [(short, False), (long, True), (short, False), (short, False), (long, True)]
    assert long > 10 * short


def test_on_apache_kafka_a_fetch_waits_as_ever():
    as_ever = APACHE_KAFKA.fetch_wait_ms

    assert looked(APACHE_KAFKA, (1.0, True), (1_000.0, False)) == [(as_ever, False), (as_ever, True)]


def test_the_attributes_are_what_aiokafka_reads():
    """They may be renamed there, and setting them would do nothing."""
    source = inspect.getsource(Fetcher._get_actions_per_node)

    assert "self._fetch_max_wait_ms," in source
    assert "backoff = self._fetcher_timeout" in source
