"""The manifests of deploy/: as the code says, as Kubernetes' schemas say, and with what every workload must have."""

import ipaddress
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploy import manifests
from services.cli.settings import all_settings
from services.dispatcher.guard import address_refusal, open_blocks
from services.runtime.settings import Settings
from streams.connection import Connection
from streams.grants import GRANTS
from streams.topics import TOPICS, Partitions

ROOT = Path(__file__).parents[2]
OVERLAYS = ("strimzi", "own-kafka")
#: The oldest whose schemas the manifests keep to.
KUBERNETES = "1.32"
SERVICES = {"ingest": "Deployment", "dispatcher": "StatefulSet", "breaker": "StatefulSet", "admin": "StatefulSet"}
VARIABLES = {each.variable for each in all_settings(Settings())}

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here to render manifests with")


@cache
def rendered(overlay):
    """What `kubectl apply -k` would send, by kind and name."""
    folder = ROOT / "deploy" / "kubernetes" / "overlays" / overlay
    done = subprocess.run(("kubectl", "kustomize", folder), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)}


def test_what_is_made_is_current():
    stale = [
        file.name
        for file, text in manifests.files(Connection(""), Partitions()).items()
        if not file.exists() or file.read_text() != text
    ]

    assert stale == [], "run `make manifests`"


def test_grants_name_topics_that_there_are_and_each_is_written_and_read_by_a_service():
    names = {topic.name for topic in TOPICS}
    found = {"Read": set(), "Write": set()}
    for service, grants in GRANTS.items():
        for grant in grants:
            if grant.kind == "topic" and not grant.is_prefix:
                assert grant.name in names, service
                for operation in grant.operations:
                    found[operation].add(grant.name)
    writers = {s for s, grants in GRANTS.items() if any(g.name == "events" and "Write" in g.operations for g in grants)}

    # Nobody reads quarantine by himself; the commands do, as `operator`.
    assert found == {"Read": names - {"quarantine"}, "Write": names}
    assert "dispatcher" not in writers
    assert not any("Write" in grant.operations for grant in GRANTS["operator"])


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


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_what_kubernetes_takes(overlay):
    for (kind, name), manifest in rendered(overlay).items():
        if "strimzi.io" in manifest["apiVersion"]:
            continue  # its schemas are not at hand
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        assert manifest.get("metadata", {}).get("namespace") == (None if kind == "Namespace" else "tenterhook"), name


@needs_kubectl
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
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert {"app.kubernetes.io/part-of": "tenterhook", "tenterhook/kafka": "client"}.items() <= labels.items()


@needs_kubectl
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


@needs_kubectl
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


@needs_kubectl
def test_dispatchers_scale_by_what_waits_and_no_further_than_there_are_partitions():
    spec = rendered("strimzi")["HorizontalPodAutoscaler", "dispatcher"]["spec"]
    asked = {each["pods"]["metric"]["name"] for each in spec["metrics"]}
    adapter = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "prometheus-adapter.yaml").read_text())
    shown = {name for name in asked if any(name in rule["seriesQuery"] for rule in adapter["rules"]["custom"])}
    declared = ROOT / "services" / "runtime" / "metrics.py"

    assert spec["maxReplicas"] == Partitions().by_integration
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "dispatcher"}
    assert asked == shown == {"tenterhook_queue_age_seconds", "tenterhook_detached_backlog_deliveries"}
    assert not declared.exists() or all(f'"{name}"' in declared.read_text() for name in asked)


@needs_kubectl
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
    assert reaching == ({"tenterhook-brokers": ["192.0.2.0/24"]} if overlay == "own-kafka" else {})
    assert found["NetworkPolicy", "tenterhook-webhooks"]["spec"]["podSelector"] == {
        "matchLabels": {"app.kubernetes.io/name": "dispatcher"}
    }


COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"


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
    assert {"prometheus", "grafana"} <= set(found["services"])
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert scraped == {(service, getattr(Settings(), service).port) for service in SERVICES}


def test_compose_reads_the_file():
    done = subprocess.run(_compose(), capture_output=True, text=True, timeout=60, check=False, cwd=COMPOSE.parent)

    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(yaml.safe_load(COMPOSE.read_text())["services"])


def _compose():
    """`docker compose config`, or the library that it reads files with: `make go`."""
    library = Path(sys.executable).with_name("compose-go")
    if library.exists():
        return (str(library), str(COMPOSE))
    docker = shutil.which("docker")
    if docker and subprocess.run((docker, "compose", "version"), capture_output=True, check=False).returncode == 0:
        return (docker, "compose", "--file", str(COMPOSE), "config")
    pytest.skip("neither docker compose nor compose-go is here")
