"""What a trace says of an integration that the breaker pauses. Pure."""

from services.runtime.spans import PAUSE
from services.runtime.tracing import Span, Tracing
from streams.engine.processor import Batch
from streams.records import IntegrationState


def pause_span(tracing: Tracing, batch: Batch, state: IntegrationState) -> Span | None:
    """Of a state that has turned; None where it is no pause, or not of a result of this batch that is traced."""
    if not tracing.is_on or state.state != "paused" or state.tripped_by_offset is None:
        return None
    record = next((each for each in batch.records if each.offset == state.tripped_by_offset), None)
    return (
        None
        if record is None
        else tracing.begin(
            PAUSE,
            "pause",
            tracing.of_record(record),
            {
                "tenterhook.app": state.app,
                "tenterhook.integration": state.integration,
                "tenterhook.failures": state.consecutive_failures,
            },
        )
    )
