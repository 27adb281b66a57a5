"""
The arithmetic of scale: from measured figures to partitions, processes, brokers, network, storage and cost.

Pure. Prints the tables of `docs/scale.md`, which a test holds to this: `python -m bench scale`. What is measured stands
in `bench/README.md`, and the same test looks for it there. Everything beyond one machine of two cores is extrapolated.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from services.dispatcher.fan_out import ENDS_REFRESH_S
from services.runtime.settings import PartitionSettings
from streams import topics
from streams.topics import DAY_MS, TOPICS, Partitions, partition_count

#: measured: on two cores, see `bench/README.md`. extrapolated: reckoned from it for more than was ever run. assumed:
#: about your load or your machines. chosen: by us, with the reason beside it. example: a price, to be replaced.
Kind = Literal["measured", "extrapolated", "assumed", "chosen", "example"]

RATES: Final = (1_000, 100_000, 1_000_000)

#: Fan-out stores an offset of each with every commit, and brokers take 4 KiB with one.
MOST_BY_INTEGRATION: Final = next(
    limit.le for limit in PartitionSettings.model_fields["by_integration"].metadata if hasattr(limit, "le")
)


@dataclass(frozen=True, slots=True)
class Given:
    """A number that the arithmetic starts from."""

    what: str
    value: float
    unit: str
    kind: Kind
    #: Where it comes from, for people; of what is measured, words that stand in `bench/README.md`.
    source: str


# -- what is measured ------------------------------------------------------------------------------------------------

DISPATCHER_MS: Final = Given(
    "dispatcher, in order", 0.434, "ms of CPU a delivery", "measured", "| dispatcher | 0.434 |"
)
DISPATCHER_NONE_MS: Final = Given(
    "dispatcher, `ordering: none`", 0.228, "ms of CPU a delivery", "measured", "| dispatcher | 0.434 | 0.228 |"
)
BROKER_MS: Final = Given(
    "broker of one node, in order", 0.316, "ms of CPU a delivery", "measured", "| broker | 0.316 |"
)
BREAKER_MS: Final = Given("breaker", 0.075, "ms of CPU a delivery", "measured", "| breaker | 0.075 |")
ADMIN_MS: Final = Given(
    "admin, which folds the history", 0.100, "ms of CPU a delivery", "measured", "| admin | 0.100 |"
)
INGEST_PER_S: Final = Given(
    "ingest, one process on one core", 5_946, "single posts/s", "measured", "single posts, 32 connections | **5,946**"
)
HISTORY_PER_S: Final = Given(
    "history, one admin process", 8_992, "results folded/s", "measured", "1,000,000 results folded at 8,992/s"
)
HISTORY_BYTES: Final = Given(
    "history on disk", 789, "bytes a result", "measured", "8,992/s (105 µs of CPU each), 789 MB"
)
FAN_OUT_PER_S: Final = Given(
    "events through one partition of `events`, 3 deliveries each",
    5_355 / 3,
    "events/s",
    "measured",
    "deliveries/s | **5,355**",
)
LINE_PER_S: Final = Given(
    "one line in order, endpoint on the same machine",
    495,
    "deliveries/s",
    "measured",
    "deliveries/s | **5,355** (4,050; 3,326) | **1,485**",
)
INTEGRATION_BYTES: Final = Given("an integration in memory", 2_832, "bytes", "measured", "2,832 bytes of memory")
REQUEST_BYTES: Final = Given(
    "a request to ingest, 1 KiB of payload", 1_240, "bytes", "measured", "A request to ingest is 1,240 bytes"
)
READ_BACK_PER_S: Final = Given(
    "records of `deliveries` that a takeover reads back",
    50_000,
    "records/s",
    "extrapolated",
    "the decoding's cost, in `services/dispatcher/fan_out.py`; not measured beside a load",
)


@dataclass(frozen=True, slots=True)
class Written:
    """What a delivery leaves on a topic."""

    topic: topics.Topic
    #: Bytes a delivery on disk, three integrations an event.
    bytes: float
    #: Batches a delivery, which bounds the produce requests.
    batches: float
    #: Services that read it all, each process of admin counted.
    readers: int


#: In order, one run of `python -m bench sizes`.
WRITTEN: Final = (
    Written(topics.EVENTS, 384.3, 0.021, 1),
    Written(topics.FAN_OUT, 78.4, 0.002, 0),
    Written(topics.DELIVERIES, 1_269.0, 0.007, 1),
    Written(topics.RESULTS, 617.0, 0.715, 3),
)

# -- what is assumed and chosen --------------------------------------------------------------------------------------

FAN_OUT: Final = Given("integrations that get an event", 3, "", "assumed", "as in every run of `bench`")
ATTEMPTS: Final = Given("attempts a delivery", 1.05, "", "assumed", "one in twenty is tried a second time")
BUSY: Final = Given(
    "a process is planned to be busy",
    0.5,
    "of a core",
    "chosen",
    "the rest is for bursts, and for the work of one that died",
)
HISTORY_BUSY: Final = Given(
    "the history is planned to fold",
    0.75,
    "of what it can",
    "chosen",
    "it reads on behind a burst; nobody waits for it",
)
HEADROOM: Final = Given(
    "partitions for each process planned", 2, "", "chosen", "the count never changes: room for twice as many processes"
)
REPLICAS: Final = Given("replicas of every topic", 3, "", "chosen", "what a start makes on three brokers or more")
DISK_MB_S: Final = Given(
    "writes that a broker takes, replicas included", 100, "MB/s", "assumed", "a broker of 8 cores with a network disk"
)
BROKER_CORES: Final = Given("cores of a broker", 8, "", "assumed", "2 are enough for the first 1,000/s")
BROKER_REPLICAS: Final = Given(
    "partition replicas that a broker holds", 4_000, "", "assumed", "what Kafka's makers advise at most"
)
CROSS: Final = Given(
    "requests to a broker in another zone",
    2 / 3,
    "of them",
    "assumed",
    "three zones, and no client asks for its own (`client.rack` is not set)",
)
DELIVERY_REQUEST_BYTES: Final = Given(
    "a delivery's request, signed", 1_900, "bytes", "assumed", "1 KiB of payload, envelope 180, headers 700"
)

PRICES: Final = {
    "core": Given("a core for an hour", 0.04, "", "example", ""),
    "disk": Given("a GB of disk for a month", 0.08, "", "example", ""),
    "zone": Given("a GB from zone to zone", 0.02, "", "example", "both sides together"),
    "out": Given("a GB to the internet", 0.08, "", "example", ""),
}

GIVEN: Final = (
    DISPATCHER_MS, DISPATCHER_NONE_MS, BROKER_MS, BREAKER_MS, ADMIN_MS, INGEST_PER_S, HISTORY_PER_S, HISTORY_BYTES,
    FAN_OUT_PER_S, LINE_PER_S, INTEGRATION_BYTES, REQUEST_BYTES, READ_BACK_PER_S, FAN_OUT, ATTEMPTS, BUSY, HISTORY_BUSY,
    HEADROOM, REPLICAS, DISK_MB_S, BROKER_CORES, BROKER_REPLICAS, CROSS, DELIVERY_REQUEST_BYTES,
)  # fmt: skip


# -- one installation ------------------------------------------------------------------------------------------------


def most_per_installation() -> int:
    """Deliveries a second that one installation is planned for at most: what one history folds, in whole thousands."""
    return math.floor(HISTORY_PER_S.value * HISTORY_BUSY.value / ATTEMPTS.value / 1_000) * 1_000


@dataclass(frozen=True, slots=True)
class Installation:
    """One installation at this rate: its processes and the partitions that they take."""

    per_s: float

    @property
    def dispatchers(self) -> int:
        """Two at least, as of everything, so that one may die."""
        return _processes(self.per_s * DISPATCHER_MS.value / 1_000)

    @property
    def ingests(self) -> int:
        return _processes(self.per_s / FAN_OUT.value / INGEST_PER_S.value)

    @property
    def breakers(self) -> int:
        return _processes(self.per_s * BREAKER_MS.value / 1_000)

    @property
    def admins(self) -> int:
        """Each folds the whole history, so that more of them do not help it."""
        return 2

    @property
    def processes(self) -> int:
        return self.dispatchers + self.ingests + self.breakers + self.admins

    @property
    def history(self) -> float:
        """Of what one process can fold."""
        return self.per_s * ATTEMPTS.value / HISTORY_PER_S.value

    @property
    def partitions(self) -> Partitions:
        """The counts that this rate asks for, powers of two."""
        events_per_s = self.per_s / FAN_OUT.value
        return Partitions(
            by_app=_power(HEADROOM.value * events_per_s / (FAN_OUT_PER_S.value * BUSY.value)),
            by_integration=_power(HEADROOM.value * self.dispatchers),
        )

    @property
    def read_back_s(self) -> float:
        """Seconds that a dispatcher reads at a takeover, of what the others have appended since it last asked."""
        return self.per_s * ENDS_REFRESH_S / READ_BACK_PER_S.value


def replicas_of(partitions: Partitions) -> int:
    """Partition replicas of one installation, over all its topics."""
    return int(sum(partition_count(topic, partitions) for topic in TOPICS) * REPLICAS.value)


def markers_of(partitions: Partitions) -> int:
    """Records that fan-out writes when all partitions are assigned anew."""
    return partitions.by_app * partitions.by_integration


# -- a delivery ------------------------------------------------------------------------------------------------------


def times(written: Written) -> float:
    """How often it is written for a delivery, its second attempts included."""
    return ATTEMPTS.value if written.topic in {topics.DELIVERIES, topics.RESULTS} else 1.0


def retry_bytes() -> float:
    """On the retry topics: what waits is the delivery as it was."""
    return (ATTEMPTS.value - 1) * next(each.bytes for each in WRITTEN if each.topic is topics.DELIVERIES)


def produced_bytes() -> float:
    """A delivery's, to the leaders."""
    return sum(each.bytes * times(each) for each in WRITTEN) + retry_bytes()


