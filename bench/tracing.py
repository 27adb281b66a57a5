"""
What metrics and traces cost: the CPU of a delivery without either, with Prometheus asking, and with one event in ten
traced as well.

A round runs all three, one after the other, each with a tenterhook and a broker of its own; the next round begins with
another one. One integration gets every event, so a delivery has four spans: with more of them it has fewer. Services
and broker are counted; load, receiver, and whoever asks and collects are not.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from services.cli.brokers.ports import free_ports

#: As Prometheus is told in `deploy/prometheus/prometheus.yml`, or more often.
SCRAPED_EVERY_S: Final = 5.0
SHARE: Final = 0.1
_READY_S: Final = 120.0

Run = dict[str, Any]
Say = Callable[[str], None]

#: Name to whether `/metrics` is asked for, and the share that is traced.
VARIANTS: Final[dict[str, tuple[bool, float | None]]] = {
    "neither": (False, None),
    "metrics": (True, None),
    "metrics and traces": (True, SHARE),
}


def measure(rounds: int, events: int, broker: str, say: Say) -> list[dict[str, Run]]:
    """Each round, the JSON of `tenterhook bench` by variant, with the spans that were taken and dropped."""
    found = []
    names = list(VARIANTS)
    for number in range(rounds):
        this = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            this[name] = run = _run(*VARIANTS[name], events=events, broker=broker)
            say(f"round {number + 1}, {name}: {_line(run)}")
        found.append(this)
    return found


def summary(found: list[dict[str, Run]], spread: Callable[[list[float], str], str]) -> list[str]:
    """For people."""
    lines = [f"CPU of a delivery, {len(found)} rounds, median (least to greatest):"]
    for name in VARIANTS:
        runs = [each[name] for each in found]
        ratios = [each[name]["cpuMsPerDelivery"] / each["neither"]["cpuMsPerDelivery"] for each in found]
        lines.append(
            f"  {name:20} {spread([run['cpuMsPerDelivery'] for run in runs], '.4f')} ms, "
            f"{spread(ratios, '.3f')} of neither; "
            f"{spread([run['deliveriesPerS'] for run in runs], ',.0f')} deliveries/s"
        )
    lines += [f"  faults: {run['faults']}" for each in found for run in each.values() if run["faults"]]
    return lines


def _line(run: Run) -> str:
    return (
        f"{run['cpuMsPerDelivery']:.4f} ms of CPU a delivery, {run['deliveriesPerS']:,.0f} deliveries/s, "
        f"{run['spansTaken']:,} spans taken, {run['spansDropped']:,} dropped, {run['othersCores']:.2f} cores of others"
    )


def _run(is_scraped: bool, share: float | None, *, events: int, broker: str) -> Run:
    with tempfile.TemporaryDirectory(prefix="tenterhook-bench-") as name, _collector() as collector:
        ports = dict(zip(("ingest", "admin", "dispatcher", "breaker"), free_ports(4), strict=True))
        own = {"DISPATCHER__PORT": ports["dispatcher"], "BREAKER__PORT": ports["breaker"]}
        if share is not None:
            own |= {"TRACING__ENDPOINT": collector, "TRACING__SAMPLED_SHARE": share}
        with _up(Path(name), broker, ports, {f"TENTERHOOK_{key}": str(value) for key, value in own.items()}) as ready:
            with _scraped(ports if is_scraped else {}):
                done = subprocess.run(
                    [
                        *(sys.executable, "-m", "services.cli", "bench", "--json", "--ready-file", ready),
                        *("--ordering", "none", "--integrations", "1", "--events", str(events)),
                    ],
                    check=False,
                    capture_output=True,
                    text=True,
                )
            time.sleep(3)  # what waits for the collector has gone
            texts = [_metrics(ports[service]) for service in ("ingest", "dispatcher")]
    try:
        run: Run = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-2000:]}") from None
    run["spansTaken"] = sum(_counted(text, "tenterhook_trace_spans_exported_total") for text in texts)
    run["spansDropped"] = sum(_counted(text, "tenterhook_trace_spans_dropped_total") for text in texts)
    return run


@contextmanager
def _up(folder: Path, broker: str, ports: dict[str, int], environment: dict[str, str]) -> Iterator[Path]:
    ready = folder / "ready.json"
    with (folder / "up.log").open("wb") as lines:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "services.cli", "up", "--broker", broker, "--data", str(folder / "data")),
                *("--ready-file", str(ready), "--ingest-port", str(ports["ingest"])),
                *("--admin-port", str(ports["admin"])),
            ],
            env=os.environ | environment,
            stdout=lines,
            stderr=lines,
            cwd=folder,
        )
        try:
            until = time.monotonic() + _READY_S
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError((folder / "up.log").read_text()[-2000:])
                time.sleep(0.2)
            yield ready
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _scraped(ports: dict[str, int]) -> Iterator[None]:
    """These are asked for their metrics, again and again, for the time of the block."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(SCRAPED_EVERY_S):
            for port in ports.values():
                _metrics(port)

    asking = threading.Thread(target=ask)
    if ports:
        asking.start()
    try:
        yield
    finally:
        over.set()
        if ports:
            asking.join()


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _counted(text: str, name: str) -> int:
    return int(sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)))


@contextmanager
def _collector() -> Iterator[str]:
    """Takes everything, keeps nothing."""

    class Taking(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
