"""Stock Faust on a stage, beside which tenterhook is measured: see `stock_worker.py`."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.stage import PARTITIONS, Stage
from streams import topics
from streams.engine.app import HEARTBEAT_S

#: What Faust's settings are in tenterhook's dispatcher: a dead worker is noticed after 6 s instead of 60, and what was
#: processed is committed each 0.25 s instead of each 2.8.
AS_OURS: Final[Mapping[str, float]] = {
    "broker_session_timeout": 6, "broker_heartbeat_interval": HEARTBEAT_S, "broker_rebalance_timeout": 30,
    "broker_commit_interval": 0.25,
}  # fmt: skip


class Stock:
    """One app, of any number of workers, that delivers every event of the stage to these addresses."""

    def __init__(self, run: Stage, urls: Mapping[str, str], settings: Mapping[str, float], *, table: bool) -> None:
        """
        Args:
            urls: by integration.
            settings: that differ from Faust's defaults.
            table: whether deliveries are counted in one.
        """
        self._run = run
        self._settings = settings
        self.id = f"{run.connection.prefix}stock"
        self.topics = run.connection.topic(topics.EVENTS), f"{run.connection.prefix}stock-deliveries"
        self.partitions = topics.partition_count(topics.EVENTS, PARTITIONS)
        self._plan: dict[str, Any] = {
            "id": self.id, "broker": run.connection.bootstrap, "events": self.topics[0],
            "deliveries": self.topics[1], "partitions": self.partitions, "urls": dict(urls), "table": table,
        }  # fmt: skip

    async def make_topics(self) -> None:
        """Before the first worker starts."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._run.connection.bootstrap)
        await admin.start()
        compacted = {"cleanup.policy": "compact"}
        changelog = NewTopic(f"{self.id}-counts-changelog", self.partitions, 1, topic_configs=compacted)
        await admin.create_topics([NewTopic(self.topics[1], self.partitions, 1), changelog])
        await admin.close()

    async def start(self, number: int) -> "subprocess.Popen[bytes]":
        """A worker, with the data folder of that number."""
        own = self._plan | {"settings": {**self._settings, "datadir": str(self._run.folder / f"data-{number}")}}
        with (self._run.folder / f"stock-{len(self._run.processes)}.log").open("ab") as output:
            process = subprocess.Popen(  # noqa: ASYNC220  # at once
                [sys.executable, "-m", "bench.stock_worker", json.dumps(own)], stdout=output, stderr=output
            )
        self._run.processes.append(process)
        return process
