"""Which broker `up` takes, and what it writes for Kafka."""

import json
import random
import socket

import pytest

from services.cli.brokers import BrokerFailed, choose, java
from services.cli.brokers.choose import NoSuchBroker, kafka_lacks
from services.cli.brokers.java import Java
from services.cli.brokers.kafka import KafkaBroker
from services.cli.brokers.kafka_files import ClusterPlan, NodePlan, log4j2_properties, server_properties
from services.cli.brokers.ports import free_ports, is_free


@pytest.fixture
def jars(tmp_path):
    """A folder that looks as after `make kafka`."""
    (tmp_path / "kafka_2.13-4.1.0.jar").touch()
    return tmp_path


@pytest.fixture
def java_17(monkeypatch):
    monkeypatch.setattr(java, "find_java", lambda: Java("/usr/bin/java", 17))


def test_auto_takes_kafka_where_java_and_the_jars_are(jars, java_17):
    choice = choose.choose("auto", jars=jars)

    assert (choice.kind, choice.why) == ("kafka", "Apache Kafka: Java 17 and Kafka's jars are here.")


def test_auto_takes_the_embedded_one_without_the_jars_and_says_how_to_get_them(tmp_path, java_17):
    choice = choose.choose("auto", jars=tmp_path)

    assert choice.kind == "embedded"
    assert choice.why.startswith("The embedded broker, since Kafka's jars are not in ")
    assert "`make kafka` fetches them" in choice.why


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "there is no Java; install Java 17 or newer"),
        (Java("/opt/java", 11), "/opt/java is Java 11; Kafka needs 17"),
    ],
)
def test_auto_takes_the_embedded_one_without_a_java_that_is_new_enough(jars, monkeypatch, found, why):
    monkeypatch.setattr(java, "find_java", lambda: found)
    choice = choose.choose("auto", jars=jars)

    assert choice.kind == "embedded"
    assert why in choice.why
    with pytest.raises(NoSuchBroker, match="--broker kafka: "):
        choose.choose("kafka", jars=jars)


def test_what_is_asked_for_is_taken(jars, java_17):
    assert choose.choose("kafka", jars=jars).kind == "kafka"
    assert choose.choose("embedded", jars=jars).kind == "embedded"


def test_addresses_are_a_given_broker(jars):
    choice = choose.choose("a.example:9092, b.example:9093", jars=jars)

    assert (choice.kind, choice.bootstrap) == ("given", "a.example:9092,b.example:9093")


@pytest.mark.parametrize("wanted", ["redpanda", "host", ":9092", "host:0", "host:70000", "host:x", "a:1,,b:2", ""])
def test_anything_else_is_refused(wanted):
    with pytest.raises(NoSuchBroker, match="is none of auto, embedded, kafka or HOST:PORT"):
        choose.choose(wanted)


def test_a_machine_without_any_broker_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(choose.embedded, "binary", lambda: None)
    with pytest.raises(NoSuchBroker, match="Give one with --broker HOST:PORT"):
        choose.choose("auto", jars=tmp_path)
    with pytest.raises(NoSuchBroker, match="has no broker for this machine"):
        choose.choose("embedded", jars=tmp_path)


def test_nothing_lacks_where_all_is_there(jars, java_17):
    assert kafka_lacks(jars) is None


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ('openjdk version "24-ea" 2025', 24),
    ],
)
def test_the_version_of_a_java_is_read(said, version):
    assert int(java._VERSION.search(said)[1]) == version


def test_processes_that_were_seeded_alike_do_not_try_the_same_ports():
    random.seed(7)
    ports = free_ports(4)
    random.seed(7)

    assert free_ports(4) != ports


def test_free_ports_are_different_and_below_those_of_outgoing_connections():
    ports = free_ports(20)

    assert len(set(ports)) == 20
    assert all(20_000 <= port < 32_000 for port in ports)


def test_a_port_that_somebody_listens_on_is_not_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert not is_free(taken)
    assert is_free(taken)


THREE = ClusterPlan("id", (NodePlan(1, 101, 201), NodePlan(2, 102, 202), NodePlan(3, 103, 203)))


def properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_three_nodes_know_each_other_and_keep_two_copies_before_they_acknowledge():
    written = properties(server_properties(THREE, THREE.nodes[1], "/data/log"))

    assert written["node.id"] == "2"
    assert written["controller.quorum.voters"] == "1@127.0.0.1:201,2@127.0.0.1:202,3@127.0.0.1:203"
    assert written["listeners"] == "PLAINTEXT://127.0.0.1:102,CONTROLLER://127.0.0.1:202"
    assert (written["offsets.topic.replication.factor"], written["min.insync.replicas"]) == ("3", "2")
    assert THREE.bootstrap == "127.0.0.1:101,127.0.0.1:102,127.0.0.1:103"


def test_one_node_keeps_one_copy_and_never_makes_topics_by_itself():
    one = ClusterPlan("id", (NodePlan(1, 101, 201),))
    written = properties(server_properties(one, one.nodes[0], "/data/log"))

    assert (written["offsets.topic.replication.factor"], written["min.insync.replicas"]) == ("1", "1")
    assert (written["auto.create.topics.enable"], written["unclean.leader.election.enable"]) == ("false", "false")


def test_a_backslash_in_a_path_survives_java_s_properties_format():
    assert r"appender.file.fileName=C:\\data\\broker.log" in log4j2_properties(r"C:\data\broker.log").splitlines()


def test_a_cluster_keeps_its_ports_and_its_size(tmp_path):
    first = KafkaBroker(tmp_path, nodes=3)
    again = KafkaBroker(tmp_path)

    assert again.plan == first.plan
    assert len(again.nodes) == 3


def test_a_port_that_somebody_took_meanwhile_is_chosen_anew(tmp_path):
    first = KafkaBroker(tmp_path)
    with socket.create_server(("127.0.0.1", first.plan.nodes[0].port)):
        again = KafkaBroker(tmp_path)

    assert again.plan.cluster_id == first.plan.cluster_id
    assert again.bootstrap != first.bootstrap
    assert KafkaBroker(tmp_path).plan == again.plan


def test_a_broken_cluster_file_is_said_and_not_overwritten(tmp_path):
    file = tmp_path / "cluster.json"
    file.write_text(json.dumps({"cluster_id": "x"}))
    with pytest.raises(BrokerFailed, match=r"cluster\.json cannot be read \(KeyError\)"):
        KafkaBroker(tmp_path)

    assert json.loads(file.read_text()) == {"cluster_id": "x"}
