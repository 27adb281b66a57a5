"""What a worker holds right now, told when Prometheus asks."""

from collections.abc import Callable, Iterator

from services.dispatcher.counted import SILENT
from services.dispatcher.lanes import Lanes
from services.dispatcher.queues import samples
from services.dispatcher.replays import ReplayAgent
from services.dispatcher.retry_reader import RetryReader
from services.runtime import metrics
from services.runtime.membership import membership
from services.runtime.metric import Sample
from streams import topics
from streams.engine.app import SafeApp
from streams.producer import partition_of
from streams.states import States
from streams.topics import Partitions
from streams.views import Apps, Integrations


class Gauges:
    """Asks the parts of a dispatcher."""

    def __init__(
        self,
        *,
        app: SafeApp,
        partitions: Partitions,
        lanes: Lanes,
        readers: list[RetryReader],
        replaying: ReplayAgent,
        integrations: Integrations,
        apps: Apps,
        states: States,
        now_ms: Callable[[], int],
    ) -> None:
        self._app = app
        self._numbers = list(range(partitions.by_integration))
        self._lanes = lanes
        self._readers = readers
        self._replaying = replaying
        self._integrations = integrations
        self._apps = apps
        self._states = states
        self._now_ms = now_ms

    def __call__(self) -> Iterator[Sample]:
        records, size = self._app.unfinished
        yield metrics.IN_FLIGHT.of(self._lanes.in_flight)
        yield metrics.UNANSWERED_INTEGRATIONS.of(SILENT.count(self._now_ms(), self._is_ours()))
        yield metrics.REPLAYS.of(self._replaying.running)
        for topic, view in ((topics.APP_CONFIG, self._apps), (topics.INTEGRATION_CONFIG, self._integrations)):
            yield metrics.CONFIG_UNREADABLE.of(len(view.unread), topic.name)
        yield metrics.DISPATCHER_RECORDS.of(records)
        yield metrics.DISPATCHER_BYTES.of(size)
        yield from membership(self._app, "dispatcher")
        behind = self._app.behind
        for reader in self._readers:
            yield metrics.RETRY_OVERDUE.of(reader.overdue_ms / 1_000, reader.line)
            if (own := behind.get(reader.line)) is not None:
                yield metrics.RETRIES_WAITING.of(own.not_taken + own.unfinished, reader.line)
        yield from samples(self._lanes.queues(), self._is_failing, self._now_ms())

    def _is_ours(self) -> Callable[[str], bool]:
        """Whether an integration is on a partition of `deliveries` that we have; while they are assigned, had."""
        owned = self._app.assigned(topics.DELIVERIES)
        if owned is None:
            return lambda _: True
        return lambda integration: partition_of(integration.encode(), self._numbers, []) in owned

    def _is_failing(self, integration: str) -> bool:
        """Whether the breaker says so, of the epoch that the integration is in."""
        config, state = self._integrations.get(integration), self._states.get(integration)
        if config is None or state is None:
            return False
        return state.state == "failing" and state.epoch == config.epoch