def fetched_bytes() -> float:
    """A delivery's, by all readers."""
    return sum(each.bytes * times(each) * each.readers for each in WRITTEN) + retry_bytes()


def replicated_bytes() -> float:
    """A delivery's, from leaders to followers."""
    return produced_bytes() * (REPLICAS.value - 1)


def cross_zone_bytes() -> float:
    """A delivery's. Each replica is in a zone of its own."""
    return (produced_bytes() + fetched_bytes()) * CROSS.value + replicated_bytes()


def kept_byte_days() -> float:
    """A delivery's: bytes times the days that they stay, all replicas."""
    kept = sum(each.bytes * times(each) * _days(each.topic) for each in WRITTEN)
    return (kept + retry_bytes() * _days(topics.RETRIES[0])) * REPLICAS.value


def gb_months() -> float:
    """A million deliveries', on the log and in two histories of 30 days."""
    histories = 2 * HISTORY_BYTES.value * ATTEMPTS.value * 30
    return (kept_byte_days() + histories) / 30 * 1e6 / 1e9


# -- everything at a rate --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """So many deliveries a second, day and night, in as few installations as it takes."""

    per_s: int

    @property
    def installations(self) -> int:
        return math.ceil(self.per_s / most_per_installation())

    @property
    def each(self) -> Installation:
        return Installation(self.per_s / self.installations)

    @property
    def services_cores(self) -> int:
        """A process has one event loop, and so one core."""
        return self.installations * self.each.processes

    @property
    def partitions(self) -> Partitions:
        """The defaults, which are those of an installation that is full."""
        return Partitions()

    @property
    def brokers(self) -> int:
        return max(3, *self.brokers_by.values())

    @property
    def brokers_by(self) -> dict[str, int]:
        """How many each limit asks for."""
        return {
            "disk": math.ceil(self.per_s * (produced_bytes() + replicated_bytes()) / (DISK_MB_S.value * 1e6)),
            # Followers write the same batches again, and do not answer for them: as dear as the leader at most.
            "CPU": math.ceil(self.per_s * BROKER_MS.value * REPLICAS.value / 1_000 / (BROKER_CORES.value * BUSY.value)),
            "replicas": math.ceil(self.installations * replicas_of(self.partitions) / BROKER_REPLICAS.value),
        }

    @property
    def broker_cores(self) -> int:
        """Three brokers of two cores carry the first thousand."""
        return 3 * 2 if self.per_s <= RATES[0] else int(self.brokers * BROKER_CORES.value)

    @property
    def kept_tb(self) -> float:
        return self.per_s * 86_400 * kept_byte_days() / 1e12

    def cost(self) -> dict[str, float]:
        """Of a million deliveries, at the example prices."""
        per_gb = 1e6 / 1e9
        hours = 1e6 / self.per_s / 3_600
        return {
            "cores": (self.services_cores + self.broker_cores) * hours * PRICES["core"].value,
            "disk": gb_months() * PRICES["disk"].value,
            "zones": cross_zone_bytes() * per_gb * PRICES["zone"].value,
            "internet": DELIVERY_REQUEST_BYTES.value * ATTEMPTS.value * per_gb * PRICES["out"].value,
        }


