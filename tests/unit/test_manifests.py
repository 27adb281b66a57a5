"""The manifests of deploy/: as the code says, as Kubernetes' schemas say, and with what every workload must have."""

import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploy import manifests
from services.admin import app as admin
from services.breaker import app as breaker
from services.cli import mend
from services.cli.asides import PUT_BACK_TO
from services.cli.backup import KEPT
from services.cli.settings import all_settings
from services.dispatcher import app as dispatcher
from services.dispatcher.guard import address_refusal, open_blocks
from services.ingest import app as ingest
from services.ingest.append import DEADLINE_S
from services.runtime.settings import Settings
from streams.connection import Connection
from streams.engine.app import SETTLE_TIMEOUT_S
from streams.grants import GRANTS
from streams.topics import RETRIES, TOPICS, Partitions
from tests.brokers import lacking
from tests.prometheus import ALERTS, needs_prometheus

ROOT = Path(__file__).parents[2]
OVERLAYS = ("strimzi", "own-kafka")
#: The oldest that docs/deploying.md names, and the newest whose schemas the package has; most is in both overlays.
KUBERNETES = ("1.32.0", "1.37.0")
SERVICES = {"ingest": "Deployment", "dispatcher": "StatefulSet", "breaker": "StatefulSet", "admin": "StatefulSet"}
VARIABLES = {each.variable for each in all_settings(Settings())}
COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"
KUSTOMIZE = Path(sys.executable).with_name("kustomize")
KUBECONFORM = Path(sys.executable).with_name("kubeconform")


