"""`tenterhook bench` against the real thing: small runs on a tenterhook that it starts itself."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services.cli.access import AdminOptions
from services.cli.bench import bench
from services.cli.bench.stack import Stack, own_stack
from services.cli.brokers.embedded import binary

SERVICES = {"up", "broker", "ingest", "dispatcher", "breaker", "admin"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """On Apache Kafka where it is there, else on the embedded broker."""
    with own_stack("auto") as started:
        yield started


def measure(stack: Stack, capsys: pytest.CaptureFixture[str], **options: object) -> tuple[int, dict]:
    """Exit code and JSON of a small run."""
    admin = AdminOptions(app=stack.admin.app, admin=stack.admin.url, token=stack.admin.credential)
    small = {"events": 200, "warm_up": 20, "connections": 8, "broker": stack.broker, **options}
    code = bench(ingest=stack.ingest.url, key=stack.ingest.credential, access=admin, as_json=True, **small)
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("connections", [1, 32])
def test_the_default_ordering_loses_repeats_and_reorders_nothing(stack, capsys, connections):
    code, outcome = measure(stack, capsys, connections=connections)

    assert (code, outcome["faults"]) == (0, [])
    assert (outcome["accepted"], outcome["deliveries"]) == (200, 600)
    assert (outcome["lost"], outcome["repeated"], outcome["outOfOrder"]) == (0, 0, [0, 0, 0])


def test_every_process_of_up_is_charged(stack, capsys):
    _, outcome = measure(stack, capsys, ordering="none", events=600, stages=True)

    counted = {each["name"]: each for each in outcome["processes"] if each["counts"]}
    assert set(counted) == SERVICES
    assert all(counted[name]["cpuMs"] > 0 for name in ("broker", "ingest", "dispatcher"))
    assert all(each["pssBytes"] > 1_000_000 for each in counted.values())
    total = sum(each["cpuMs"] for each in counted.values())
    assert outcome["cpuMsPerDelivery"] == pytest.approx(total / 1_800, abs=0.001)
    assert sum(stage["p50"] for stage in outcome["stagesMs"].values()) > 0


def test_more_than_three_integrations_are_booking_subscriptions(stack, capsys):
    code, outcome = measure(stack, capsys, profile="booking", integrations=5, events=50)

    assert (code, outcome["deliveries"], outcome["outOfOrder"]) == (0, 250, [0] * 5)


class _Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).seen += 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_arrivals_at_a_given_receiver_are_read_from_the_log(stack, capsys):
    _Receiver.seen = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), _Receiver) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/hook"
            code, outcome = measure(stack, capsys, receiver=url, events=60, integrations=2)
        finally:
            server.shutdown()

    assert (code, outcome["deliveries"], outcome["lost"], outcome["repeated"]) == (0, 120, 0, 0)
    assert _Receiver.seen == 160
    assert outcome["latencyMs"]["p50"] > 0


@pytest.mark.skipif(binary() is None, reason="no embedded broker for this machine")
def test_it_starts_and_stops_a_tenterhook_of_its_own():
    command = [sys.executable, "-P", "-m", "services.cli", "bench", "--start", "--broker", "embedded", "--json"]
    done = subprocess.run([*command, "--events", "100", "--warm-up", "0"], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["broker"], outcome["deliveries"], outcome["outOfOrder"]) == ("embedded", 300, [0, 0, 0])


def test_wrong_usage_exits_with_2_and_says_what_to_do():
    command = [sys.executable, "-P", "-m", "services.cli", "bench", "--integrations", "4"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert done.returncode == 2
    assert "--profile booking" in done.stderr