def _processes(cores: float) -> int:
    return max(2, math.ceil(cores / BUSY.value))


def _power(least: float) -> int:
    return 1 << max(0, math.ceil(math.log2(least)))


def _days(topic: topics.Topic) -> float:
    return (topic.retention_ms or 0) / DAY_MS


# -- tables ----------------------------------------------------------------------------------------------------------

Row = tuple[str, ...]


def tables() -> dict[str, list[str]]:
    """Every table of `docs/scale.md` as lines of Markdown, by the heading that it stands under."""
    plans = [Plan(each) for each in RATES]
    heads = tuple(f"{each:,}/s" for each in RATES)
    return {
        "What it starts from": _table(("figure", "value", "kind", "where from"), map(_given_row, GIVEN)),
        "What a delivery leaves on the log": _table(
            (
                "topic",
                "bytes a delivery",
                "batches a delivery",
                "kept, days",
                "GB-months a million, 3 replicas",
                "kind",
            ),
            _written_rows(),
        ),
        "One installation": _table(
            ("deliveries/s in one installation", *(f"{each:,}" for each in ONE), "kind"),
            _one_rows([Installation(each) for each in ONE]),
        ),
        "Three rates": _table(("deliveries", *heads, "kind"), _plan_rows(plans)),
        "Cost of a million deliveries": _table(("a million at", *heads, "kind"), _cost_rows(plans)),
        "One line": _table(("the endpoint answers in", "in order, deliveries/s", "kind"), _line_rows()),
    }


