"""
The dispatcher as Faust's documentation would have it: `python -m bench.stock_worker PLAN`; see `stock.py`.

Two agents: one makes a delivery of each event for each integration, the other posts them, one after another, which is
how Faust keeps the order of a key. Nothing of tenterhook's engine is in it; its codec is, to read the events.

PLAN is JSON: `id`, `broker`, `events` and `deliveries` (topics with as many partitions as `partitions`), `urls` by
integration, `settings` that differ from Faust's defaults, and `table`: whether deliveries are counted in a table, as a
breaker would.
"""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

import aiohttp
import faust

from streams import codec
from streams.records import Event


def make_app(plan: dict[str, Any]) -> faust.App:
    # Its topics are there already, the changelog too; without that the first start may end in PartitionsMismatch.
    app = faust.App(
        plan["id"], broker=f"kafka://{plan['broker']}", topic_partitions=plan["partitions"],
        topic_allow_declare=False, topic_disable_leader=True, **plan["settings"],
    )  # fmt: skip
    events = app.topic(plan["events"], value_type=bytes, value_serializer="raw")
    deliveries = app.topic(plan["deliveries"], key_type=str, value_type=bytes, value_serializer="raw")
    counts = app.Table("counts", default=int, key_type=str, value_type=int) if plan["table"] else None
    urls: dict[str, str] = plan["urls"]

    @app.agent(events)
    async def fan_out(stream: Any) -> None:
        async for value in stream:
            event = codec.decode_as(Event, value)
            body = json.dumps({"attempt": 1, "payload": json.loads(event.payload)}).encode()
            # The event counts as processed when its deliveries are on the broker.
            await asyncio.gather(*[await deliveries.send(key=name, value=body) for name in urls])

    @app.agent(deliveries)
    async def deliver(stream: Any) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session:
            async for name, body in stream.items():
                # Who fails has had it: without this the agent ends and is started again, and others wait for that too.
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with session.post(urls[name], data=body) as answer:
                        await answer.read()
                if counts is not None:
                    counts[name] += 1

    return app


if __name__ == "__main__":
    app = make_app(json.loads(sys.argv.pop()))
    sys.argv += ["worker", "--loglevel", "info", "--without-web"]
    app.main()
