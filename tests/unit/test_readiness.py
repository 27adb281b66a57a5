"""A worker says once that it is ready, and once that it is so no longer."""

import asyncio

from structlog.testing import capture_logs

from services.runtime.readiness import tell_readiness


async def test_each_turn_is_one_line_however_often_it_is_looked():
    looks = iter(["waiting", "assigning", None, None, None, "assigning", "stopped", None, None])
    seen = asyncio.Event()

    def trouble():
        why = next(looks, "over")
        if why == "over":
            seen.set()
        return None if why == "over" else why

    with capture_logs() as lines:
        telling = asyncio.create_task(
            tell_readiness(trouble, ready="breaker.ready", not_ready="breaker.not_ready", look_s=0)
        )
        await asyncio.wait_for(seen.wait(), 5)
        telling.cancel()

    assert [(line["event"], line.get("why")) for line in lines] == [
        ("breaker.ready", None),
        ("breaker.not_ready", "assigning"),
        ("breaker.ready", None),
    ]
