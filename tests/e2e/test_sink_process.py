"""`tenterhook sink` as a process: what it prints, verifies and answers."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

TENTERHOOK = Path(sys.executable).with_name("tenterhook")
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@contextmanager
def sink(*options, port=0, **environment):
    process = subprocess.Popen(
        [TENTERHOOK, "sink", "--port", str(port), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        yield process, re.search(r"http://\S+", process.stderr.readline())[0]
    finally:
        process.kill()
        process.communicate()


def stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    return process.returncode, out, err


def signed(body):
    now = datetime.now(UTC)
    return {
        "X-ApifyCloud-Event": "call_ended",
        "X-ApifyCloud-Delivery": "int_1:1",
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("evt_1", now, body),
    }


def test_each_arrival_is_a_line_of_json_with_the_verdicts():
    with sink("--json", TENTERHOOK_SIGNING_SECRET=SECRET) as (process, url):
        answer = httpx.post(f"{url}/hook?a=b", content='{"a":1}', headers=signed('{"a":1}'))
        first = json.loads(process.stdout.readline())
        httpx.post(url, content='{"a":2}', headers=signed('{"a":1}'))
        second = json.loads(process.stdout.readline())
        code, _, err = stop(process)

    assert answer.status_code == 200
    assert (first["event"], first["delivery"], first["path"]) == ("call_ended", "int_1:1", "/hook?a=b")
    assert (first["body"], first["standardSignature"], first["signature"]) == ({"a": 1}, "yes", "unsigned")
    assert (second["number"], second["standardSignature"]) == (2, "no")
    assert (code, err.strip()) == (0, "2 arrived")


def test_people_read_what_came_and_what_was_answered():
    with sink("--status", "503", "--secret", SECRET) as (process, url):
        answer = httpx.post(url, content='{"a":1}', headers=signed('{"a":1}') | {"X-Own": "[bold]own[/bold]"})
        code, out, _ = stop(process, signal.SIGINT)

    assert answer.status_code == 503
    assert "#1 call_ended  int_1:1  sha256 unsigned webhook ✓   → 503" in out
    assert "X-Own: [bold]own[/bold]" in out
    assert '"a": 1' in out
    assert code == 0


def test_flapping_answers_in_turns():
    with sink("--flap", "2", "--status", "429", "--quiet") as (process, url), httpx.Client() as client:
        assert [client.post(url).status_code for _ in range(6)] == [429, 429, 200, 200, 429, 429]
        assert stop(process)[0] == 0


def test_a_hanging_sink_answers_nothing_and_still_stops_at_once():
    with sink("--hang", "--json") as (process, url):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, timeout=0.3)
        assert json.loads(process.stdout.readline())["answered"] is None
        assert stop(process)[0] == 0


def test_a_port_that_is_taken_is_said_in_one_line():
    with sink() as (_, url):
        second = subprocess.run(
            [TENTERHOOK, "sink", "--port", url.rpartition(":")[2]],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    assert second.returncode == 1
    assert "something else does" in second.stderr
    assert second.stderr.count("\n") == 1
