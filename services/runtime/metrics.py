"""
Every metric there is, as data: name, kind, unit, labels, meaning, and whose `/metrics` shows it.

Nothing else makes one. `docs/metrics.md` lists them, dashboards and alerts ask for them; tests hold all three to this
file. How they are counted and shown is in `metric.py`.
"""

from typing import Final, get_args

from services.runtime import kinds
from services.runtime.metric import OTHER, Asked, Counter, Exposed, Histogram, Label, Metric, Sample, Service, expose
from streams import topics
from streams.answers import ANSWERS, APIS
from streams.quarantine import CODES, PUT_ASIDE
from streams.records import Outcome

ALL: Final[tuple[Service, ...]] = get_args(Service)
#: Those that are members of a consumer group, and so can put records aside.
MEMBERS: Final[tuple[Service, ...]] = ("dispatcher", "breaker", "admin")

#: Those that make spans.
TRACED: Final[tuple[Service, ...]] = ("ingest", "dispatcher", "breaker")

# -- labels --------------------------------------------------------------------------------------------------

SERVICE: Final = Label("service", ALL, "The service that this process runs.")
STATUS: Final = Label("status", ("2xx", "3xx", "4xx", "5xx"), "Class of the answer's status.")
API: Final = Label("api", APIS, "What the request to the broker is about.")
GROUP: Final = Label("group", MEMBERS, "The consumer group, by its service.")
TOPIC: Final = Label(
    "topic",
    tuple(
        topic.name
        for topic in (
            topics.EVENTS, topics.DELIVERIES, topics.RESULTS, topics.REPLAYS, topics.COMMANDS, *topics.RETRIES
        )
    ),
    "A topic that a group reads, without the prefix.",
)  # fmt: skip
LINE: Final = Label("line", tuple(line.name for line in topics.RETRIES), "A retry topic, without the prefix.")
REFUSAL: Final = Label(
    "code",
    # What is not HTTP comes to no handler.
    tuple(sorted(kind.code for kind in kinds.DECLARED if kind.of != "admin" and kind is not kinds.NOT_HTTP)),
    "The problem's code: see docs/errors.md.",
)
PUT_ASIDE_CODE: Final = Label(
    "code",
    tuple(CODES),
    "Why it was put aside.",
)
CONFIGURED: Final = Label(
    "topic", (topics.APP_CONFIG.name, topics.INTEGRATION_CONFIG.name), "Which configuration, without the prefix."
)
OUTCOME: Final = Label(
    "outcome", (*get_args(Outcome), "retry"), "How the delivery ended, or `retry` where another attempt follows."
)
ANSWERED: Final = Label("status", (*STATUS.values, "none"), "Class of the endpoint's status; `none`: no answer.")
FAILURE: Final = Label(
    "reason",
    (
        "timeout", "dns_failed", "address_refused", "connect_refused", "connect_failed", "tls_failed", "reset",
        "answer_malformed", "answer_head_too_large", "url_refused",
    ),
    "What happened instead of an answer.",
)  # fmt: skip
PERCENTILE: Final = Label("percentile", ("50", "90", "99", "100"), "100 is the largest.")
INTEGRATION: Final = Label("integration", (), "Id of the integration: the worst ten at that moment.", at_most=10)
DETACHED_FOR: Final = Label("reason", ("paused", "behind", "blocked", "other"), "Why the line was detached.")
STANDS: Final = Label(
    "state",
    ("active", "failing", "paused", "paused_by_person"),
    "The breaker's word, or `paused_by_person`.",
)
TURN: Final = Label("to", ("failing", "paused"), "What it became.")
DROPPED_FOR: Final = Label(
    "reason",
    ("queue_full", "refused", "at_end"),
    "Too many waited; the collector refused them; the process ended before it took them.",
)

# -- every process -------------------------------------------------------------------------------------------

