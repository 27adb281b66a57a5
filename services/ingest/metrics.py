"""What ingest counts, for Prometheus."""

from typing import Final

from prometheus_client import Counter, Histogram

#: Events answered with 202.
ACCEPTED: Final = Counter("tenterhook_ingest_accepted", "Events that were accepted, which is: stored.")

#: Requests answered otherwise, by the problem's code.
REFUSED: Final = Counter("tenterhook_ingest_refused", "Requests that were refused, by problem code.", ["code"])

#: From an event's acceptance to the broker's acknowledgement, in seconds.
APPEND_SECONDS: Final = Histogram(
    "tenterhook_ingest_append_seconds",
    "From an event's acceptance to the broker's acknowledgement.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
