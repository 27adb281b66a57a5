"""Log lines: one line each, whatever is in them."""

import hashlib
import json
import logging
import threading

import pytest
import structlog

from services.runtime.logs import configure_command_logs, configure_logs
from services.runtime.settings import DispatcherSettings, Settings

#: A forged line, colours, a cleared screen, a single-character CSI, ends of lines of other standards, turned text.
HOSTILE = 'evt_1\n2026-01-01T00:00:00Z [info     ] all.well\r\x1b[31m\x1b[2J\x9b1m\x00\x7f\x85\u2028\u2029\u202e"\\'


def fail():
    raise RuntimeError(HOSTILE)


@pytest.fixture
def lines(capsys):
    """What is logged from here on, in each format."""
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, structlog.get_config()
    levels = {name: logging.getLogger(name).level for name in ("aiokafka", "aiohttp", "asyncio", "faust", "mode")}

    def lines(log_format: str) -> list[str]:
        configure_logs(Settings(log_format=log_format), "dispatcher")
        log = structlog.get_logger("services.test")
        log.warning("delivery.set_aside", delivery=HOSTILE, ids=[HOSTILE], raw=HOSTILE.encode())
        logging.getLogger("aiokafka.client").warning("no topic %s", HOSTILE)
        try:
            fail()
        except RuntimeError:
            log.exception("attempt.raised", delivery="dlv_1")
        return capsys.readouterr().err.removesuffix("\n").split("\n")

    yield lines
    root.handlers[:], root.level = handlers, level
    structlog.configure(**configured)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def test_json_has_one_line_for_each_and_nothing_that_a_terminal_obeys(lines):
    told = lines("json")

    assert len(told) == 3
    assert all(line.isascii() and line.isprintable() for line in told)
    first, second, third = map(json.loads, told)
    assert (first["event"], first["delivery"], first["ids"]) == ("delivery.set_aside", HOSTILE, [HOSTILE])
    assert second["event"] == f"no topic {HOSTILE}"
    assert "RuntimeError" in third["exception"]


def test_every_line_names_its_worker_those_of_libraries_and_threads_too(lines, capsys):
    lines("json")
    own = {"worker_id": "host-1", "instance_id": "dispatcher-0"}
    configure_logs(Settings(log_format="json", dispatcher=DispatcherSettings(**own)), "dispatcher")
    thread = threading.Thread(target=lambda: logging.getLogger("aiokafka.client").error("no node"))
    thread.start()
    thread.join()
    structlog.get_logger("dispatcher.catch_up").warning("catch_up.raised", retry_s=1)

    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in told] == ["no node", "catch_up.raised"]
    assert [(line["service"], line["worker"], line["instance"]) for line in told] == [
        ("dispatcher", "host-1", "dispatcher-0")
    ] * 2


def test_a_terminal_gets_one_line_for_each_and_nothing_that_it_obeys(lines):
    told = lines("console")

    starts = [line for line in told if "[warning" in line or "[error" in line]
    assert len(starts) == 3
    # What follows the last is its traceback.
    assert told[:3] == starts
    assert told[3] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in told[3:])
    assert all(line.isprintable() for line in told)
    assert not any(line.startswith("2026-01-01") for line in told)
    assert all(r"\x1b[31m" in line for line in told[:2])
    assert r"\x1b[31m" in "".join(told[3:])


def fail_with(secret):
    raise RuntimeError(f"{HOSTILE} of {len(secret)} bytes")


def test_a_command_warns_on_stderr_and_shows_no_local_variable_and_nothing_that_a_terminal_obeys(capsys):
    """And leaves stdout to what the command was asked for."""
    configured = structlog.get_config()
    structlog.reset_defaults()
    try:
        configure_command_logs()
        log = structlog.get_logger("streams.test")
        log.info("schemas.added")
        log.warning("schemas.not_read", reason="away", topic=HOSTILE)
        try:
            fail_with(hashlib.sha256(b"whsec").hexdigest()[:8])
        except RuntimeError:
            log.exception("schemas.raised")
        said = capsys.readouterr()
        assert said.out == ""
        assert "schemas.added" not in said.err
        first, second, *traceback = said.err.removesuffix("\n").split("\n")
        assert "schemas.not_read" in first
        assert "schemas.raised" in second
        assert traceback[0] == "    Traceback (most recent call last):"
        assert hashlib.sha256(b"whsec").hexdigest()[:8] not in said.err
        assert all(line.isprintable() for line in (first, second, *traceback))
    finally:
        structlog.configure(**configured)
