"""
Grafana's dashboards, written from what stands here: `make dashboards`.

A panel is a title, a unit, its queries, and what it means where the title does not say it. Queries ask for metrics of
`docs/metrics.md` alone, which a test holds them to.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parent

#: Grafana's grid is 24 wide: three panels a row.
WIDTH, HEIGHT = 8, 8


class Panel(NamedTuple):
    title: str
    unit: str
    #: What each line is called (Grafana fills in labels), and its query.
    queries: dict[str, str]
    description: str = ""
    kind: str = "timeseries"


def quantiles(histogram: str) -> dict[str, str]:
    """Its median, 90 % and 99 %."""
    buckets = f"sum by (le) (rate({histogram}_bucket[$__rate_interval]))"
    return {
        name: f"histogram_quantile({share}, {buckets})" for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    }


def rate(metric: str, *by: str) -> str:
    """Of all processes, a second."""
    grouped = f" by ({', '.join(by)}) " if by else ""
    return f"sum{grouped}(rate({metric}[$__rate_interval]))"


OVERVIEW: Final = {
    "Now": [
        Panel("Live", "none", {"{{service}} {{instance}}": "tenterhook_live"}, "1: makes progress.", "stat"),
        Panel("Ready", "none", {"{{service}} {{instance}}": "tenterhook_ready"}, "1: caught up.", "stat"),
        Panel(
            "Integrations",
            "short",
            {"{{state}}": "max by (state) (tenterhook_integrations)"},
            "By what the breaker says of them, or that a person has paused them.",
            "stat",
        ),
    ],
    "Events": [
        Panel(
            "Events accepted",
            "cps",
            {"accepted": rate("tenterhook_ingest_accepted_total"), "repeats": rate("tenterhook_ingest_repeated_total")},
        ),
        Panel("Events refused", "cps", {"{{code}}": rate("tenterhook_ingest_refused_total", "code")}),
        Panel("Stored within", "s", quantiles("tenterhook_ingest_append_seconds")),
        Panel(
            "Fanned out",
            "cps",
            {
                "events": rate("tenterhook_fan_out_events_total"),
                "deliveries": rate("tenterhook_fan_out_deliveries_total"),
                "repeats": rate("tenterhook_fan_out_repeats_total"),
            },
        ),
        Panel("Fanned out within", "s", quantiles("tenterhook_fan_out_age_seconds")),
        Panel(
            "Answers of ingest and admin",
            "reqps",
            {"{{service}} {{status}}": rate("tenterhook_http_requests_total", "service", "status")},
        ),
    ],
    "Deliveries": [
        Panel("Results", "cps", {"{{outcome}}": rate("tenterhook_attempts_total", "outcome")}),
        Panel("Results by status", "cps", {"{{status}}": rate("tenterhook_attempts_total", "status")}),
        Panel(
            "Attempts without an answer", "cps", {"{{reason}}": rate("tenterhook_attempts_unanswered_total", "reason")}
        ),
        Panel(
            "Integrations without an answer",
            "short",
            {"{{instance}}": "tenterhook_unanswered_integrations"},
            "Whose newest attempt got none, within a quarter of an hour.",
        ),
        Panel("An attempt takes", "s", quantiles("tenterhook_attempt_seconds")),
        Panel(
            "First attempt starts after", "s", quantiles("tenterhook_delivery_delay_seconds"), "What was held counts."
        ),
        Panel("Requests in flight", "short", {"{{instance}}": "tenterhook_dispatcher_in_flight"}),
    ],
    "What waits": [
        Panel(
            "Age of the oldest in line",
            "s",
            {"{{percentile}} %": "max by (percentile) (tenterhook_queue_age_seconds)"},
            "Over integrations that have something to do, and neither fail nor are paused; the worst dispatcher's.",
        ),
        Panel("Age: the worst ten", "s", {"{{integration}}": "topk(10, tenterhook_queue_worst_age_seconds)"}),
        Panel(
            "Depth: the worst ten", "short", {"{{integration}}": "topk(10, tenterhook_queue_worst_depth_deliveries)"}
        ),
        Panel(
            "Waiting",
            "short",
            {
                "in line": "sum(tenterhook_queue_deliveries)",
                "of those, behind a cursor": "sum(tenterhook_detached_backlog_deliveries)",
                "of those, for further dispatchers": "sum(tenterhook_detached_backlog_shared_deliveries)",
                "held": "sum(tenterhook_held_deliveries)",
            },
        ),
        Panel(
            "Retries waiting",
            "short",
            {
                "{{line}}": "sum by (line) (tenterhook_retries_waiting_deliveries)",
                "in line": "sum(tenterhook_retries_waiting_in_line_deliveries)",
            },
        ),
        Panel(
            "Retries overdue",
            "s",
            {
                "{{line}}": "max by (line) (tenterhook_dispatcher_retry_overdue_seconds)",
                "in line": "max(tenterhook_dispatcher_retry_in_line_overdue_seconds)",
            },
        ),
        Panel(
            "Held: the oldest",
            "s",
            {"oldest": "max(tenterhook_held_oldest_seconds)"},
            "The log keeps deliveries for seven days.",
        ),
        Panel(
            "Turned by the breaker",
            "short",
            {"to {{to}}": "sum by (to) (increase(tenterhook_breaker_turned_total[$__rate_interval]))"},
        ),
        Panel(
            "Put aside",
            "short",
            {"{{code}}": "sum by (code) (increase(tenterhook_quarantined_total[$__rate_interval]))"},
        ),
        Panel(
            "Configuration that cannot be read",
            "short",
            {"{{topic}}": "max by (topic) (tenterhook_config_unreadable_records)"},
        ),
    ],
}

INSIDE: Final = {
    "Brokers": [
        Panel(
            "Answered",
            "s",
            {"{{instance}}": "time() - tenterhook_broker_answered_timestamp_seconds"},
            "Seconds since a broker answered this process; up to five where nothing happens.",
        ),
        Panel(
            "Appended",
            "s",
            {"{{instance}}": "time() - (tenterhook_broker_appended_timestamp_seconds > 0)"},
            "Seconds since an append of this process was taken.",
        ),
        Panel(
            "Requests failed",
            "reqps",
            {"{{instance}} {{api}}": rate("tenterhook_broker_requests_failed_total", "instance", "api")},
        ),
        Panel(
            "Given to the broker, not acknowledged", "bytes", {"{{instance}}": "tenterhook_ingest_unacknowledged_bytes"}
        ),
    ],
    "Consumer groups": [
        Panel("Not taken", "short", {"{{group}} {{topic}}": "sum by (group, topic) (tenterhook_group_lag_records)"}),
        Panel(
            "Partitions",
            "short",
            {"{{instance}} {{topic}}": "sum by (instance, topic) (tenterhook_group_partitions)"},
        ),
        Panel(
            "Rebalances",
            "short",
            {"{{group}}": "sum by (group) (increase(tenterhook_group_rebalances_total[$__rate_interval]))"},
        ),
        Panel(
            "Stuck or stopped partitions",
            "short",
            {
                "{{group}} stuck": "sum by (group) (tenterhook_group_stuck_partitions)",
                "{{group}} stopped": "sum by (group) (tenterhook_group_stopped_partitions)",
            },
        ),
        Panel(
            "Taken, not finished",
            "short",
            {
                "dispatcher {{instance}}": "tenterhook_dispatcher_unfinished_records",
                "breaker {{instance}}": "tenterhook_breaker_unfinished_records",
            },
        ),
        Panel(
            "Their bytes",
            "bytes",
            {
                "dispatcher {{instance}}": "tenterhook_dispatcher_unfinished_bytes",
                "breaker {{instance}}": "tenterhook_breaker_unfinished_bytes",
            },
        ),
    ],
    "Lines": [
        Panel(
            "Depth of line",
            "short",
            {"{{percentile}} %": "max by (percentile) (tenterhook_queue_depth_deliveries)"},
        ),
        Panel(
            "Integrations in line",
            "short",
            {"{{instance}}": "tenterhook_queue_integrations"},
            "Those that deliveries wait for, and that neither fail nor are paused.",
        ),
        Panel("Detached", "short", {"{{reason}}": "sum by (reason) (tenterhook_detached_integrations)"}),
        Panel(
            "Held for",
            "short",
            {"integrations": "sum(tenterhook_held_integrations)"},
        ),
        Panel("Replays", "short", {"running": "sum(tenterhook_dispatcher_replays)"}),
    ],
    "Breaker and history": [
        Panel(
            "Results folded",
            "cps",
            {"breaker": rate("tenterhook_breaker_results_total"), "history": rate("tenterhook_history_folded_total")},
        ),
        Panel(
            "Results that could not be read",
            "short",
            {
                "breaker": "sum(tenterhook_breaker_unreadable_total)",
                "history": "sum(tenterhook_history_unreadable_total)",
            },
        ),
        Panel("Integrations counted", "short", {"{{instance}}": "tenterhook_breaker_rows"}),
        Panel("Not in the history", "short", {"{{instance}}": "tenterhook_history_lag_records"}),
        Panel("History is followed", "none", {"{{instance}}": "tenterhook_history_following"}, "", "stat"),
        Panel("Requests take", "s", quantiles("tenterhook_http_request_seconds")),
    ],
    "Processes": [
        Panel(
            "Event loop is late, 99 %",
            "s",
            {
                "{{instance}}": "histogram_quantile(0.99, sum by (instance, le) "
                "(rate(tenterhook_event_loop_lag_seconds_bucket[$__rate_interval])))"
            },
        ),
        Panel("CPU", "percentunit", {"{{instance}}": rate('process_cpu_seconds_total{job="tenterhook"}', "instance")}),
        Panel("Memory", "bytes", {"{{instance}}": 'process_resident_memory_bytes{job="tenterhook"}'}),
    ],
    "Traces": [
        Panel(
            "Spans taken by the collector",
            "short",
            {"{{instance}}": rate("tenterhook_trace_spans_exported_total", "instance")},
        ),
        Panel(
            "Spans dropped",
            "short",
            {
                "{{instance}} {{reason}}": "sum by (instance, reason)"
                " (increase(tenterhook_trace_spans_dropped_total[$__rate_interval]))"
            },
        ),
    ],
}

DASHBOARDS: Final = {
    "tenterhook": ("Tenterhook", OVERVIEW),
    "tenterhook-inside": ("Tenterhook inside", INSIDE),
}


def dashboard(uid: str, title: str, rows: dict[str, list[Panel]]) -> dict[str, Any]:
    """As Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for heading, of_row in rows.items():
        place = {"h": 1, "w": 24, "x": 0, "y": y}
        panels.append({"id": len(panels) + 1, "type": "row", "title": heading, "gridPos": place, "collapsed": False})
        y += 1
        for number, each in enumerate(of_row):
            place = {"h": HEIGHT, "w": WIDTH, "x": number % 3 * WIDTH, "y": y + number // 3 * HEIGHT}
            panels.append(panel(len(panels) + 1, each, place))
        y += -(-len(of_row) // 3) * HEIGHT
    return {
        "uid": uid,
        "title": title,
        "tags": ["tenterhook"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
        "panels": panels,
    }


def panel(number: int, each: Panel, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number,
        "type": each.kind,
        "title": each.title,
        "description": each.description,
        "gridPos": place,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": each.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": source, "expr": query, "legendFormat": legend}
            for index, (legend, query) in enumerate(each.queries.items())
        ],
    }


def texts() -> dict[Path, str]:
    """Each file, and what is to stand in it."""
    return {
        FOLDER / f"{uid}.json": json.dumps(dashboard(uid, title, rows), indent=1) + "\n"
        for uid, (title, rows) in DASHBOARDS.items()
    }


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text, encoding="utf-8")