LIVE: Final = Asked(
    name="tenterhook_live", unit="boolean", services=ALL, labels=(SERVICE,),
    meaning="1 while the process makes progress, as /health/live says.",
)  # fmt: skip
READY: Final = Asked(
    name="tenterhook_ready", unit="boolean", services=ALL, labels=(SERVICE,),
    meaning="1 while the process is caught up, as /health/ready says.",
)  # fmt: skip
HTTP_REQUESTS: Final = Counter(
    name="tenterhook_http_requests_total", unit="requests", services=ALL, labels=(SERVICE, STATUS),
    meaning="HTTP requests answered, health and metrics apart.",
)  # fmt: skip
HTTP_SECONDS: Final = Histogram(
    name="tenterhook_http_request_seconds", unit="seconds", services=ALL, labels=(SERVICE,),
    meaning="From a request's head to its answer, as far as that is made before it is sent.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)  # fmt: skip
LOOP_LAG: Final = Histogram(
    name="tenterhook_event_loop_lag_seconds", unit="seconds", services=ALL,
    meaning="How much later than asked the event loop called back, asked once a second.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)  # fmt: skip
BROKER_ANSWERED: Final = Asked(
    name="tenterhook_broker_answered_timestamp_seconds", unit="seconds", services=ALL,
    meaning="When a broker last answered this process, since 1970 UTC; it is asked every five seconds or more often.",
)  # fmt: skip
BROKER_APPENDED: Final = Asked(
    name="tenterhook_broker_appended_timestamp_seconds", unit="seconds", services=ALL,
    meaning="When the brokers last took all of an append of this process, since 1970 UTC; 0: never.",
)  # fmt: skip
BROKER_FAILED: Final = Asked(
    name="tenterhook_broker_requests_failed_total", unit="requests", services=ALL, labels=(API,), is_counter=True,
    meaning="Requests to brokers that got no answer, or an error; clients repeat them.",
)  # fmt: skip
QUARANTINED: Final = Asked(
    name="tenterhook_quarantined_total", unit="records", services=MEMBERS, labels=(PUT_ASIDE_CODE,), is_counter=True,
    meaning="Records that this process put onto the topic quarantine.",
)  # fmt: skip

SPANS_EXPORTED: Final = Counter(
    name="tenterhook_trace_spans_exported_total", unit="spans", services=TRACED,
    meaning="Spans that the collector has taken; 0 where nothing is traced.",
)  # fmt: skip
SPANS_DROPPED: Final = Counter(
    name="tenterhook_trace_spans_dropped_total", unit="spans", services=TRACED, labels=(DROPPED_FOR,),
    meaning="Spans that it has not got, and will not.",
)  # fmt: skip

# -- members of a group --------------------------------------------------------------------------------------

REBALANCES: Final = Asked(
    name="tenterhook_group_rebalances_total", unit="rebalances", services=MEMBERS, labels=(GROUP,), is_counter=True,
    meaning="How often partitions were assigned anew while this process was a member.",
)  # fmt: skip
PARTITIONS: Final = Asked(
    name="tenterhook_group_partitions", unit="partitions", services=MEMBERS, labels=(GROUP, TOPIC),
    meaning="Partitions that this process reads.",
)  # fmt: skip
LAG: Final = Asked(
    name="tenterhook_group_lag_records", unit="records", services=MEMBERS, labels=(GROUP, TOPIC),
    meaning="Records of this process's partitions that it has not taken, as of some seconds ago.",
)  # fmt: skip
STUCK: Final = Asked(
    name="tenterhook_group_stuck_partitions", unit="partitions", services=MEMBERS, labels=(GROUP,),
    meaning="Partitions with work, or being taken over, of which nothing has moved for 120 s.",
)  # fmt: skip
STOPPED: Final = Asked(
    name="tenterhook_group_stopped_partitions", unit="partitions", services=MEMBERS, labels=(GROUP,),
    meaning="Partitions on which an agent has stopped, since too many records raised.",
)  # fmt: skip

# -- ingest --------------------------------------------------------------------------------------------------

ACCEPTED: Final = Counter(
    name="tenterhook_ingest_accepted_total", unit="events", services=("ingest",),
    meaning="Events answered with 202 and stored for that.",
)  # fmt: skip
REPEATED: Final = Counter(
    name="tenterhook_ingest_repeated_total", unit="events", services=("ingest",),
    meaning="Events answered with 202 that were stored before.",
)  # fmt: skip
REFUSED: Final = Counter(
    name="tenterhook_ingest_refused_total", unit="refusals", services=("ingest",), labels=(REFUSAL,),
    meaning="Requests, and events of batches, that were refused.",
)  # fmt: skip
APPEND_SECONDS: Final = Histogram(
    name="tenterhook_ingest_append_seconds", unit="seconds", services=("ingest",),
    meaning="From an event's acceptance to the broker's acknowledgement; a batch counts once.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)  # fmt: skip
UNACKNOWLEDGED: Final = Asked(
    name="tenterhook_ingest_unacknowledged_bytes", unit="bytes", services=("ingest",),
    meaning="Events given to the broker and not acknowledged; at 64 MiB others are refused.",
)  # fmt: skip

# -- fan-out -------------------------------------------------------------------------------------------------

FANNED_OUT: Final = Counter(
    name="tenterhook_fan_out_events_total", unit="events", services=("dispatcher",),
    meaning="Events of which it is on the log who gets them, repeats included.",
)  # fmt: skip
FANNED_OUT_REPEATS: Final = Counter(
    name="tenterhook_fan_out_repeats_total", unit="events", services=("dispatcher",),
    meaning="Of those, repeats of an event's id, which nobody gets.",
)  # fmt: skip
FANNED_OUT_DELIVERIES: Final = Counter(
    name="tenterhook_fan_out_deliveries_total", unit="deliveries", services=("dispatcher",),
    meaning="Deliveries that the events became.",
)  # fmt: skip
FAN_OUT_AGE: Final = Histogram(
    name="tenterhook_fan_out_age_seconds", unit="seconds", services=("dispatcher",),
    meaning="From an event's acceptance until its deliveries are on the log.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3_600),
)  # fmt: skip

# -- attempts ------------------------------------------------------------------------------------------------

ATTEMPTS: Final = Counter(
    name="tenterhook_attempts_total", unit="results", services=("dispatcher",), labels=(OUTCOME, ANSWERED),
    meaning="Results written: one for each attempt, and for each delivery that ended without one.",
)  # fmt: skip
UNANSWERED: Final = Counter(
    name="tenterhook_attempts_unanswered_total", unit="attempts", services=("dispatcher",), labels=(FAILURE,),
    meaning="Attempts that got no complete answer.",
)  # fmt: skip
UNANSWERED_INTEGRATIONS: Final = Asked(
    name="tenterhook_unanswered_integrations", unit="integrations", services=("dispatcher",),
    meaning="Integrations whose newest attempt of the last quarter of an hour got no complete answer, refused addresses"
    " apart.",
)  # fmt: skip
ATTEMPT_SECONDS: Final = Histogram(
    name="tenterhook_attempt_seconds", unit="seconds", services=("dispatcher",),
    meaning="How long an attempt took, from the name look-up to the answer's last byte.",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)  # fmt: skip
DELAY: Final = Histogram(
    name="tenterhook_delivery_delay_seconds", unit="seconds", services=("dispatcher",),
    meaning="From an event's acceptance to the start of its delivery's first attempt; what was held counts too.",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3_600, 86_400),
)  # fmt: skip
IN_FLIGHT: Final = Asked(
    name="tenterhook_dispatcher_in_flight", unit="requests", services=("dispatcher",),
    meaning="Requests under way or about to be.",
)  # fmt: skip
REPLAYS: Final = Asked(
    name="tenterhook_dispatcher_replays", unit="replays", services=("dispatcher",),
    meaning="Replays that this process runs.",
)  # fmt: skip
DISPATCHER_RECORDS: Final = Asked(
    name="tenterhook_dispatcher_unfinished_records", unit="records", services=("dispatcher",),
    meaning="Records taken and not finished, over all topics.",
)  # fmt: skip
DISPATCHER_BYTES: Final = Asked(
    name="tenterhook_dispatcher_unfinished_bytes", unit="bytes", services=("dispatcher",),
    meaning="Their bytes.",
)  # fmt: skip
CONFIG_UNREADABLE: Final = Asked(
    name="tenterhook_config_unreadable_records", unit="records", services=("dispatcher",), labels=(CONFIGURED,),
    meaning="Apps and integrations whose newest record cannot be read; each dispatcher says the same.",
)  # fmt: skip

# -- lines ---------------------------------------------------------------------------------------------------

QUEUED: Final = Asked(
    name="tenterhook_queue_deliveries", unit="deliveries", services=("dispatcher",),
    meaning="Deliveries that wait for their turn in lines that are not paused.",
)  # fmt: skip
QUEUED_INTEGRATIONS: Final = Asked(
    name="tenterhook_queue_integrations", unit="integrations", services=("dispatcher",),
    meaning="Integrations for which deliveries wait, those that are paused or failing apart.",
)  # fmt: skip
QUEUE_AGE: Final = Asked(
    name="tenterhook_queue_age_seconds", unit="seconds", services=("dispatcher",), labels=(PERCENTILE,),
    meaning="How long the oldest delivery of an integration has waited for its turn: percentiles over the integrations"
    " of this process that have something to do, those that are paused or failing apart; 0 where nothing waits.",
)  # fmt: skip
QUEUE_DEPTH: Final = Asked(
    name="tenterhook_queue_depth_deliveries", unit="deliveries", services=("dispatcher",), labels=(PERCENTILE,),
    meaning="How many of an integration wait: percentiles as of the age.",
)  # fmt: skip
#: Below these an integration is not named: of ten thousand that are well each scrape would show ten others, which
#: happened to wait for some milliseconds, and Prometheus keep a series for each.
WORST_AGE_S: Final = 1.0
WORST_DEPTH_DELIVERIES: Final = 10
WORST_AGE: Final = Asked(
    name="tenterhook_queue_worst_age_seconds", unit="seconds", services=("dispatcher",), labels=(INTEGRATION,),
    meaning=f"The age of the integrations where it is longest, from {WORST_AGE_S:.0f} s on.",
)  # fmt: skip
WORST_DEPTH: Final = Asked(
    name="tenterhook_queue_worst_depth_deliveries", unit="deliveries", services=("dispatcher",), labels=(INTEGRATION,),
    meaning=f"The depth of the integrations where it is largest, from {WORST_DEPTH_DELIVERIES} on.",
)  # fmt: skip
HELD: Final = Asked(
    name="tenterhook_held_deliveries", unit="deliveries", services=("dispatcher",),
    meaning="Deliveries held since their integration is paused.",
)  # fmt: skip
HELD_INTEGRATIONS: Final = Asked(
    name="tenterhook_held_integrations", unit="integrations", services=("dispatcher",),
    meaning="Paused integrations that deliveries are held for.",
)  # fmt: skip
HELD_OLDEST: Final = Asked(
    name="tenterhook_held_oldest_seconds", unit="seconds", services=("dispatcher",),
    meaning="How long the oldest of them has been on the log, which keeps it for seven days.",
)  # fmt: skip
DETACHED: Final = Asked(
    name="tenterhook_detached_integrations", unit="integrations", services=("dispatcher",), labels=(DETACHED_FOR,),
    meaning="Integrations that are a cursor on the log: see docs/why/detached-lines.md.",
)  # fmt: skip
BACKLOG: Final = Asked(
    name="tenterhook_detached_backlog_deliveries", unit="deliveries", services=("dispatcher",),
    meaning="Deliveries behind the cursors of those that are not paused.",
)  # fmt: skip
SHARED_BACKLOG: Final = Asked(
    name="tenterhook_detached_backlog_shared_deliveries", unit="deliveries", services=("dispatcher",),
    meaning="Of those, what further dispatchers can help with: at most 1,000 of an integration, and none of one that"
    " is failing or blocked.",
)  # fmt: skip
RETRIES_WAITING: Final = Asked(
    name="tenterhook_retries_waiting_deliveries", unit="deliveries", services=("dispatcher",), labels=(LINE,),
    meaning="Deliveries on this process's partitions of a retry topic.",
)  # fmt: skip
RETRY_OVERDUE: Final = Asked(
    name="tenterhook_dispatcher_retry_overdue_seconds", unit="seconds", services=("dispatcher",), labels=(LINE,),
    meaning="Lateness of the delivery that should leave a retry topic first.",
)  # fmt: skip
KEPT_RETRIES: Final = Asked(
    name="tenterhook_retries_waiting_in_line_deliveries", unit="deliveries", services=("dispatcher",),
    meaning="Deliveries that keep their place until their next attempt, under `strict` and `key`, or sooner than any"
    " retry topic would take; those of integrations that are paused apart.",
)  # fmt: skip
KEPT_OVERDUE: Final = Asked(
    name="tenterhook_dispatcher_retry_in_line_overdue_seconds", unit="seconds", services=("dispatcher",),
    meaning="Lateness of the most overdue of those. Under `key` one waits for a request of its own to be free, too.",
)  # fmt: skip

# -- breaker -------------------------------------------------------------------------------------------------

INTEGRATIONS: Final = Asked(
    name="tenterhook_integrations", unit="integrations", services=("breaker",), labels=(STANDS,),
    meaning="Integrations of all apps by state; each breaker says the same.",
)  # fmt: skip
TURNED: Final = Counter(
    name="tenterhook_breaker_turned_total", unit="integrations", services=("breaker",), labels=(TURN,),
    meaning="Integrations that failed attempts have turned.",
)  # fmt: skip
BREAKER_ROWS: Final = Asked(
    name="tenterhook_breaker_rows", unit="integrations", services=("breaker",),
    meaning="Integrations whose attempts this process counts.",
)  # fmt: skip
BREAKER_RECORDS: Final = Asked(
    name="tenterhook_breaker_unfinished_records", unit="records", services=("breaker",),
    meaning="Results taken and not finished.",
)  # fmt: skip
BREAKER_BYTES: Final = Asked(
    name="tenterhook_breaker_unfinished_bytes", unit="bytes", services=("breaker",),
    meaning="Their bytes.",
)  # fmt: skip
BREAKER_RESULTS: Final = Asked(
    name="tenterhook_breaker_results_total", unit="results", services=("breaker",), is_counter=True,
    meaning="Results folded.",
)  # fmt: skip
BREAKER_UNREADABLE: Final = Asked(
    name="tenterhook_breaker_unreadable_total", unit="records", services=("breaker",), is_counter=True,
    meaning="Records of delivery-results passed over, since they could not be read.",
)  # fmt: skip

# -- admin: the delivery history -----------------------------------------------------------------------------

HISTORY_FOLDED: Final = Counter(
    name="tenterhook_history_folded_total", unit="records", services=("admin",),
    meaning="Records of delivery-results that the delivery history took in.",
)  # fmt: skip
HISTORY_UNREADABLE: Final = Counter(
    name="tenterhook_history_unreadable_total", unit="records", services=("admin",),
    meaning="Records of delivery-results that it could not read.",
)  # fmt: skip
HISTORY_LAG: Final = Asked(
    name="tenterhook_history_lag_records", unit="records", services=("admin",),
    meaning="Records of delivery-results that are not in it, as of some seconds ago.",
)  # fmt: skip
HISTORY_FOLLOWING: Final = Asked(
    name="tenterhook_history_following", unit="boolean", services=("admin",),
    meaning="1 while results go into it; 0 while the broker or its disk is away.",
)  # fmt: skip

DECLARED: Final[tuple[Metric, ...]] = tuple(found for found in globals().values() if isinstance(found, Metric))

EXPOSED: Final[Exposed] = expose(DECLARED)

begin = EXPOSED.begin
answering = EXPOSED.answering


def _of_the_process() -> list[Sample]:
    """What every process knows of its brokers and of what it put aside."""
    return [
        BROKER_ANSWERED.of(ANSWERS.answered_s),
        BROKER_APPENDED.of(ANSWERS.appended_s),
        *(BROKER_FAILED.of(count, api) for api, count in ANSWERS.failed.items()),
        *(QUARANTINED.of(PUT_ASIDE[code], code) for code in PUT_ASIDE_CODE.values),
        QUARANTINED.of(sum(PUT_ASIDE[code] for code in PUT_ASIDE.keys() - set(PUT_ASIDE_CODE.values)), OTHER),
    ]


EXPOSED.always(_of_the_process)
