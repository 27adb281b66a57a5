"""The image's health check knows the service by the command line of the container's first process."""

import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from typing import get_args

import pytest

from services.runtime.metric import Service
from services.runtime.settings import Settings

ROOT = Path(__file__).parents[2]
SPEC = spec_from_file_location("healthy", ROOT / "deploy" / "image" / "healthy.py")
healthy = module_from_spec(SPEC)
SPEC.loader.exec_module(healthy)

[SCRIPT] = re.findall(
    r"^\[project\.scripts\]\n(\w+) = ", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
)
#: What starts tenterhook as the first process: the image, an interpreter, an emulator, and `docker run --init`.
STARTS = [
    f"/opt/tenterhook/bin/python /opt/tenterhook/bin/{SCRIPT}",
    f"/opt/tenterhook/bin/python3 /opt/tenterhook/bin/{SCRIPT}",
    "/opt/tenterhook/bin/python -m services.cli",
    f"/usr/bin/qemu-x86_64 /opt/tenterhook/bin/python /opt/tenterhook/bin/{SCRIPT}",
    f"/sbin/docker-init -- {SCRIPT}",
]


class Services:
    """In place of their ports."""

    def __init__(self):
        self.asked = []
        self.are_live = True

    def is_live(self, service):
        self.asked.append(service)
        return self.are_live


@pytest.fixture
def services(monkeypatch):
    there = Services()
    monkeypatch.setattr(healthy, "is_live", there.is_live)
    return there


def test_the_ports_are_those_of_the_settings():
    own = Settings()

    assert {service: getattr(own, service).port for service in get_args(Service)} == healthy.PORTS


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("service", get_args(Service))
def test_a_service_is_asked_however_it_was_started(start, service, services):
    command = [*start.split(), service]

    assert healthy.verdict([], command) == 0
    services.are_live = False
    assert healthy.verdict([], command) == 1
    assert services.asked == [service] * 2


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "arguments",
    ["--help", "breaker --rebuild --verify", "deliveries --app admin", "reconcile", "doctor", "quarantine list ingest"],
)
def test_a_command_has_no_health_also_where_a_service_s_name_is_in_it(start, arguments, services):
    assert healthy.verdict([], [*start.split(), *arguments.split()]) == 0
    assert services.asked == []


@pytest.mark.parametrize(
    "command", [["sleep", "infinity"], ["sh", "-c", "umask 077 && tenterhook ingest"], ["/sbin/init"], [""], ["ingest"]]
)
def test_what_is_no_tenterhook_is_not_healthy_and_it_says_what_to_do(command, services):
    said = healthy.verdict([], command)

    assert isinstance(said, str)  # which Python prints, and exits with 1
    assert "name a service, of ingest, admin" in said
    assert healthy.verdict(["dispatcher"], command) == 0
    assert services.asked == ["dispatcher"]


@pytest.mark.parametrize("named", [["dispatchers"], ["--help"], ["breaker-1", "breaker"]])
def test_a_name_that_is_no_service_s_is_not_healthy(named, services):
    assert isinstance(healthy.verdict(named, [*STARTS[0].split(), "ingest"]), str)
    assert services.asked == []


def test_the_kernel_s_form_of_a_script_is_known(tmp_path):
    """What stands in /proc of one with a first line that names its interpreter, as the image's entry point."""
    script = tmp_path / SCRIPT
    script.write_text(f"#!{sys.executable}\nimport sys; print(flush=True); sys.stdin.read()\n")
    script.chmod(0o755)
    with subprocess.Popen([script, "breaker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        running.stdout.readline()  # it is there by now
        command = Path(f"/proc/{running.pid}/cmdline").read_text().rstrip("\0").split("\0")
        running.stdin.close()

    assert len(command) == 3
    assert healthy.asked_of(command) == ["breaker"]


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_port_of_the_environment_is_asked_whether_it_is_live(status, code, monkeypatch):
    paths = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.handle_request).start()
        monkeypatch.setenv("TENTERHOOK_ADMIN__PORT", str(server.server_port))
        assert healthy.verdict([], [*STARTS[0].split(), "admin"]) == code
    assert healthy.verdict([], [*STARTS[0].split(), "admin"]) == 1, "nobody is there"
    assert paths == ["/health/live"]
