"""
Alerts, by promtool: each fires on its fault, when it says, and nothing else does.

A fault is what it changes in the numbers of an installation where all is well; `tests/e2e/test_alerts.py` makes real
ones.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest
import yaml
from prometheus_client import generate_latest

from services.dispatcher.queues import Queue, samples
from services.runtime import metrics
from services.runtime.metric import Exposed
from tests.prometheus import ALERTS, needs_prometheus

pytestmark = needs_prometheus

RULES = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
NAMES = [rule["alert"] for rule in RULES if "alert" in rule]

#: Of the samples below: one every 15 s for two hours.
EVERY_S, SAMPLES = 15, 480

RUNBOOKS = "https://docs.example/"

SERVICES = ("ingest", "admin", "dispatcher", "breaker")


def at(instance, **labels):
    """Labels of a series of that process."""
    return "{" + ",".join(f'{k}="{v}"' for k, v in {"job": "tenterhook", "instance": instance, **labels}.items()) + "}"


def always(value):
    return f"{value}x{SAMPLES}"


def from_half_an_hour(before, after):
    """Values up to 30 minutes, and from then on."""
    return f"{before}x119 {after}x{SAMPLES - 120}"


def rising(by):
    return f"0+{by}x{SAMPLES}"


def told_of(*lines, by="dispatcher"):
    """
    What a dispatcher shows of its lines; of integrations that have nothing to do there are none.

    Args:
        lines: how many deliveries wait, and for how many seconds the oldest has.
        by: which one.
    """
    now_ms = 10**9
    queues = [Queue(f"int_{n}", depth, now_ms - age_s * 1_000, False, None) for n, (depth, age_s) in enumerate(lines)]
    found = {}
    for metric, values, value in samples(queues, lambda _: False, now_ms):
        if metric in {metrics.QUEUE_AGE, metrics.QUEUED_INTEGRATIONS}:
            labels = zip((each.name for each in metric.labels), values, strict=True)
            found[f"{metric.name}{at(by, **dict(labels))}"] = value
    return found


def from_then_on(before, after, by="dispatcher"):
    """What a dispatcher shows of these lines for half an hour, and then of others."""
    first = told_of(*before, by=by)
    return {name: from_half_an_hour(first[name], value) for name, value in told_of(*after, by=by).items()}


def well():
    """All is well, with some of what is well, too: refusals, a slow endpoint, held deliveries, one that is paused."""
    series = {}
    for service in SERVICES:
        series |= {
            f"up{at(service)}": always(1),
            f"tenterhook_live{at(service, service=service)}": always(1),
            f"tenterhook_ready{at(service, service=service)}": always(1),
            f"tenterhook_broker_answered_timestamp_seconds{at(service)}": rising(EVERY_S),
        }
    for code in metrics.PUT_ASIDE_CODE.values:
        series[f"tenterhook_quarantined_total{at('dispatcher', code=code)}"] = always(0)
    return series | {
        f"tenterhook_http_requests_total{at('ingest', service='ingest', status='2xx')}": rising(1_000),
        f"tenterhook_http_requests_total{at('ingest', service='ingest', status='4xx')}": rising(500),
        f"tenterhook_http_requests_total{FAILED}": always(3),
        f"tenterhook_ingest_accepted_total{at('ingest')}": rising(1_000),
        f"tenterhook_ingest_refused_total{at('ingest', code='key_missing')}": rising(500),
        f"tenterhook_ingest_refused_total{at('ingest', code='broker_unavailable')}": always(3),
        # Two endpoints are slow, and of the others none has anything to do at the moment.
        **{name: always(value) for name, value in told_of((9_000, 9_000), (20, 90)).items()},
        f"tenterhook_group_lag_records{at('dispatcher', group='dispatcher', topic='events')}": always(40),
        f"tenterhook_group_lag_records{at('dispatcher', group='dispatcher', topic='retry.20s')}": always(900_000),
        f"tenterhook_dispatcher_retry_overdue_seconds{at('dispatcher', line='retry.20s')}": always(0.01),
        f"tenterhook_attempts_total{at('dispatcher', outcome='delivered', status='2xx')}": rising(1_000),
        f"tenterhook_attempts_total{at('dispatcher', outcome='retry', status='none')}": rising(100),
        f"tenterhook_attempts_unanswered_total{at('dispatcher', reason='timeout')}": rising(100),
        f"tenterhook_unanswered_integrations{at('dispatcher')}": always(2),
        f"tenterhook_held_oldest_seconds{at('dispatcher')}": always(86_400),
        f"tenterhook_integrations{at('breaker', state='active')}": always(60),
        f"tenterhook_breaker_turned_total{at('breaker', to='paused')}": "0x100 1x100 2x280",
        f"tenterhook_group_lag_records{at('breaker', group='breaker', topic='delivery-results')}": always(10),
        f"tenterhook_breaker_unfinished_records{at('breaker')}": always(100),
        f"tenterhook_history_following{at('admin')}": always(1),
        f"tenterhook_history_lag_records{at('admin')}": always(50),
    }


class Fault(NamedTuple):
    """What begins after half an hour, and the alert that it is, with the labels that tell it apart."""

    #: None: no alert at all.
    alert: str | None
    changes: dict[str, str | None]
    labels: Mapping[str, str] = MappingProxyType({})
    #: Minutes after its beginning at which the alert is silent yet, and at which it fires.
    silent: int = 0
    fires: int = 15


#: Requests that ingest answers with 5xx.
FAILED = at("ingest", service="ingest", status="5xx")

#: Nothing gets an answer any more, whoever is asked.
NO_WAY_OUT = {
    f"tenterhook_attempts_total{at('dispatcher', outcome='delivered', status='2xx')}": "0+1000x119 119000x120",
    f"tenterhook_attempts_total{at('dispatcher', outcome='retry', status='none')}": "0+10x119 1190+1000x120",
    f"tenterhook_attempts_unanswered_total{at('dispatcher', reason='dns_failed')}": "0x119 0+1000x120",
}


def of_few(count, unanswered):
    """An installation with so few integrations, of which that many get no answer from then on; one more is paused."""
    return {
        f"tenterhook_integrations{at('breaker', state='active')}": always(count),
        f"tenterhook_integrations{at('breaker', state='paused_by_person')}": always(1),
        f"tenterhook_unanswered_integrations{at('dispatcher')}": from_half_an_hour(0, unanswered),
        **{name: always(value) for name, value in told_of((1, 0)).items()},
    }


def one_in(scrapes, times):
    """A counter that goes up at one in so many of that many scrapes."""
    return " ".join(str(1 + number // scrapes) for number in range(times))


def few_requests(well):
    """Next to nothing comes to ingest."""
    return {
        f"tenterhook_http_requests_total{at('ingest', service='ingest', status='2xx')}": well,
        f"tenterhook_http_requests_total{at('ingest', service='ingest', status='4xx')}": always(0),
    }


ON_HOLD = {f"tenterhook_broker_answered_timestamp_seconds{at(name)}": "0+15x119 1800x120" for name in SERVICES}

FAULTS = [
    Fault(
        "TenterhookDown",
        {
            f"up{at('breaker')}": from_half_an_hour(1, 0),
            **{f"tenterhook_{name}{at('breaker', service='breaker')}": "1x119 stale" for name in ("live", "ready")},
        },
        {"instance": "breaker", "job": "tenterhook"},
        fires=3,
    ),
    Fault(
        "TenterhookDown",
        {f"tenterhook_live{at('dispatcher', service='dispatcher')}": from_half_an_hour(1, 0)},
        {"instance": "dispatcher", "job": "tenterhook", "service": "dispatcher"},
        fires=3,
    ),
    Fault("TenterhookDown", {f"{name}{at('admin', **labels)}": "1x119 stale" for name, labels in
        {"up": {}, "tenterhook_live": {"service": "admin"}, "tenterhook_ready": {"service": "admin"}}.items()},
        {"service": "admin"}, fires=3),
    # With all that stops when the brokers are away: it is one thing.
    Fault(
        "TenterhookBrokerUnreachable",
        {
            **ON_HOLD,
            **{f"tenterhook_ready{at(name, service=name)}": "1x123 0x116" for name in SERVICES},
            f"tenterhook_http_requests_total{FAILED}": "0x123 0+100x116",
            **from_then_on([(1, 0)] * 3, [(40, 100)] * 3),
            f"tenterhook_dispatcher_retry_overdue_seconds{at('dispatcher', line='retry.20s')}": "0x123 0+15x116",
            f"tenterhook_history_following{at('admin')}": "1x123 0x116",
        },
        {"job": "tenterhook"},
        fires=25,
    ),
    Fault(
        "TenterhookAcceptingFails",
        {f"tenterhook_http_requests_total{FAILED}": "0x119 0+100x120"},
    ),
    Fault(
        "TenterhookAcceptingFails",
        {f"tenterhook_ingest_refused_total{at('ingest', code='broker_unavailable')}": "0x119 0+100x120"},
    ),
    Fault(
        "TenterhookAcceptingFails",
        {f"tenterhook_ready{at('ingest', service='ingest')}": from_half_an_hour(1, 0)},
    ),
    # Where a request comes each five minutes: one that failed, and several at once; and when all of them do.
    Fault(None, {**few_requests("0+0.05x480"), f"tenterhook_http_requests_total{FAILED}": "0x119 1x120"}, silent=1),
    Fault(None, {**few_requests("0+0.05x480"), f"tenterhook_http_requests_total{FAILED}": "0x119 4x120"}, silent=1),
    Fault(
        "TenterhookAcceptingFails",
        {**few_requests("0+0.05x119 6x120"), f"tenterhook_http_requests_total{FAILED}": "0x119 1x20 2x20 3x20 4x60"},
        silent=4,
        fires=50,
    ),
    # One in six of four requests a minute: not in each minute, and all the time.
    Fault(
        "TenterhookAcceptingFails",
        {**few_requests("0+1x480"), f"tenterhook_http_requests_total{FAILED}": f"0x119 {one_in(6, 120)}"},
        fires=13,
    ),
    Fault(
        "TenterhookNotReady",
        {f"tenterhook_ready{at('dispatcher', service='dispatcher')}": from_half_an_hour(1, 0)},
        {"instance": "dispatcher", "job": "tenterhook", "service": "dispatcher"},
        silent=4,
    ),
    # A hundred integrations, of which ninety have nothing to do; the ten others get nothing.
    Fault("TenterhookDeliveriesLate", from_then_on([(1, 0)] * 10, [(40, 61)] * 10), silent=4, fires=7),
    # Four dispatchers that get nothing done, with one integration each that has something to do.
    Fault(
        "TenterhookDeliveriesLate",
        {
            name: values
            for number in range(4)
            for name, values in from_then_on([(1, 0)], [(40, 61)], by=f"dispatcher-{number}").items()
        },
        silent=4,
        fires=7,
    ),
    # The only integration that there is; and one of two.
    Fault(
        "TenterhookDeliveriesLate", {**of_few(1, 0), **from_then_on([(1, 0)], [(40, 61)])}, silent=4, fires=7
    ),
    Fault(None, {**of_few(2, 0), **from_then_on([(1, 0)], [(40, 61)])}, silent=5, fires=20),
    # Three slow endpoints beside as many that are not: their owners' matter.
    Fault(None, from_then_on([(0, 0)] * 6, [(9_000, 9_000)] * 3 + [(0, 0)] * 3), silent=5, fires=20),
    Fault(
        "TenterhookDeliveriesLate",
        {f"tenterhook_group_lag_records{at('dispatcher', group='dispatcher', topic='events')}": "0x119 0+5000x120"},
        silent=4,
    ),
    Fault(
        "TenterhookRetriesOverdue",
        {f"tenterhook_dispatcher_retry_overdue_seconds{at('dispatcher', line='retry.20s')}": "0x119 0+15x120"},
        {"line": "retry.20s"},
        silent=5,
    ),
    # The breaker pauses many meanwhile, which is the same thing.
    Fault(
        "TenterhookNoAnswers",
        {
            **NO_WAY_OUT,
            f"tenterhook_unanswered_integrations{at('dispatcher')}": from_half_an_hour(2, 40),
            f"tenterhook_breaker_turned_total{at('breaker', to='paused')}": "0x200 20x40",
        },
        silent=10,
        fires=25,
    ),
    # Of an installation with one integration or two, that is all there are; one of two is its owner's matter.
    Fault("TenterhookNoAnswers", {**NO_WAY_OUT, **of_few(1, 1)}, silent=10, fires=25),
    Fault("TenterhookNoAnswers", {**NO_WAY_OUT, **of_few(2, 2)}, silent=10, fires=25),
    Fault(None, {**NO_WAY_OUT, **of_few(2, 1)}, silent=10, fires=25),
    # Where nobody counts how many there are, it takes three; that nobody does is said by itself.
    Fault(
        None,
        {
            **NO_WAY_OUT,
            **of_few(1, 2),
            **{f"tenterhook_integrations{at('breaker', state=each)}": None for each in ("active", "paused_by_person")},
        },
        silent=10,
        fires=25,
    ),
    # The same of one integration that has most of the events, and does not let itself be paused.
    Fault(
        None,
        {
            f"tenterhook_attempts_total{at('dispatcher', outcome='retry', status='none')}": "0+10x119 1190+9000x120",
            f"tenterhook_attempts_unanswered_total{at('dispatcher', reason='timeout')}": "0x119 0+9000x120",
            f"tenterhook_unanswered_integrations{at('dispatcher')}": from_half_an_hour(1, 2),
        },
        silent=10,
        fires=25,
    ),
    Fault(
        "TenterhookManyPaused",
        {f"tenterhook_breaker_turned_total{at('breaker', to='paused')}": "0x123 20x116"},
        fires=3,
    ),
    Fault(
        "TenterhookBreakerBehind",
        {f"tenterhook_group_lag_records{at('breaker', group='breaker', topic='delivery-results')}": "0x119 0+2000x120"},
        silent=10,
        fires=20,
    ),
    Fault(
        "TenterhookHistoryBehind",
        {f"tenterhook_history_following{at('admin')}": from_half_an_hour(1, 0)},
        {"instance": "admin", "job": "tenterhook"},
        silent=9,
    ),
    Fault(
        "TenterhookHistoryBehind",
        {f"tenterhook_history_lag_records{at('admin')}": "0x119 0+5000x120"},
        {"instance": "admin", "job": "tenterhook"},
        silent=9,
    ),
    Fault(
        "TenterhookQuarantined",
        {f"tenterhook_quarantined_total{at('dispatcher', code='record.fatal')}": "0x123 1x116"},
        {"code": "record.fatal"},
        fires=3,
    ),
    # A new process, which has put a record aside before it was first read; and one of long ago.
    Fault(
        "TenterhookQuarantined",
        {f"tenterhook_quarantined_total{at('dispatcher-7', code='agent.raised')}": "_x123 1x360"},
        {"code": "agent.raised"},
        fires=59,
    ),
    *(
        Fault(
            None,
            {f"tenterhook_quarantined_total{at('dispatcher-7', code='agent.raised')}": "_x123 1x100 _x30 1x230"},
            silent=minutes,
            fires=minutes + 1,
        )
        for minutes in (62, 63, 75)
    ),
    Fault(
        "TenterhookConfigUnreadable",
        {
            f"tenterhook_config_unreadable_records{at(by, topic='app-config')}": "0x120 1x119"
            for by in ("dispatcher", "dispatcher-2")
        },
        {"topic": "app-config"},
        fires=1,
    ),
    Fault(
        "TenterhookHeldExpires",
        {f"tenterhook_held_oldest_seconds{at('dispatcher')}": "0x119 432000+15x120"},
        fires=3,
    ),
    # The brokers were away for ten minutes, and have come back.
    *(
        Fault(
            None,
            {
                **dict.fromkeys(ON_HOLD, "0+15x119 1800x40 2415+15x80"),
                f"tenterhook_http_requests_total{FAILED}": "0x123 0+100x36 3600x80",
                f"tenterhook_ready{at('dispatcher', service='dispatcher')}": "1x123 0x40 1x80",
            },
            silent=minutes,
            fires=minutes + 1,
        )
        for minutes in (11, 13, 15)
    ),
    # Our way out was broken for twenty minutes; what was paused meanwhile was paused for that.
    Fault(
        None,
        {
            f"tenterhook_attempts_total{at('dispatcher', outcome='delivered', status='2xx')}": "0+900x119 107100x80 "
            "107100+4000x40",
            f"tenterhook_attempts_total{at('dispatcher', outcome='retry', status='none')}": "0x119 0+1000x80 80000x40",
            f"tenterhook_attempts_unanswered_total{at('dispatcher', reason='timeout')}": "0x119 0+1000x80 80000x40",
            f"tenterhook_unanswered_integrations{at('dispatcher')}": "2x119 40x80 0x40",
            f"tenterhook_breaker_turned_total{at('breaker', to='paused')}": "0x198 20x42",
        },
        silent=5,
        fires=27,
    ),
]  # fmt: skip


def annotations_of(rule, labels):
    def filled(text):
        text = text.replace("{{ $externalLabels.runbooks }}", RUNBOOKS)
        return re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels.get(found[1], ""), text)

    return {name: filled(text) for name, text in rule["annotations"].items()}


def expected(alert, labels):
    rule = next(rule for rule in RULES if rule.get("alert") == alert)
    return {"exp_labels": {**rule["labels"], **labels}, "exp_annotations": annotations_of(rule, labels)}


def test_of(number, fault):
    """A test in promtool's words: all alerts before, and at the time when one of them fires."""
    series = {name: value for name, value in (well() | fault.changes).items() if value is not None}
    firing = [expected(fault.alert, fault.labels)] if fault.alert else []
    if fault.alert == "TenterhookBrokerUnreachable":
        firing = [
            expected(fault.alert, {**fault.labels, "instance": name, "service": name}) for name in sorted(SERVICES)
        ]
    if fault.labels.get("instance") == "breaker":  # the last of its service is gone, too
        firing.append(expected(fault.alert, {"service": "breaker"}))
    checks = [(30 + fault.silent, []), (30 + fault.fires, firing)]
    return {
        "name": f"{number} {fault.alert}",
        "interval": f"{EVERY_S}s",
        "external_labels": {"runbooks": RUNBOOKS},
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": found if name == fault.alert else []}
            for minutes, found in checks
            for name in NAMES
        ],
    }


