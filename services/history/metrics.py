"""What the history counts, for Prometheus."""

from typing import Final

from prometheus_client import Counter, Gauge

#: Records of `delivery-results`, markers and hand-overs among them.
FOLDED: Final = Counter("tenterhook_history_folded", "Records of delivery-results that the delivery history took in.")

UNREADABLE: Final = Counter("tenterhook_history_unreadable", "Records of delivery-results that could not be read.")

#: Behind the end, as of the last look at it, some seconds ago.
LAG: Final = Gauge("tenterhook_history_lag_records", "Records of delivery-results not yet in the delivery history.")
