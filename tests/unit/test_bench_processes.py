"""What Linux tells of processes, asked about real ones."""

import os
import socket
import subprocess
import sys
import time

import pytest

from services.cli.bench import processes


def test_a_process_that_works_is_charged_for_it():
    before = processes.cpu_ms(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass

    assert 80 <= processes.cpu_ms(os.getpid()) - before <= 200


def test_the_machine_was_busy_at_least_as_long_as_one_of_its_processes():
    assert processes.machine_ms() >= processes.cpu_ms(os.getpid()) > 0


def test_memory_of_a_process_is_told_and_that_of_none_is_zero():
    assert processes.pss_bytes(os.getpid()) > 1_000_000
    assert processes.pss_bytes(2**22 + 1) == 0
    assert processes.cpu_ms(2**22 + 1) == 0


def test_a_tree_holds_children_of_children():
    grandchild = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    child = subprocess.Popen([sys.executable, "-c", grandchild], stdin=subprocess.PIPE)
    try:
        until = time.monotonic() + 10
        while len(processes.tree(child.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        found = processes.tree(child.pid)
        assert [each.parent for each in found] == [os.getpid(), child.pid]
    finally:
        child.communicate(b"\n", timeout=10)
    assert processes.tree(child.pid) == []


def test_who_listens_on_a_port_is_found():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert processes.listener(port) == os.getpid()
    assert processes.listener(port) is None


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/x/bin/python", "-P", "-m", "services.cli", "dispatcher"], "dispatcher"),
        (["/x/bin/python", "/x/bin/tenterhook", "up", "--broker", "kafka"], "up"),
        (["java", "-Xmx512m", "kafka.Kafka", "/x/server.properties"], "broker"),
        (["/x/tansu", "broker", "--cluster-id", "c"], "broker"),
        (["/usr/bin/other", "-v"], "other"),
        ([], "?"),
    ],
)
def test_a_process_is_called_what_people_call_it(argv, name):
    assert processes.name_of(argv) == name