#: One installation at these rates: what it is planned for, and what is wrong with more.
ONE: Final = (1_000, 6_000, 100_000, 1_000_000)

#: An endpoint's own time.
ANSWER_MS: Final = (0, 10, 50, 200, 1_000)


def _given_row(given: Given) -> Row:
    words = "`bench/README.md`" if given.kind == "measured" else given.source
    return given.what, f"{_number(given.value, digits=3)} {given.unit}".rstrip(), given.kind, words


def _written_rows() -> Iterable[Row]:
    for each in WRITTEN:
        kept = each.bytes * times(each) * _days(each.topic) * REPLICAS.value / 30 / 1_000
        yield (
            f"`{each.topic.name}`",
            f"{each.bytes:,.0f}",
            f"{each.batches:.3f}",
            f"{_days(each.topic):.0f}",
            f"{kept:.2f}",
            "measured; kept: extrapolated",
        )
    kept = retry_bytes() * _days(topics.RETRIES[0]) * REPLICAS.value / 30 / 1_000
    yield (
        "`retry.…`, one in twenty",
        f"{retry_bytes():,.0f}",
        "",
        f"{_days(topics.RETRIES[0]):.0f}",
        f"{kept:.2f}",
        "assumed",
    )
    yield (
        "together",
        f"{produced_bytes():,.0f}",
        "",
        "",
        f"{kept_byte_days() / 30 / 1_000:.2f}",
        "second attempts included",
    )


def _one_rows(each: Sequence[Installation]) -> Iterable[Row]:
    wanted = [one.partitions for one in each]
    yield _row("dispatchers", (f"{one.dispatchers:,}" for one in each), "extrapolated above 2")
    yield _row("partitions of `events` that it asks for", (f"{count.by_app:,}" for count in wanted), "extrapolated")
    yield _row(
        f"of `deliveries` (at most {MOST_BY_INTEGRATION})",
        (f"{count.by_integration:,}" for count in wanted),
        "extrapolated",
    )
    yield _row("markers when all are assigned anew", (f"{markers_of(count):,}" for count in wanted), "exact")
    yield _row("a takeover reads back for", (f"{_number(one.read_back_s)} s" for one in each), "extrapolated")
    yield _row("results, of what one history folds", (f"{_number(one.history)} times" for one in each), "extrapolated")
    yield _row("so it can", ("yes" if one.history < 1 else "no" for one in each), "")


