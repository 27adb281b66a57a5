"""What `tenterhook up` decides to start, before it starts anything."""

import base64
import socket

import pytest

from services.cli.data_dir import held
from services.cli.errors import Failed, WrongUsage
from services.cli.planning import FORGETS, Options, plan_of

ELSEWHERE = "kafka.example:9092,kafka2.example:9092"


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """The plan for these options, in an empty folder; `said` collects what is told."""
    monkeypatch.chdir(tmp_path)

    def made(broker=ELSEWHERE, ingest_port=0, admin_port=0, *, private=True):
        with held(tmp_path / "data") as folder:
            return plan_of(Options(broker, ingest_port, admin_port, private), folder, made.said.append)

    made.said = []
    return made


def test_services_are_told_through_variables(plan, tmp_path):
    made = plan()
    told = {name: value for name, value in made.environment.items() if name.startswith("TENTERHOOK_")}

    assert told == {
        "TENTERHOOK_BROKER": ELSEWHERE,
        "TENTERHOOK_KEK_FILE": str(tmp_path / "data" / "kek"),
        "TENTERHOOK_LOG_LEVEL": "warning",
        "TENTERHOOK_LOG_FORMAT": "console",
        "TENTERHOOK_INGEST__PORT": str(made.settings.ingest.port),
        "TENTERHOOK_ADMIN__PORT": str(made.settings.admin.port),
        "TENTERHOOK_DISPATCHER__PORT": str(made.settings.dispatcher.port),
        "TENTERHOOK_BREAKER__PORT": str(made.settings.breaker.port),
        "TENTERHOOK_HISTORY__DIRECTORY": str(tmp_path / "data" / "history"),
        "TENTERHOOK_DISPATCHER__ALLOW_PRIVATE_ADDRESSES": "True",
    }


def test_free_ports_are_three_different_ones(plan):
    settings = plan().settings

    assert len({settings.ingest.port, settings.admin.port, settings.dispatcher.port, 0}) == 4


def test_what_the_user_has_set_stays(plan, monkeypatch, tmp_path):
    (tmp_path / "tenterhook.toml").write_text('log_level = "debug"\nbroker = "other.example:9092"\n')
    monkeypatch.setenv("TENTERHOOK_LOG_FORMAT", "json")
    monkeypatch.setenv("TENTERHOOK_KEK", base64.b64encode(bytes(32)).decode())
    made = plan(broker=None)

    assert made.settings.broker == "other.example:9092"
    assert (made.settings.log_level, made.settings.log_format) == ("debug", "json")
    assert made.settings.kek_file is None
    assert "TENTERHOOK_KEK_FILE" not in made.environment
    assert not (tmp_path / "data" / "kek").exists()
    assert "as the settings say" in made_said(plan)


def test_the_command_line_outweighs_the_settings(plan, monkeypatch):
    monkeypatch.setenv("TENTERHOOK_BROKER", "other.example:9092")
    monkeypatch.setenv("TENTERHOOK_DISPATCHER__ALLOW_PRIVATE_ADDRESSES", "true")
    made = plan(private=False)

    assert made.settings.broker == ELSEWHERE
    assert made.environment["TENTERHOOK_DISPATCHER__ALLOW_PRIVATE_ADDRESSES"] == "False"


def test_the_embedded_broker_is_said_to_forget_and_how_to_get_one_that_does_not(plan):
    made = plan(broker="embedded")

    assert made.broker.kind == "embedded"
    assert made.settings.broker == made.broker.bootstrap
    assert FORGETS in made_said(plan)
    assert all(word in FORGETS for word in ("in memory", "Java 17", "make kafka", "--broker kafka"))


@pytest.mark.parametrize("option", ["ingest_port", "admin_port"])
def test_a_port_that_is_taken_is_named_with_its_option(plan, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            Failed, match=rf"cannot listen on 127.0.0.1:{port}: Address already in use\. .*--{option.replace('_', '-')}"
        ):
            plan(**{option: port})


def test_two_services_cannot_have_one_port(plan):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    with pytest.raises(WrongUsage, match=r"--ingest-port and --admin-port are both"):
        plan(ingest_port=port, admin_port=port)


@pytest.mark.parametrize("broker", ["nowhere", "", "host:", "host:0", "host:70000", "a:1,,b:2"])
def test_what_is_no_broker_is_wrong_usage(plan, broker):
    with pytest.raises(WrongUsage, match="auto, embedded, kafka or HOST:PORT"):
        plan(broker=broker)


def test_a_kek_that_is_none_is_said_before_anything_starts(plan, monkeypatch):
    monkeypatch.setenv("TENTERHOOK_KEK", "s3cret")

    with pytest.raises(Failed, match=r"TENTERHOOK_KEK is not base64") as failed:
        plan()

    assert "s3cret" not in str(failed.value)


def test_a_wrong_setting_is_named_without_its_value(plan, monkeypatch):
    monkeypatch.setenv("TENTERHOOK_INGEST__PORT", "s3cret")

    with pytest.raises(Failed, match=r"wrong settings: ingest\.port") as failed:
        plan()

    assert "s3cret" not in str(failed.value)


def made_said(plan):
    return "\n".join(plan.said)


def test_tls_and_users_are_for_a_broker_of_ones_own(plan, monkeypatch, tmp_path):
    monkeypatch.setenv("TENTERHOOK_KAFKA__SECURITY_PROTOCOL", "SSL")
    with pytest.raises(Failed, match=r"the settings want SSL, and the broker that `up` starts has neither"):
        plan(broker="embedded")
    assert plan().settings.kafka.security_protocol == "SSL"

    monkeypatch.setenv("TENTERHOOK_KAFKA__CA_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(Failed, match=r"kafka\.file_unusable: the file .*none\.pem"):
        plan()
