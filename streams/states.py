"""Topic `integration-state` folded into memory: what the breaker says of each integration. Folding is pure."""

import structlog

from streams import codec
from streams.records import IntegrationConfig, IntegrationState
from streams.topics import TopicMismatch
from streams.views import Integrations

log = structlog.get_logger(__name__)


class States:
    """
    The newest state of each integration: the one furthest in (epoch, applied offset), whenever it was written.

    A breaker that froze and wakes may append what its successor has gone past; its record changes nothing here.
    """

    def __init__(self) -> None:
        #: Records that could not be read.
        self.unreadable = 0
        self._by_id: dict[str, IntegrationState] = {}

    def apply(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """Fold one record in: key is the integration's id, a value of None deletes it."""
        try:
            integration = (key or b"").decode()
            state = None if value is None else codec.decode_as(IntegrationState, value)
        except (codec.Unreadable, UnicodeDecodeError) as error:
            self.unreadable += 1
            _log_unreadable(offset, error)
            return
        if state is None:
            self._by_id.pop(integration, None)
            return
        held = self._by_id.get(integration)
        if held is None or _rank(state) >= _rank(held):
            self._by_id[integration] = state

    def clear(self) -> None:
        """Forget everything; see `Follower`."""
        self._by_id.clear()

    def get(self, integration: str) -> IntegrationState | None:
        """The integration's state, of whatever epoch; None where nothing was published yet."""
        return self._by_id.get(integration)

    def all(self) -> tuple[IntegrationState, ...]:
        """All of them, by integration."""
        return tuple(self._by_id[key] for key in sorted(self._by_id))

    def is_paused(self, config: IntegrationConfig) -> bool:
        """Whether nothing is sent to it now: paused by a person, or by the breaker in the epoch that it is in."""
        state = self._by_id.get(config.id)
        by_breaker = state is not None and state.state == "paused" and state.epoch == config.epoch
        return config.status == "paused" or by_breaker


def check_configured(integrations: Integrations, states: States, *, prefix: str) -> None:
    """
    Hold the configuration to what is published of integrations, before anything is done under it.

    With a configuration that was lost, events would be fanned out to nobody, deliveries discarded as those of deleted
    integrations, and states deleted. What is deleted leaves a tombstone for a day at least, and its state goes then.

    Args:
        integrations: all that was on the log when the last of *states* was applied.

    Raises:
        TopicMismatch: there are none, and no integration that has a state was ever configured.
    """
    known = states.all()
    names = [each.integration for each in known]
    has_any = any(integrations.changed_at(name) >= 0 or integrations.is_broken(name) for name in names)
    if known and not integrations.all() and not has_any:
        raise TopicMismatch(
            f"topic {prefix}integration-config has lost its records: {prefix}integration-state knows"
            f" {len(known)} integrations, and none of them is configured. What is accepted waits. Restore a backup"
            " under another TENTERHOOK_TOPIC_PREFIX (docs/operating.md); or, where all integrations were deleted,"
            f" delete topic {prefix}integration-state, which is made again"
        )


def _rank(state: IntegrationState) -> tuple[int, int]:
    return state.epoch, state.applied_offset


def _log_unreadable(offset: int, error: Exception) -> None:
    log.error("state.unreadable", offset=offset, reason=str(error), hint="kept what was there before it")
