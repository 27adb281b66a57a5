"""One life of `up` when its broker does not come up."""

import asyncio
import sys

import pytest

from services.cli.children import ChildFailed
from services.cli.data_dir import held
from services.cli.life import SERVICES, Life
from services.cli.planning import Options, plan_of
from tests.waiting import eventually


class Broken:
    """A broker whose process ends at once, with words of its own."""

    kind = "kafka"
    bootstrap = "127.0.0.1:1"
    commands = ((sys.executable, "-S", "-c", "raise SystemExit('no space left')"),)

    def prepare(self):
        pass

    async def probe(self):
        return "nobody is there"


@pytest.fixture
def life(tmp_path, monkeypatch):
    """A life with this broker (None: the one at an address where nobody is), and what it says."""
    monkeypatch.chdir(tmp_path)

    def made(broker):
        with held(tmp_path / "data") as folder:
            plan = plan_of(Options("127.0.0.1:1", 0, 0, allow_private_addresses=True), folder, lambda _: None)
        said = []
        return Life(type(plan)(plan.settings, broker, folder, plan.environment), said.append, lambda _: None), said

    return made


async def test_a_broker_that_fails_each_time_ends_it_and_the_services_are_drained(life):
    living, said = life(Broken())

    with pytest.raises(ChildFailed, match=r"broker ended 3 times in a row before it was ready .*\n(no space left\n?)+"):
        await living.run(asyncio.Event())

    assert living.pids == {}
    assert [name for name in SERVICES if any(line.startswith(f"{name} has stopped") for line in said)] == [*SERVICES]


async def test_a_wish_to_stop_is_heard_while_all_starts(life):
    living, said = life(None)
    stop = asyncio.Event()
    running = asyncio.create_task(living.run(stop))
    await eventually(lambda: any("waiting for a broker" in line for line in said))

    stop.set()

    assert await asyncio.wait_for(running, 30) is True