def _plan_rows(plans: Sequence[Plan]) -> Iterable[Row]:
    each = [plan.each for plan in plans]
    yield _row("installations", (f"{plan.installations:,}" for plan in plans), "extrapolated")
    yield _row("deliveries/s in each", (f"{one.per_s:,.0f}" for one in each), "")
    yield _row(
        "partitions in each: by app, by integration", (_counts(plan.partitions) for plan in plans), "the defaults"
    )
    yield _row("dispatchers in each", (f"{one.dispatchers:,}" for one in each), "extrapolated above 2")
    yield _row(
        "ingest, breaker, admin in each",
        (f"{one.ingests}, {one.breakers}, {one.admins}" for one in each),
        "extrapolated",
    )
    yield _row("cores of all services", (f"{plan.services_cores:,}" for plan in plans), "extrapolated")
    yield _row("written to leaders", (_rate(plan.per_s * produced_bytes()) for plan in plans), "extrapolated")
    yield _row(
        "written to disks",
        (_rate(plan.per_s * (produced_bytes() + replicated_bytes())) for plan in plans),
        "extrapolated",
    )
    yield _row("read from brokers", (_rate(plan.per_s * fetched_bytes()) for plan in plans), "extrapolated")
    yield _row("from zone to zone", (_rate(plan.per_s * cross_zone_bytes()) for plan in plans), "extrapolated")
    yield _row(
        "to ingest, over HTTP",
        (_rate(plan.per_s / FAN_OUT.value * REQUEST_BYTES.value) for plan in plans),
        "extrapolated",
    )
    yield _row(
        "to endpoints, over HTTP",
        (_rate(plan.per_s * ATTEMPTS.value * DELIVERY_REQUEST_BYTES.value) for plan in plans),
        "assumed",
    )
    for limit in plans[0].brokers_by:
        yield _row(f"brokers, for their {limit}", (f"{plan.brokers_by[limit]:,}" for plan in plans), "extrapolated")
    yield _row("brokers", (f"**{plan.brokers:,}**" for plan in plans), "extrapolated, at least 3")
    yield _row("disk, all replicas", (_size(plan.kept_tb) for plan in plans), "extrapolated")
    yield _row(
        "disk of each history, 30 days",
        (_size(one.per_s * ATTEMPTS.value * HISTORY_BYTES.value * 86_400 * 30 / 1e12) for one in each),
        "extrapolated",
    )


def _cost_rows(plans: Sequence[Plan]) -> Iterable[Row]:
    hours = [1e6 / plan.per_s / 3_600 for plan in plans]
    costs = [plan.cost() for plan in plans]
    cores = [plan.services_cores + plan.broker_cores for plan in plans]
    yield _row(
        "core-hours, services and brokers",
        (f"{each * hour:.2f}" for each, hour in zip(cores, hours, strict=True)),
        "extrapolated",
    )
    yield _row("GB-months of disk, log and two histories", (f"{gb_months():.1f}" for _ in plans), "extrapolated")
    yield _row("GB from zone to zone", (f"{cross_zone_bytes() / 1_000:.1f}" for _ in plans), "extrapolated")
    yield _row(
        "GB to the internet", (f"{DELIVERY_REQUEST_BYTES.value * ATTEMPTS.value / 1_000:.1f}" for _ in plans), "assumed"
    )
    for name, what in _COSTS.items():
        price = PRICES[what[1]].value
        yield _row(f"{what[0]}, at {price} {what[2]}", (f"{cost[name]:.2f}" for cost in costs), "example")
    yield _row("together", (f"**{sum(cost.values()):.2f}**" for cost in costs), "example")


#: What costs, the price of one, and of what.
_COSTS: Final = {
    "cores": ("cores", "core", "a core-hour"),
    "disk": ("disk", "disk", "a GB-month"),
    "zones": ("between zones", "zone", "a GB"),
    "internet": ("to the internet", "out", "a GB"),
}


def _line_rows() -> Iterable[Row]:
    own_ms = 1_000 / LINE_PER_S.value
    for answer_ms in ANSWER_MS:
        kind = "extrapolated" if answer_ms else "measured"
        what = f"{answer_ms:,} ms" if answer_ms else "no time"
        yield what, f"{1_000 / (own_ms + answer_ms):,.0f}", kind


def _table(head: Row, rows: Iterable[Row]) -> list[str]:
    return [_line(head), _line(("---",) * len(head)), *map(_line, rows)]


def _line(cells: Row) -> str:
    return "| " + " | ".join(cells) + " |"


def _row(what: str, cells: Iterable[str], kind: str) -> Row:
    return what, *cells, kind


def _counts(partitions: Partitions) -> str:
    return f"{partitions.by_app}, {partitions.by_integration}"


def _number(value: float, digits: int = 2) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.{digits}g}"


def _rate(bytes_per_s: float) -> str:
    return f"{_number(bytes_per_s / 1e6)} MB/s" if bytes_per_s < 1e9 else f"{_number(bytes_per_s / 1e9)} GB/s"


def _size(tb: float) -> str:
    return f"{_number(tb)} TB" if tb < 1_000 else f"{_number(tb / 1_000)} PB"
