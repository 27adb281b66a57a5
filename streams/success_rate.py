"""
The success rate of an integration: the share of `delivered` among its deliveries that ended within a day. Pure.

What ended is counted in pieces of time by the breaker, by the results' own time, and is on `integration-state`. Which
of the pieces are within a day is for whoever shows it to say: no record comes when a day has passed.
"""

from typing import Final

from streams.records import IntegrationState

#: A quarter of an hour.
PIECE_MS: Final = 900_000
#: Of a day.
PIECES: Final = 96

_DAY_MS: Final = PIECES * PIECE_MS


def rate_of(state: IntegrationState, now_ms: int) -> float | None:
    """
    The share of `delivered` among what ended within a day, other than `discarded`; None where nothing did.

    A day is 96 quarters of an hour, the one under way included. Of a state that an older release wrote, which has no
    pieces, the day ends at its last delivery, and there is no rate where that is not known to be within a day.
    """
    if state.window:
        oldest = now_ms // PIECE_MS - PIECES
        within = [at for at, number in enumerate(state.window) if number > oldest]
        delivered, ended = (sum(each[at] for at in within) for each in (state.window_delivered, state.window_ended))
    elif state.last_at_ms is not None and state.last_outcome != "discarded" and now_ms - state.last_at_ms < _DAY_MS:
        delivered, ended = state.delivered, state.ended
    else:
        return None
    return delivered / ended if ended else None