@cache
def rendered(overlay):
    """What `kubectl apply -k` would send, by kind and name."""
    documents = kustomized(ROOT / "deploy" / "kubernetes" / "overlays" / overlay)
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def kustomized(folder):
    """What a folder is with all that it names, by kustomize, which `make go` installs, or by the one inside kubectl."""
    command = (KUSTOMIZE, "build") if KUSTOMIZE.exists() else ("kubectl", "kustomize")
    if shutil.which(command[0]) is None:
        lacking("neither kustomize nor kubectl is here: make go installs the first")
    done = subprocess.run((*command, folder), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_what_is_made_is_current():
    stale = [
        file.name
        for file, text in manifests.files(Connection(""), Partitions()).items()
        if not file.exists() or file.read_text() != text
    ]

    assert stale == [], "run `make manifests`"


def granted(users, operation):
    """The names of topics, without prefixes."""
    every = [grant for user in users for grant in GRANTS[user] if grant.kind == "topic" and not grant.is_prefix]
    return {grant.name for grant in every if operation in grant.operations}


def test_grants_name_topics_that_there_are_and_each_is_written_and_read_by_a_service():
    names = {topic.name for topic in TOPICS}
    found = {operation: granted(SERVICES, operation) for operation in ("Read", "Write", "Delete")}
    writers = {s for s, grants in GRANTS.items() if any(g.name == "events" and "Write" in g.operations for g in grants)}

    # Nobody reads quarantine by himself; the commands do, as `operator`.
    assert found == {"Read": names - {"quarantine"}, "Write": names, "Delete": set()}
    assert "dispatcher" not in writers
    assert set(GRANTS) == {*SERVICES, "operator", "maintainer"}
    assert not any("Write" in grant.operations for grant in GRANTS["operator"])


def test_the_maintainer_may_what_the_commands_that_write_need_and_no_more():
    mended = {"events", "deliveries", "delivery-results", "commands", *(topic.name for topic in RETRIES)}
    put_back = {*PUT_BACK_TO, "quarantine"}
    restored = {"installation", "schemas", *(topic.name for topic in KEPT)}
    others = {(grant.kind, grant.name): grant.operations for grant in GRANTS["maintainer"] if grant.kind != "topic"}

    assert set(GRANTS["operator"]) <= set(GRANTS["maintainer"])
    assert granted(["maintainer"], "Write") == mended | put_back | restored
    assert granted(["maintainer"], "Delete") == mended
    assert others == {
        ("group", ""): ("Describe",),
        ("transactional_id", "restore"): ("Describe", "Write"),
        **{("group", name): ("Read",) for name in mend.GROUPS},
    }


V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
EDGES_4 = st.sampled_from([net for network, closed in open_blocks() if network.version == 4 for net in closed]).flatmap(
    lambda net: st.sampled_from([int(net[0]) - 1, int(net[0]), int(net[-1]), int(net[-1]) + 1])
).filter(lambda number: 0 <= number < 2**32).map(ipaddress.IPv4Address)  # fmt: skip
ANY_4 = V4 | EDGES_4
V6 = st.one_of(
    st.integers(0, 2**128 - 1),
    st.integers(0x2 << 124, (0x4 << 124) - 1),
    st.integers(0x2001 << 112, (0x2003 << 112) - 1),
    ANY_4.map(lambda four: (0x2002 << 112) | int(four) << 80),
    ANY_4.map(lambda four: (0x64FF9B << 96) | int(four)),
    st.sampled_from([int(net[0]) for network, closed in open_blocks() if network.version == 6 for net in closed]),
).map(ipaddress.IPv6Address).filter(lambda six: six.ipv4_mapped is None)  # that is dialled as IPv4  # fmt: skip


@given(ANY_4 | V6)
def test_the_network_lets_through_what_the_guard_does(address):
    lets_through = any(
        address in network and not any(address in each for each in closed)
        for network, closed in open_blocks()
        if network.version == address.version
    )

    assert lets_through == (address_refusal(str(address), allow_private=False) is None)


#: Kubernetes' own schemas, by version; of the package nothing else is used.
SCHEMAS = Path(find_spec("kubernetes_validate").origin).parent / "kubernetes-json-schema"


def is_strimzis(document):
    """Whether kubeconform has no schema of it: no registry has Strimzi's. Its classes read it, below."""
    return document["apiVersion"] == manifests.STRIMZI


def conformed(documents, version, folder):
    """kubeconform's verdicts: how many documents of each, and what it says of those that are not valid."""
    if not KUBECONFORM.exists():
        lacking("no kubeconform here: make go installs it")
    schemas = _as_files(folder, documents, version)
    # Without -ignore-missing-schemas and -skip: what there is no schema of is an error.
    done = subprocess.run(
        (KUBECONFORM, "-strict", "-summary", "-output=json", f"-schema-location={schemas}"),
        input=yaml.safe_dump_all(documents), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = json.loads(done.stdout)
    return said["summary"], said["resources"]


def _as_files(folder, documents, version):
    """The package's schemas of these, where kubeconform finds them: theirs name each other by addresses."""
    package = SCHEMAS / f"v{version}-local-strict"
    names = {
        f"{each['kind']}-{re.sub(r'[.][^/]*', '', each['apiVersion']).replace('/', '-')}.json".lower()
        for each in documents
    }
    for name in {"_definitions.json", *names}:
        if (package / name).exists():
            text = (package / name).read_text().replace('"/api/_definitions.json#', '"_definitions.json#')
            (folder / name).write_text(re.sub(r'"\$id": "[^"]*"', f'"title": "{name}"', text))
    return f"{folder}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"


def counted(*, valid=0, invalid=0, errors=0):
    return {"valid": valid, "invalid": invalid, "errors": errors, "skipped": 0}


def with_a_field_too_many(documents):
    """One of each kind."""
    found = {each["kind"]: json.loads(json.dumps(each)) for each in documents}
    for each in found.values():
        each.get("spec", each)["notThere"] = 1
    return list(found.values())


@pytest.mark.parametrize(("overlay", "version"), [*zip(OVERLAYS, KUBERNETES, strict=True)])
def test_an_overlay_is_what_kubernetes_takes_and_none_of_it_is_passed_over(overlay, version, tmp_path):
    documents = [each for each in rendered(overlay).values() if not is_strimzis(each)]
    assert conformed(documents, version, tmp_path) == (counted(valid=len(documents)), [])

    wrong = with_a_field_too_many(documents)
    unheard_of = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "dispatcher"}}
    summary, refused = conformed([*wrong, unheard_of], version, tmp_path)
    assert summary == counted(invalid=len(wrong), errors=1), refused