test_of.__test__ = False


def promtool(*arguments, **options):
    done = subprocess.run(["promtool", *arguments], capture_output=True, check=False, **options)
    return done.returncode, (done.stdout + done.stderr).decode()


def test_the_rules_are_sound():
    code, said = promtool("check", "rules", str(ALERTS))

    assert code == 0, said
    assert promtool("check", "config", str(ALERTS.parent / "prometheus.yml"))[0] == 0


def receiver_of(route, severity):
    """Where Alertmanager sends an alert of this severity: of a route's own routes, the first that matches."""
    for each in route.get("routes", ()):
        if each["matchers"] == [f'severity="{severity}"']:
            return receiver_of(each, severity)
    return route["receiver"]


def test_who_is_on_call_is_told_of_pages_and_of_nothing_else():
    file = ALERTS.with_name("alertmanager.yml")
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    severities = {rule["labels"]["severity"] for rule in RULES if "alert" in rule}
    told = {severity: receiver_of(config["route"], severity) for severity in severities}

    assert told == {"page": "whoever-is-on-call", "ticket": "tickets"}
    assert {each["name"] for each in config["receivers"]} == set(told.values())
    if shutil.which("amtool") is not None:  # Debian: prometheus-alertmanager
        done = subprocess.run(("amtool", "check-config", file), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_fault():
    assert {fault.alert for fault in FAULTS if fault.alert} == set(NAMES)


@pytest.mark.timeout(300)
def test_each_alert_fires_on_its_fault_and_on_nothing_else(tmp_path):
    tests = [test_of(number, fault) for number, fault in enumerate(FAULTS)]
    file = tmp_path / "alerts_test.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "30s", "tests": tests}))

    code, said = promtool("test", "rules", str(file))

    assert code == 0, said


def test_what_is_shown_is_as_promtool_wants_it():
    exposed = Exposed(metrics.DECLARED)
    for service in metrics.ALL:
        exposed.begin(service)
    answers = [
        found.of(1.5, *[next(iter(label.values), "int_1") for label in found.labels])
        for found in metrics.DECLARED
        if isinstance(found, metrics.Asked)
    ]
    with exposed.answering(lambda: answers):
        text = generate_latest(exposed)

    code, said = promtool("check", "metrics", input=text)

    assert (code, said) == (0, "")
