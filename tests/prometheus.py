"""Debian's Prometheus for tests, where it is installed."""

import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.cli.brokers.ports import free_ports
from services.cli.die_with_parent import die_with
from tests.waiting import eventually

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"

needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None,
    reason="no Prometheus here: make prometheus installs it where it can",
)


class Prometheus:
    """A process of it, that reads *targets* every second under rules of the test's own."""

    def __init__(self, folder: Path, rules: object, targets: dict[str, str]) -> None:
        """
        Args:
            targets: by instance, `host:port`.
        """
        [self._port] = free_ports(1)
        self._folder = folder
        folder.mkdir()
        (folder / "rules.yml").write_text(json.dumps(rules))
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms"}
        configs = [
            {"targets": [target], "labels": {"instance": instance}} for instance, target in sorted(targets.items())
        ]
        scraped = [{"job_name": "tenterhook", "static_configs": configs}]
        (folder / "prometheus.yml").write_text(
            json.dumps({"global": every, "rule_files": ["rules.yml"], "scrape_configs": scraped})
        )
        self._http: aiohttp.ClientSession

    async def _asked(self, path: str, **query: str) -> Any:
        async with self._http.get(f"http://127.0.0.1:{self._port}{path}", params=query) as response:
            answer = await response.json()
            assert answer["status"] == "success", answer
            return answer["data"]

    async def is_ready(self) -> bool:
        with suppress(aiohttp.ClientError):
            async with self._http.get(f"http://127.0.0.1:{self._port}/-/ready") as response:
                return response.status == 200
        return False

    async def value(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Each series of the answer, and its value now."""
        found = await self._asked("/api/v1/query", query=query)
        return [(each["metric"], float(each["value"][1])) for each in found["result"]]

    async def alerts(self) -> dict[str, str]:
        """By name, its state: `pending` or `firing`."""
        found = await self._asked("/api/v1/alerts")
        return {
            each["labels"]["alertname"]: each["state"]
            for each in sorted(found["alerts"], key=lambda a: a["state"] == "firing")
        }

    async def fired(self, last_s: float) -> set[str]:
        """All that have fired within the last seconds."""
        found = await self.value(f'count_over_time(ALERTS{{alertstate="firing"}}[{int(last_s * 1_000)}ms])')
        return {labels["alertname"] for labels, _ in found}

    def _start(self) -> "subprocess.Popen[bytes]":
        arguments = {
            "config.file": self._folder / "prometheus.yml",
            "storage.tsdb.path": self._folder / "data",
            "web.listen-address": f"127.0.0.1:{self._port}",
            "log.level": "warn",
        }
        with (self._folder / "output.txt").open("wb") as output:
            return subprocess.Popen(
                ["prometheus", *(f"--{name}={value}" for name, value in arguments.items())],
                stdout=output,
                stderr=output,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - before any thread of ours matters
            )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Prometheus"]:
        process = self._start()
        try:
            async with aiohttp.ClientSession() as self._http:
                await eventually(self.is_ready, 60)
                yield self
        finally:
            process.kill()
            process.wait()