JARS = ROOT / "tests" / "strimzi" / "jars"


def test_strimzi_reads_its_resources_whole():
    if shutil.which("javac") is None or not JARS.exists():
        lacking("no JDK, or no classes of Strimzi's: make strimzi")
    documents = [each for each in rendered("strimzi").values() if is_strimzis(each)]
    wrong = with_a_field_too_many(documents)

    def read(documents):
        command = ("java", "-cp", f"{JARS}/*", ROOT / "tests" / "strimzi" / "Read.java")
        done = subprocess.run(
            command, input=json.dumps(documents), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    refused = read([*documents, *wrong])
    assert [each.partition(" ")[0] for each in refused] == [each["kind"] for each in wrong]
    assert all('"notThere"' in each for each in refused), refused
    assert {each["kind"] for each in documents} == {"Kafka", "KafkaNodePool", "KafkaTopic", "KafkaUser"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_one_namespace(overlay):
    assert {
        name: manifest["metadata"].get("namespace")
        for (kind, name), manifest in rendered(overlay).items()
        if manifest["metadata"].get("namespace") != (None if kind == "Namespace" else "tenterhook")
    } == {}


#: How long each takes to end, at most, in seconds: requests that were begun, partitions that are given up, producers.
ENDS_S = {
    "ingest": ingest.DRAIN_S + DEADLINE_S,
    "dispatcher": SETTLE_TIMEOUT_S + dispatcher.LEAVING_S + dispatcher.PRODUCER_STOP_S,
    "breaker": SETTLE_TIMEOUT_S + breaker.PRODUCER_STOP_S,
    "admin": admin.DRAIN_S + admin.SETTLE_S + admin.PRODUCER_STOP_S,
}


@pytest.mark.parametrize("service", SERVICES)
def test_nobody_is_killed_while_it_ends(service):
    pod = rendered("own-kafka")[SERVICES[service], service]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    waits_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    compose = yaml.safe_load(COMPOSE.read_text())["services"][service]

    # Requests come for a while after the end has begun, from whoever does not know it yet; only these take any.
    assert (waits_s > 0) == (service in ("ingest", "admin"))
    assert pod["terminationGracePeriodSeconds"] > waits_s + ENDS_S[service]
    assert int(compose["stop_grace_period"].removesuffix("s")) > ENDS_S[service]


def compose_platform(service):
    return yaml.safe_load(COMPOSE.read_text())["services"][service]["platform"]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("service", SERVICES)
def test_every_workload_can_do_little_is_probed_and_ends_in_order(overlay, service):
    found = rendered(overlay)
    workload = found[SERVICES[service], service]
    pod = workload["spec"]["template"]["spec"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    [container] = pod["containers"]
    [port] = container["ports"]
    budget = found["PodDisruptionBudget", service]["spec"]

    assert container["args"] == [service]
    assert port["containerPort"] == getattr(Settings(), service).port
    assert pod["nodeSelector"] == {"kubernetes.io/arch": compose_platform(service).rpartition("/")[2]}
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}
    assert workload["spec"]["minReadySeconds"] > 0
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    spread = {each["topologyKey"]: each["labelSelector"]["matchLabels"] for each in pod["topologySpreadConstraints"]}
    assert set(spread) == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    assert all(matched.items() <= labels.items() for matched in spread.values())
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert {"app.kubernetes.io/part-of": "tenterhook", "tenterhook/kafka": "client"}.items() <= labels.items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_commands_are_run_where_nothing_runs_by_itself_with_the_maintainer_s_password_and_the_brokers_in_reach(overlay):
    found = rendered(overlay)
    spec = found["Deployment", "commands"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    pod, service = spec["template"]["spec"], found["Deployment", "ingest"]["spec"]["template"]["spec"]
    [container], [other] = pod["containers"], service["containers"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    [user] = container["env"]
    policies = {
        name
        for (kind, name), policy in found.items()
        if kind == "NetworkPolicy" and policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    }

    assert spec["replicas"] == 0
    assert policies == {"tenterhook-nothing", "tenterhook-names", "tenterhook-brokers", "tenterhook-metrics"}
    assert user == {"name": "TENTERHOOK_KAFKA__USER", "value": "tenterhook-maintainer"}
    assert volumes.pop("kafka-user")["secret"]["secretName"] == "tenterhook-maintainer"
    assert set(volumes) == {"tmp", "kafka-ca"}
    assert volumes["tmp"]["emptyDir"] == {"sizeLimit": "4Gi"}  # a backup is written there
    assert {each["name"] for each in container["volumeMounts"]} == {"tmp", "kafka-ca", "kafka-user"}
    for same in ("securityContext", "serviceAccountName", "automountServiceAccountToken", "nodeSelector"):
        assert pod[same] == service[same]
    for same in ("image", "securityContext", "envFrom"):
        assert container[same] == other[same]


def test_the_page_stops_and_starts_every_service_and_runs_commands_in_their_pod():
    """docs/deploying.md, "Commands on a cluster"."""
    page = (ROOT / "docs" / "deploying.md").read_text()
    scaled = [each.split() for each in re.findall(r"^kubectl -n tenterhook scale (.*)$", page, re.MULTILINE)]
    all_of_them = {f"{kind.lower()}/{service}" for service, kind in SERVICES.items()}

    assert [(set(names), replicas) for *names, replicas in scaled] == [
        ({"deployment/commands"}, "--replicas=1"),
        (all_of_them, "--replicas=0"),
        (all_of_them, "--replicas=2"),
        ({"deployment/commands"}, "--replicas=0"),
    ]
    assert set(re.findall(r" exec (?:-i )?(\S+)", page)) <= {"admin-0", "deployment/commands", "admin"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_update_can_apply_one_service_after_another_and_the_rest_before(overlay):
    """By the selectors of docs/operating.md: a label that the four workloads have, and nothing beside them."""
    named = {
        each: manifest["metadata"]["labels"]["app.kubernetes.io/name"]
        for each, manifest in rendered(overlay).items()
        if "app.kubernetes.io/name" in manifest["metadata"].get("labels", {})
    }
    page = (ROOT / "docs" / "operating.md").read_text()
    [order] = re.findall(r"^for service in (.*statefulset.*); do$", page, re.MULTILINE)

    assert named == {(kind, service): service for service, kind in SERVICES.items()}
    assert order.split() == [
        f"{SERVICES[each].lower()}/{each}" for each in ("dispatcher", "breaker", "ingest", "admin")
    ]


def test_what_not_everybody_wants_goes_with_an_overlay(tmp_path):
    kubernetes = Path(os.path.relpath(ROOT / "deploy" / "kubernetes", tmp_path))
    components = sorted(each.name for each in (ROOT / "deploy" / "kubernetes" / "components").iterdir())
    (tmp_path / "kustomization.yaml").write_text(
        json.dumps(
            {
                "namespace": "tenterhook",
                "resources": [f"{kubernetes}/overlays/own-kafka"],
                "components": [f"{kubernetes}/components/{each}" for each in components],
            }
        )
    )
    documents = kustomized(tmp_path)
    found = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    (tmp_path / "schemas").mkdir()

    assert components == ["collector", "kek-previous", "schema-registry"]
    assert conformed(documents, KUBERNETES[0], tmp_path / "schemas") == (counted(valid=len(documents)), [])
    assert set(found) - set(rendered("own-kafka")) == {
        ("NetworkPolicy", "tenterhook-collector"),
        ("NetworkPolicy", "tenterhook-schema-registry"),
    }
    for service, kind in SERVICES.items():
        [container] = found[kind, service]["spec"]["template"]["spec"]["containers"]
        own = {each["name"]: each.get("value") for each in container["env"]}
        previous = own.get("TENTERHOOK_KEK_PREVIOUS_FILE")
        assert set(own) <= VARIABLES
        assert previous == ("/run/secrets/kek/kek-previous" if service in ("dispatcher", "admin") else None)


@pytest.mark.parametrize("service", SERVICES)
def test_settings_are_settings_and_secrets_come_from_files(service):
    found = rendered("own-kafka")
    pod = found[SERVICES[service], service]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [reference] = [each["configMapRef"]["name"] for each in container["envFrom"]]
    plain = found["ConfigMap", reference]["data"]
    own = {each["name"]: each for each in container["env"]}
    mounts = [each["mountPath"] for each in container["volumeMounts"]]
    files = {
        name: value
        for name, value in [*plain.items(), *((name, each.get("value", "")) for name, each in own.items())]
        if name.endswith("_FILE")
    }

    assert set(plain) | set(own) <= VARIABLES
    assert not any(re.search(r"(KEK|PASSWORD)$", name) for name in (*plain, *own))
    assert not any("secretKeyRef" in str(each) for each in own.values())
    for name, path in files.items():
        assert any(path.startswith(f"{mount}/") for mount in mounts), name
    assert ("TENTERHOOK_KEK_FILE" in files) == (service in ("dispatcher", "admin"))
    # Stateful ones have their pod's name in the group; ingest is no member of one.
    by_pod_name = f"TENTERHOOK_{service.upper()}__INSTANCE_ID"
    if SERVICES[service] == "StatefulSet":
        assert own[by_pod_name]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert own["TENTERHOOK_KAFKA__USER"]["value"] == f"tenterhook-{service}"


def test_secrets_and_brokers_are_those_that_strimzi_makes():
    found = rendered("strimzi")
    users = {name for kind, name in found if kind == "KafkaUser"}
    clusters = {name for kind, name in found if kind == "Kafka"}
    [settings] = [each["data"] for (kind, _), each in found.items() if kind == "ConfigMap"]
    for service, kind in SERVICES.items():
        volumes = {each["name"]: each for each in found[kind, service]["spec"]["template"]["spec"]["volumes"]}
        assert volumes["kafka-user"]["secret"]["secretName"] in users
        assert volumes["kafka-ca"]["secret"]["secretName"] in {f"{each}-cluster-ca-cert" for each in clusters}
    assert settings["TENTERHOOK_BROKER"] in {f"{each}-kafka-bootstrap:9093" for each in clusters}
    assert {
        found[each]["metadata"]["labels"]["strimzi.io/cluster"] for each in found if "KafkaTopic" in each
    } == clusters


def test_dispatchers_scale_by_what_waits_and_no_further_than_there_are_partitions():
    spec = rendered("strimzi")["HorizontalPodAutoscaler", "dispatcher"]["spec"]
    asked = {each["pods"]["metric"]["name"] for each in spec["metrics"]}
    adapter = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "prometheus-adapter.yaml").read_text())
    shown = {name for name in asked if any(name in rule["seriesQuery"] for rule in adapter["rules"]["custom"])}
    declared = ROOT / "services" / "runtime" / "metrics.py"

    assert spec["maxReplicas"] == Partitions().by_integration
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "dispatcher"}
    assert (
        asked
        == shown
        == {
            "tenterhook_queue_age_seconds",
            "tenterhook_detached_backlog_shared_deliveries",
            "tenterhook_group_lag_records",
        }
    )
    assert all(f'"{name}"' in declared.read_text() for name in asked)


@needs_prometheus
def test_the_adapter_asks_prometheus_for_what_a_pod_has_and_for_the_percentile_that_is_named(tmp_path):
    """Its queries with what the autoscaler asks for in them, over three pods of ours and one of another namespace."""
    rules = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    age, backlog = "tenterhook_queue_age_seconds", "tenterhook_detached_backlog_shared_deliveries"
    integrations, lag = "tenterhook_queue_integrations", "tenterhook_group_lag_records"
    among = 'namespace="tenterhook",pod=~"dispatcher-0|dispatcher-1|dispatcher-2"'
    asked = {
        # The second has two slow endpoints and nothing else to do.
        f'{age},{among},percentile="90"': {0: 4, 1: 0, 2: 9},
        f"{backlog},{among}": {0: 100, 1: 2_000, 2: 20_000},
        f'{lag},{among},group="dispatcher",topic=~"events|deliveries"': {0: 7, 1: 0, 2: 30},
    }
    values = {}
    for namespace, pod, ages, waiting, behind, lags in (
        ("tenterhook", 0, {"50": 0, "90": 4, "99": 900}, 3, 100, {"events": 7, "deliveries": 5, "retry.1s": 900}),
        ("tenterhook", 1, {"50": 900, "90": 900, "99": 900}, 2, 2_000, {"events": 0, "deliveries": 0, "retry.1s": 1}),
        ("tenterhook", 2, {"50": 1, "90": 9, "99": 9}, 400, 20_000, {"events": 0, "deliveries": 30, "retry.1s": 1}),
        ("staging", 0, {"50": 77, "90": 77, "99": 77}, 77, 77, {"events": 77, "deliveries": 77, "retry.1s": 77}),
    ):
        of = f'namespace="{namespace}",pod="dispatcher-{pod}"'
        values |= {f'{age}{{{of},percentile="{percentile}"}}': value for percentile, value in ages.items()}
        values |= {f'{lag}{{{of},group="dispatcher",topic="{topic}"}}': value for topic, value in lags.items()}
        values |= {f"{integrations}{{{of}}}": waiting, f"{backlog}{{{of}}}": behind}

    def query(name):
        series, _, matchers = name.partition(",")
        [rule] = [each for each in rules if series in each["seriesQuery"]]
        filled = {"<<.Series>>": series, "<<.LabelMatchers>>": matchers, "<<.GroupBy>>": "pod"}
        return re.sub(r"<<\.\w+>>", lambda found: filled[found[0]], rule["metricsQuery"])

    tests = {
        "interval": "15s",
        "input_series": [{"series": series, "values": f"{value}x8"} for series, value in values.items()],
        "promql_expr_test": [
            {
                "expr": query(name),
                "eval_time": "1m",
                "exp_samples": [{"labels": f'{{pod="dispatcher-{n}"}}', "value": v} for n, v in found.items()],
            }
            for name, found in asked.items()
        ],
    }
    file = tmp_path / "adapter_test.yml"
    file.write_text(json.dumps({"tests": [tests]}))
    done = subprocess.run(("promtool", "test", "rules", file), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    # The adapter shows nothing of what has not both labels; our Prometheus gives them.
    [labels] = {tuple(re.findall(r'(\w+)!=""', rule["seriesQuery"])) for rule in rules}
    assert all(labels == tuple(rule["resources"]["overrides"]) for rule in rules)
    config = yaml.safe_load(ALERTS.with_name("kubernetes.yml").read_text()) | {"rule_files": [str(ALERTS)]}
    [job] = config["scrape_configs"]
    assert labels == tuple(each["target_label"] for each in job["relabel_configs"] if "target_label" in each)
    [dropping] = [each for each in job["relabel_configs"] if each.get("action") == "drop"]
    phases = [each for each in ("Pending", "Running", "Succeeded", "Failed") if re.fullmatch(dropping["regex"], each)]
    assert (dropping["source_labels"], phases) == (["__meta_kubernetes_pod_phase"], ["Succeeded", "Failed"])
    assert job["job_name"] in re.findall(r'job="(\w+)"', ALERTS.read_text())
    # Debian's Prometheus is built without the discovery of Kubernetes; everything else of it is checked.
    [discovery] = job.pop("kubernetes_sd_configs")
    assert discovery["role"] == "pod"
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    done = subprocess.run(
        ("promtool", "check", "config", tmp_path / "prometheus.yml"), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_dispatchers_reach_out_and_only_where_the_guard_does(overlay):
    found = rendered(overlay)
    reaching = {}
    for (kind, name), policy in found.items():
        if kind == "NetworkPolicy":
            for rule in policy["spec"].get("egress", []):
                for peer in rule["to"]:
                    if "ipBlock" in peer:
                        reaching.setdefault(name, []).append(peer["ipBlock"]["cidr"])
    nothing = found["NetworkPolicy", "tenterhook-nothing"]["spec"]

    assert nothing["podSelector"] == {"matchLabels": {"app.kubernetes.io/part-of": "tenterhook"}}
    assert sorted(nothing["policyTypes"]) == ["Egress", "Ingress"]
    assert {"ingress", "egress"}.isdisjoint(nothing)
    assert reaching.pop("tenterhook-webhooks") == [str(network) for network, _ in open_blocks()]
    assert reaching.pop("tenterhook-names") == ["169.254.20.10/32"]  # a cache of names on the same machine
    assert reaching == ({"tenterhook-brokers": ["192.0.2.0/24"]} if overlay == "own-kafka" else {})
    assert found["NetworkPolicy", "tenterhook-webhooks"]["spec"]["podSelector"] == {
        "matchLabels": {"app.kubernetes.io/name": "dispatcher"}
    }


def test_compose_starts_three_kafkas_and_every_service_with_settings_that_there_are():
    found = yaml.safe_load(COMPOSE.read_text())
    for service in SERVICES:
        given_ = found["services"][service]
        assert given_["command"] == [service]
        assert given_["read_only"]
        assert given_["cap_drop"] == ["ALL"]
        assert set(given_["environment"]) <= VARIABLES
    published = [port for each in found["services"].values() for port in each.get("ports", ())]
    kafkas = [name for name in found["services"] if name.startswith("kafka-")]
    prometheus = yaml.safe_load((COMPOSE.parent / "prometheus.yml").read_text())
    scraped = {
        (each["names"][0], each["port"]) for job in prometheus["scrape_configs"] for each in job["dns_sd_configs"]
    }

    assert len(kafkas) == 3
    assert {"prometheus", "alertmanager", "grafana"} <= set(found["services"])
    # The services' is the image's own.
    assert {name for name, each in found["services"].items() if "healthcheck" not in each} == set(SERVICES)
    assert all("mem_limit" in each for each in found["services"].values())
    [alerted] = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert alerted == "alertmanager:9093"
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert scraped == {(service, getattr(Settings(), service).port) for service in SERVICES}


def test_what_compose_mounts_is_there_and_where_it_is_looked_for():
    mounted = {}
    for name, each in yaml.safe_load(COMPOSE.read_text())["services"].items():
        for volume in each.get("volumes", ()):
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                mounted[name, target] = (COMPOSE.parent / source).resolve()

    def inside(service, path):
        """Where the container's file is here."""
        folder, here = max(((to, at) for (of, to), at in mounted.items() if of == service and path.startswith(to)))
        return here / path.removeprefix(folder).lstrip("/") if path != folder else here

    assert {target for target, here in mounted.items() if not here.exists()} == set()

    def read(service, path):
        return yaml.safe_load(inside(service, path).read_text())

    [rules] = read("prometheus", "/etc/prometheus/prometheus.yml")["rule_files"]
    assert inside("prometheus", rules) == ALERTS
    [provider] = read("grafana", "/etc/grafana/provisioning/dashboards/tenterhook.yml")["providers"]
    assert list(inside("grafana", provider["options"]["path"]).glob("*.json"))
    # The dashboards take whichever Prometheus there is.
    [source] = read("grafana", "/etc/grafana/provisioning/datasources/tenterhook.yml")["datasources"]
    assert source["type"] == "prometheus"


def test_compose_reads_the_file():
    done = subprocess.run(_compose(), capture_output=True, text=True, timeout=60, check=False, cwd=COMPOSE.parent)

    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(yaml.safe_load(COMPOSE.read_text())["services"])


def _compose():
    """`docker compose config`, or the library that it reads files with: `make go`."""
    library = Path(sys.executable).with_name("compose-go")
    if library.exists():
        return (str(library), str(COMPOSE))
    command = ("docker", "compose", "--file", str(COMPOSE), "config")
    there = shutil.which("docker") is not None
    if not there or subprocess.run(("docker", "compose", "version"), capture_output=True, check=False).returncode:
        lacking("neither compose-go nor docker compose is here: make go installs the first")
    return command
