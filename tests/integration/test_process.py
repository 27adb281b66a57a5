"""What surrounds a service's `main`, as processes: exit codes, signals, lines on stderr."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SERVICE = """
import asyncio, logging
from services.runtime.process import StartupError, run_service
import structlog

log = structlog.get_logger()

async def main(settings, stop):
    {body}

main.__module__ = "services.sample.app"
raise SystemExit(run_service(main))
"""


def start(body: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVICE.format(body=body.replace("\n", "\n    "))],
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def run(body: str, **environment: str) -> tuple[int, str]:
    process = start(body, **environment)
    _, stderr = process.communicate(timeout=20)
    return process.returncode, stderr


def lines(stderr: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stderr.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_service_drain_and_ends_it_well(number):
    process = start("log.info('sample.started')\nawait stop.wait()\nlog.info('sample.drained')")
    assert process.stderr is not None
    first = process.stderr.readline()
    process.send_signal(number)
    _, rest = process.communicate(timeout=20)

    assert process.returncode == 0
    assert [line["event"] for line in lines(first + rest)] == ["sample.started", "service.stopping", "sample.drained"]


def test_a_service_tells_where_its_tasks_stand_and_goes_on():
    process = start("log.info('sample.started')\nawait stop.wait()\nlog.info('sample.drained')")
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGUSR1)
    [told] = lines(process.stderr.readline())
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=20)

    assert told["event"] == "tasks.listed"
    assert any("<string>" in place["awaits"] and " main" in place["awaits"] for place in told["places"])
    assert [line["event"] for line in lines(rest)] == ["service.stopping", "sample.drained"]


def test_a_second_signal_ends_a_service_that_does_not_drain():
    process = start("log.info('sample.started')\nawait asyncio.Event().wait()")
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=20)

    assert process.returncode == 1
    assert [line["event"] for line in lines(rest)] == ["service.aborted"]


def test_what_keeps_a_service_from_starting_is_one_clear_line():
    code, stderr = run("raise StartupError('there is no key. Make one.')")

    assert code == 1
    assert stderr == "tenterhook sample: there is no key. Make one.\n"


def test_a_wrong_setting_is_named_and_its_value_is_not_repeated():
    code, stderr = run("pass", TENTERHOOK_INGEST__PORT="sk_live_by_mistake")

    assert code == 1
    assert stderr.startswith("tenterhook sample: wrong settings: ingest.port: ")
    assert stderr.count("\n") == 1
    assert "sk_live" not in stderr


def test_a_settings_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "tenterhook.toml").write_text('kek = "sk_live')
    finished = subprocess.run(
        [sys.executable, "-c", SERVICE.format(body="pass")],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert finished.returncode == 1
    assert finished.stderr.startswith("tenterhook sample: tenterhook.toml is no TOML: ")
    assert finished.stderr.count("\n") == 1
    assert "sk_live" not in finished.stderr


def test_a_crash_is_logged_and_ends_the_process_badly():
    code, stderr = run("raise RuntimeError('a bug')")

    [line] = lines(stderr)
    assert code == 1
    assert line["event"] == "service.crashed"
    assert "RuntimeError: a bug" in str(line["exception"])


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_crash_shows_no_value_of_a_variable(form):
    _, stderr = run("opened = ''.join(['plain-', 'secret'])\nraise RuntimeError('a bug')", TENTERHOOK_LOG_FORMAT=form)

    assert "RuntimeError: a bug" in stderr
    assert "plain-secret" not in stderr


def test_lines_are_json_that_names_the_service_and_carry_what_is_bound():
    code, stderr = run(
        "structlog.contextvars.bind_contextvars(app='demo')\nlog.info('sample.done', count=3)\nlog.debug('no')"
    )

    [line] = lines(stderr)
    assert code == 0
    assert line.pop("timestamp")
    assert re.fullmatch(r".+-\d+", line.pop("worker"))
    assert line == {"event": "sample.done", "level": "info", "service": "sample", "app": "demo", "count": 3}


def test_lines_for_people_where_they_are_asked_for():
    _, stderr = run("log.warning('sample.done', count=3)", TENTERHOOK_LOG_FORMAT="console")

    assert "sample.done" in stderr
    assert "count=3" in stderr
    assert not stderr.startswith("{")


def test_a_library_that_repeats_itself_is_heard_once():
    _, stderr = run(
        "for host in 'abc':\n"
        "    logging.getLogger('aiokafka').error('cannot connect to %s', host)\n"
        "    logging.getLogger('aiokafka').info('a detail')\n"
        "    log.warning('sample.noticed', host=host)\n"
        "logging.getLogger('aiokafka').error('something else')"
    )

    assert [line["event"] for line in lines(stderr)] == [
        "cannot connect to a",
        "sample.noticed",
        "sample.noticed",
        "sample.noticed",
        "something else",
    ]
