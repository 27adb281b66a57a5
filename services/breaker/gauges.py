"""What a breaker knows right now, told when Prometheus asks."""

from collections.abc import Iterable, Iterator

from services.breaker.agent import Breaker
from services.runtime import metrics
from services.runtime.membership import membership
from services.runtime.metric import Sample
from streams.engine.app import SafeApp
from streams.records import IntegrationConfig
from streams.states import States
from streams.views import Integrations


class Gauges:
    """Asks the parts of a breaker."""

    def __init__(self, app: SafeApp, breaker: Breaker, integrations: Integrations, states: States) -> None:
        self._app = app
        self._breaker = breaker
        self._integrations = integrations
        self._states = states

    def __call__(self) -> Iterator[Sample]:
        records, size = self._app.unfinished
        yield metrics.BREAKER_ROWS.of(self._breaker.rows)
        yield metrics.BREAKER_RECORDS.of(records)
        yield metrics.BREAKER_BYTES.of(size)
        yield metrics.BREAKER_RESULTS.of(self._breaker.folded)
        yield metrics.BREAKER_UNREADABLE.of(self._breaker.unreadable)
        for state, count in by_state(self._integrations.all(), self._states).items():
            yield metrics.INTEGRATIONS.of(count, state)
        yield from membership(self._app, "breaker")


def by_state(integrations: Iterable[IntegrationConfig], states: States) -> dict[str, int]:
    """How many integrations are in each state; what the breaker said in an earlier epoch counts no more."""
    counts = dict.fromkeys(metrics.STANDS.values, 0)
    for config in integrations:
        published = states.get(config.id)
        if config.status == "paused":
            counts["paused_by_person"] += 1
        elif published is not None and published.epoch == config.epoch:
            counts[published.state] += 1
        else:
            counts["active"] += 1
    return counts
