"""What a service says of its consumer group, when Prometheus asks."""

from collections.abc import Iterator

from services.runtime import metrics
from services.runtime.metric import Sample, Service
from streams.engine.app import SafeApp


def membership(app: SafeApp, service: Service) -> Iterator[Sample]:
    """Rebalances, and how far the worker is behind."""
    yield metrics.REBALANCES.of(app.rebalances, service)
    yield metrics.STUCK.of(app.stuck_partitions, service)
    yield metrics.STOPPED.of(app.stopped_partitions, service)
    for topic, behind in app.behind.items():
        yield metrics.PARTITIONS.of(behind.partitions, service, topic)
        yield metrics.LAG.of(behind.not_taken, service, topic)
