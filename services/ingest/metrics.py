"""What ingest counts, for Prometheus."""

from typing import Final

from prometheus_client import Counter, Histogram

#: Events answered with 202 and stored for that.
ACCEPTED: Final = Counter("tenterhook_ingest_accepted", "Events that were accepted, which is: stored.")

#: Events answered with 202 that were stored before, and so were not stored again.
REPEATED: Final = Counter("tenterhook_ingest_repeated", "Events that were recognised as repeats of stored ones.")

#: Requests, and events of batches, answered otherwise, by the problem's code.
REFUSED: Final = Counter(
    "tenterhook_ingest_refused", "Requests and events of batches that were refused, by problem code.", ["code"]
)

#: From an event's acceptance to the broker's acknowledgement, in seconds; a batch counts once.
APPEND_SECONDS: Final = Histogram(
    "tenterhook_ingest_append_seconds",
    "From an event's acceptance to the broker's acknowledgement.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
