"""Deliveries that a person asks for: one that has ended, once more; a sample event. Pure."""

import msgspec

from services.body.samples import sample_event
from streams.delivery_ids import delivery_id
from streams.records import Delivery, IntegrationConfig


def again(ended: Delivery, *, last_attempt: int, run: str, config_offset: int) -> Delivery:
    """
    The delivery that repeats one that has ended, with one attempt, counted on from its last.

    Args:
        run: id of the command that asked for it.
        config_offset: end of `integration-config`: made under all that was configured by now.
    """
    return msgspec.structs.replace(
        ended,
        delivery_id=delivery_id(ended.record_id, ended.integration, run),
        cause="retry",
        run=run,
        of=ended.of or ended.delivery_id,
        attempt=last_attempt + 1,
        due_at_ms=None,
        config_offset=config_offset,
        retry_line=None,
        retry_partition=None,
        retry_generation=None,
    )


def tested(config: IntegrationConfig, event_type: str, *, run: str, config_offset: int, now_ms: int) -> Delivery:
    """
    The delivery of a sample event of this type to the integration, whether or not it selects the type.

    Args:
        run: id of the command that asked for it; event and record are named after it.
    """
    sample = sample_event(config.app, event_type)
    return Delivery(
        delivery_id=delivery_id(f"rec_{run}", config.id, run),
        integration=config.id,
        app=config.app,
        record_id=f"rec_{run}",
        event_id=f"evt_test_{run}",
        type=event_type,
        payload=sample.payload,
        occurred_at_ms=now_ms,
        accepted_at_ms=now_ms,
        ordering_key=sample.ordering_key,
        cause="test",
        run=run,
        config_offset=config_offset,
        # Of no event on the log.
        source_partition=0,
        source_offset=0,
        source_generation=0,
    )
