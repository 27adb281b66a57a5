"""Where tasks stand."""

import asyncio

import pytest
from structlog.testing import capture_logs

from services.runtime import whereabouts
from services.runtime.whereabouts import log_places, places


async def waits_for(event: asyncio.Event) -> None:
    await event.wait()


async def outer(event: asyncio.Event) -> None:
    await waits_for(event)


async def test_tasks_are_told_by_what_they_wait_for_outermost_first():
    event = asyncio.Event()
    tasks = [asyncio.create_task(outer(event), name=f"task {n}") for n in range(3)]
    tasks.append(asyncio.create_task(waits_for(event), name="another"))
    await asyncio.sleep(0)

    many, one = places(tasks)

    assert (many.tasks, one.tasks) == (3, 1)
    assert many.name in {"task 0", "task 1", "task 2"}
    assert [each.split()[1] for each in many.awaits.split(" > ")] == ["outer", "waits_for", "wait"]
    assert many.awaits.startswith("test_whereabouts.py:")
    assert one.name == "another"
    event.set()
    await asyncio.gather(*tasks)


async def test_one_line_tells_of_all_and_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(whereabouts, "MOST_PLACES", 1)
    event = asyncio.Event()
    tasks = [asyncio.create_task(kind(event)) for kind in (outer, outer, waits_for)]
    await asyncio.sleep(0)

    with capture_logs() as lines:
        log_places()

    [line] = lines
    assert line["event"] == "tasks.listed"
    assert line["tasks"] == len(tasks) + 1
    assert [place["tasks"] for place in line["places"]] == [2]
    event.set()
    await asyncio.gather(*tasks)


async def test_a_generator_that_is_awaited_is_followed():
    event = asyncio.Event()

    async def each():
        await event.wait()
        yield 1

    async def reads():
        return [one async for one in each()]

    task = asyncio.create_task(reads())
    await asyncio.sleep(0)
    [place] = places([task])
    assert [part.split()[1] for part in place.awaits.split(" > ")][:3] == ["reads", "<listcomp>", "each"]
    event.set()
    await task
