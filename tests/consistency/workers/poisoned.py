"""A worker whose process ends at once where a record says so. Arguments: bootstrap, prefix, output file."""

import asyncio
import os
import sys
from typing import Any

import uvloop

from streams.connection import Connection
from streams.engine.app import SafeApp
from streams.engine.processor import Assignment, Batch


class Poisoned:
    """Writes down what it is handed, and finishes it, or dies."""

    def __init__(self, output: str) -> None:
        self._output = output

    def _say(self, line: str) -> None:
        with open(self._output, "a", encoding="utf-8") as output:  # noqa: PTH123
            output.write(line + "\n")

    async def take_over(self, assignment: Assignment) -> None:
        """Nothing to find."""

    async def process(self, batch: Batch) -> None:
        self._say(f"batch {batch.partition} {len(batch.records)}")
        for record in batch.records:
            if record.value == b"poison":
                self._say("died")
                os._exit(9)
            self._say(f"done {(record.value or b'').decode()}")
            batch.finish(record.offset)

    def floor(self, partition: int) -> str:
        return f"floor of {partition}"

    async def settle(self, timeout_s: float) -> None:
        """Nothing is in flight."""


async def main(bootstrap: str, prefix: str, output: str) -> None:
    async def put_aside(record: Any, code: str, reason: str) -> None:
        with open(output, "a", encoding="utf-8") as said:  # noqa: ASYNC230, PTH123
            said.write(f"aside {record.value.decode()} {code} {reason}\n")

    app = SafeApp("poisoned", Connection(bootstrap, prefix), put_aside=put_aside, commit_interval_ms=50)
    app.add_processor(f"{prefix}work", Poisoned(output), name="work")
    await app.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
