"""
The dispatcher as the Faust documentation would have it: `python -m bench.stock_worker BOOTSTRAP PREFIX CONFIG FOLDER`.

Two agents and a table, with Faust's defaults: one fans events out, the other posts each delivery, one after another,
and counts it. CONFIG is JSON: by integration its URL and the types that it wants. What bench/kills.py compares with.
"""

import json
import sys
from typing import Any

import aiohttp
import faust

from streams import codec
from streams.records import Event


def main() -> None:
    bootstrap, prefix, config, folder = sys.argv[1:]
    integrations: dict[str, dict[str, Any]] = json.loads(config)
    app = faust.App(
        f"{prefix}stock", broker=f"kafka://{bootstrap}", topic_disable_leader=True, topic_partitions=8,
        topic_allow_declare=False, web_enabled=False, autodiscover=False, datadir=folder, producer_acks=-1,
    )  # fmt: skip
    events = app.topic(f"{prefix}events", value_type=bytes, value_serializer="raw")
    deliveries = app.topic(f"{prefix}stock-deliveries", value_type=bytes, value_serializer="raw", partitions=8)
    counts = app.Table("counts", default=int, partitions=8, key_type=str, value_type=int)
    sessions: list[aiohttp.ClientSession] = []

    @app.agent(events)
    async def fan_out(stream: Any) -> None:
        async for value in stream:
            event = codec.decode_as(Event, value)
            body = json.dumps({"attempt": 1, "payload": json.loads(event.payload)}).encode()
            for name, each in integrations.items():
                if event.type in each["events"]:
                    await deliveries.send(key=name, value=body)

    @app.agent(deliveries)
    async def deliver(stream: Any) -> None:
        if not sessions:
            sessions.append(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)))
        async for key, value in stream.items():
            name = key.decode() if isinstance(key, bytes) else key
            async with sessions[0].post(integrations[name]["url"], data=value) as answer:
                await answer.read()
            counts[name] += 1

    sys.argv[1:] = ["worker", "--loglevel", "warning"]
    app.main()


if __name__ == "__main__":
    main()
