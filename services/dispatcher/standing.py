"""
Whether an integration's deliveries are sent now: its configuration, what the breaker says, and what was skipped.

Pure. Asked again for each delivery when its turn comes, retries included, however long it has waited.
"""

from typing import Final, Literal

from services.dispatcher.verdict import Verdict
from streams.records import Delivery, IntegrationConfig

#: `send` them, `hold` them where they are, or `discard` them.
Standing = Literal["send", "hold", "discard"]

#: A delivery is recorded as discarded so long before it would fall out of the log's retention.
RETENTION_MARGIN_MS: Final = 6 * 3_600_000

DELETED: Final = Verdict("discarded", "integration_deleted", "the integration was deleted before this was sent")
PAUSED: Final = Verdict("discarded", "integration_paused", "the integration is paused, and set to discard meanwhile")
SKIPPED: Final = Verdict("discarded", "skipped", "whoever activated the integration chose to skip what was held")
CANCELLED: Final = Verdict("discarded", "replay_cancelled", "its replay was cancelled before this was sent")
FALLEN_OUT: Final = Verdict(
    "discarded", "retention", "it waited as long as the log keeps deliveries: activate the integration before that"
)


def standing(config: IntegrationConfig | None, *, is_paused: bool, is_broken: bool = False) -> Standing:
    """
    What happens to the integration's deliveries now. One that is deleted discards what is left.

    Args:
        is_paused: by a person, or by the breaker in the integration's present epoch (`States.is_paused`).
        is_broken: there is no configuration since it cannot be read (`Integrations.is_broken`): nobody has deleted it.
    """
    if is_broken:
        return "hold"
    if config is None:
        return "discard"
    if not is_paused:
        return "send"
    return "discard" if config.while_paused == "discard" else "hold"


def discarded(
    delivery: Delivery, config: IntegrationConfig | None, *, is_paused: bool, is_cancelled: bool = False
) -> Verdict | None:
    """
    Why the delivery ends without another attempt; None where it is to be sent.

    `skip` and `from` are filters, not acts: what was made under an older configuration than the activation's is
    discarded whenever its turn comes, so nothing has to be applied at a time, or twice.

    Args:
        is_paused: as for `standing`.
        is_cancelled: the replay that it is of was.
    """
    if config is None:
        return DELETED
    if is_cancelled:
        return CANCELLED
    if delivery.config_offset < config.skip_before:
        return SKIPPED
    if delivery.config_offset < config.from_before and delivery.accepted_at_ms < config.from_ms:
        return SKIPPED
    if is_paused and config.while_paused == "discard":
        return PAUSED
    return None
