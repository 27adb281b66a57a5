"""docs/metrics.md says of every metric and label what the code says, and dashboards and alerts ask for no others."""

import json
import re
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

from services.runtime import metrics
from tests.prometheus import needs_prometheus

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
ALERTS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
ON_KUBERNETES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "kubernetes-alerts.yml").read_text(encoding="utf-8"))
RULES = [rule for each in (ALERTS, ON_KUBERNETES) for group in each["groups"] for rule in group["rules"]]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))

#: Said by Prometheus itself, and by prometheus-client of every process.
OTHERS = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}

#: Labels that Prometheus gives to everything that it reads.
GIVEN = {"job", "instance"}
#: By metric, the labels that it has.
LABELS = dict.fromkeys(OTHERS, GIVEN) | {
    metric.name: GIVEN | {label.name for label in metric.labels} | ({"le"} if metric.kind == "histogram" else set())
    for metric in metrics.DECLARED
}

#: What Grafana puts in place of its own variables.
VARIABLES = {"$__rate_interval": "1m", "$__interval": "15s", "$__range": "6h"}


def asked(expression):
    """Metrics that a query asks for."""
    without_texts = re.sub(r'"[^"]*"|\{[^}]*\}', "", expression)
    without_groups = re.sub(r"\b(by|on|ignoring|without|group_left|group_right) *\([^)]*\)", "", without_texts)
    words = re.findall(r"[a-zA-Z_:][\w:]*(?! *\()", without_groups)
    return {
        re.sub(r"_(bucket|sum|count)$", "", word) if "tenterhook" in word else word
        for word in words
        if re.match(r"tenterhook[_:]|process_|up$", word)
    }


def known():
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    return {metric.name for metric in metrics.DECLARED} | recorded | OTHERS


def label_values(expression):
    """Metric, label, and the text that it is compared with."""
    for name, selector in re.findall(r"(tenterhook\w+)\{([^}]*)\}", expression):
        for label, texts in re.findall(r'(\w+) *(?:=|=~|!=|!~) *"([^"]*)"', selector):
            yield re.sub(r"_(bucket|sum|count)$", "", name), label, texts.split("|")


def enclosed(text):
    """What stands in the parentheses that it begins with."""
    depth = 0
    for at, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return text[1:at]
    raise AssertionError(text)


def grouped(expression):
    """Labels that parts of a query are grouped by, or without, each with its part."""
    for found in re.finditer(r"\b(?:by|without) *\(([^)]*)\)", expression):
        labels, part = re.findall(r"\w+", found[1]), expression[found.end() :].lstrip()
        assert part.startswith("("), f"labels go before what is grouped: {expression}"
        yield set(labels), enclosed(part)


def labels_of(expression):
    """The labels that series of its answer have; those of a rate of several are not reckoned with."""
    for labels, _ in grouped(expression):
        return labels - {"le"}
    if re.match(r"(sum|max|min|avg|count) *\(", expression):
        return set()
    return set.union(*(LABELS[name] for name in asked(expression)))


def targets():
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.name}: {panel['title']}", target


def queries():
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for where, target in targets():
        yield where, target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(queries()))
def test_queries_ask_for_declared_metrics_and_values_alone(where, expression):
    declared = {metric.name: {label.name: label for label in metric.labels} for metric in metrics.DECLARED}

    assert asked(expression) or "kubelet_" in expression
    assert asked(expression) - known() == set()
    for name, label, texts in label_values(expression):
        if name in declared and label not in {"job", "instance"}:
            assert label in declared[name]
            assert set(texts) <= set(declared[name][label].values)


@pytest.mark.parametrize(("where", "expression"), list(queries()))
def test_queries_group_by_labels_that_their_metrics_have(where, expression):
    for labels, part in grouped(expression):
        for name in asked(part):
            assert labels <= LABELS[name], name


@pytest.mark.parametrize(("where", "target"), list(targets()))
def test_lines_of_dashboards_are_named_by_labels_that_they_have(where, target):
    assert set(re.findall(r"\{\{ *(\w+) *\}\}", target["legendFormat"])) <= labels_of(target["expr"])


@needs_prometheus
def test_prometheus_reads_every_query_of_the_dashboards(tmp_path):
    """As the rules of alerts, which `tests/unit/test_alert_rules.py` has it check."""
    rules = []
    for number, (_, target) in enumerate(targets()):
        expression = target["expr"]
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression, f"what does Grafana make of this? {expression}"
        rules.append({"record": f"query:{number}", "expr": expression})
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = subprocess.run(("promtool", "check", "rules", file), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_there_is_a_dashboard():
    assert DASHBOARDS


@pytest.mark.parametrize("rule", [rule for rule in RULES if "alert" in rule], ids=lambda rule: rule["alert"])
def test_every_alert_has_its_page(rule):
    before, path = rule["annotations"]["runbook_url"].split("}}")
    page = ROOT / path

    assert before == "{{ $externalLabels.runbooks "
    assert page == ROOT / "docs" / "runbooks" / f"{rule['alert']}.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {rule['alert']}\n")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["What it means", "What to look at", "What to do"]
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert asked(" ".join(re.findall(r"`([^`]*)`", text))) - known() == set()


def test_no_page_is_without_its_alert():
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")}

    assert pages == {rule["alert"] for rule in RULES if "alert" in rule}
    assert set(re.findall(r"\(runbooks/(\w+)\.md\)", PAGE)) == pages


def test_the_dashboards_are_as_written():
    spec = spec_from_file_location("make_dashboards", ROOT / "deploy" / "grafana" / "make_dashboards.py")
    made = module_from_spec(spec)
    spec.loader.exec_module(made)

    assert {path: path.read_text(encoding="utf-8") for path in DASHBOARDS} == made.texts()


def test_every_metric_is_on_a_dashboard():
    shown = {name for where, expression in queries() if ".json" in where for name in asked(expression)}

    assert {metric.name for metric in metrics.DECLARED} - shown == set()


def test_the_page_says_how_many_series_a_process_shows():
    def most(service):
        mine = [metric for metric in metrics.DECLARED if service in metric.services]
        return sum(
            metric.series * (len(getattr(metric, "buckets", ())) + 3 if metric.kind == "histogram" else 1)
            for metric in mine
        )

    said = dict(re.findall(r"an? (dispatcher|ingest|admin|breaker)(?: shows at most)? (\d+)", PAGE))

    assert said == {service: str(most(service)) for service in metrics.ALL}
