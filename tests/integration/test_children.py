"""Child processes of `up`, with small scripts as children."""

import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from services.cli.children import Child, ChildFailed, ChildLost, Command
from services.cli.restarts import MOST_FAILED_STARTS
from tests.waiting import eventually

IGNORES_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
)
DRAINS = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.1), print('drained', flush=True), sys.exit(0)))\n"
    "print('on', flush=True); time.sleep(60)"
)


class Watched:
    """A child under `run`, and what was said about it."""

    def __init__(self, script, *, grace_s=5.0, is_ready=lambda said: "on" in said, **options):
        self.said = []

        async def probe():
            return None if is_ready("".join(self.said)) else "it has not said so"

        argv = (sys.executable, "-S", "-c", script)
        self.child = Child(Command("worker", argv, probe, grace_s, **options), self.said.append)
        self.running = asyncio.create_task(self.child.run())

    async def ready(self):
        await asyncio.wait_for(self.child.ready.wait(), 10)
        return self.child.pid

    @property
    def text(self):
        return "\n".join(self.said)


def is_alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def test_a_child_drains_when_it_is_asked_to():
    watched = Watched(DRAINS)
    pid = await watched.ready()

    watched.child.stop()

    assert await watched.running is True
    assert not is_alive(pid)
    assert "worker     | drained" in watched.said


async def test_a_child_that_does_not_drain_in_time_is_killed_and_that_is_said():
    watched = Watched(IGNORES_SIGTERM, grace_s=0.2)
    pid = await watched.ready()

    watched.child.stop()

    assert await watched.running is False
    assert not is_alive(pid)
    assert "worker has not drained within 0.2 s: killed" in watched.said


async def test_one_that_has_nothing_to_save_may_be_killed_for_being_slow_about_it():
    watched = Watched(IGNORES_SIGTERM, grace_s=0.2, saves=False)
    pid = await watched.ready()

    watched.child.stop()

    assert await watched.running is True
    assert not is_alive(pid)
    assert "killed" not in watched.text


@pytest.mark.parametrize("saves", [True, False])
async def test_one_that_fails_at_its_end_has_not_ended_well_even_if_it_has_nothing_to_save(saves):
    script = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
    watched = Watched(script + "print('on', flush=True); time.sleep(60)", saves=saves)
    await watched.ready()

    watched.child.stop()

    assert await watched.running is False


async def test_killing_does_not_wait_for_draining():
    watched = Watched(IGNORES_SIGTERM, grace_s=60)
    await watched.ready()
    watched.child.stop()
    await asyncio.sleep(0.05)
    began_at = time.monotonic()

    watched.child.kill()

    assert await watched.running is False
    assert time.monotonic() - began_at < 5


async def test_a_child_that_dies_is_started_again_at_once():
    watched = Watched(DRAINS)
    first = await watched.ready()

    os.kill(first, signal.SIGKILL)
    second = await eventually(
        lambda: watched.child.ready.is_set() and watched.child.pid not in (None, first) and watched.child.pid
    )
    watched.child.stop()

    assert await watched.running is True
    assert not is_alive(second)
    assert re.search(r"worker ended \(killed by SIGKILL\) after [\d.]+ s; starting it again at once", watched.text)


async def test_a_child_that_fails_each_time_ends_it_with_its_own_words():
    watched = Watched("import sys; sys.exit('the port is taken')", is_ready=lambda _: False)

    with pytest.raises(ChildFailed, match=rf"worker ended {MOST_FAILED_STARTS} times in a row .*exit code 1"):
        await watched.running

    assert watched.said.count("worker     | the port is taken") == MOST_FAILED_STARTS


async def test_the_last_lines_of_a_child_that_writes_a_file_are_in_the_message(tmp_path):
    watched = Watched("import sys; sys.exit('no space')", is_ready=lambda _: False, output=tmp_path / "worker.txt")

    with pytest.raises(ChildFailed, match=r"worker\.txt:\n(no space\n?)+"):
        await watched.running

    assert [line for line in watched.said if "|" in line] == []


async def test_a_child_that_is_not_to_be_started_again_is_lost_when_it_dies():
    watched = Watched(DRAINS, restarts=False)
    pid = await watched.ready()

    os.kill(pid, signal.SIGKILL)

    with pytest.raises(ChildLost, match=r"worker ended \(killed by SIGKILL\)"):
        await watched.running


async def test_a_command_that_is_not_there_says_which():
    async def probe():
        return "never"

    with pytest.raises(ChildFailed, match=r"worker cannot be started: /no/such/program: No such file"):
        await Child(Command("worker", ("/no/such/program",), probe, 1.0), print).run()


async def test_a_probe_that_fails_is_not_swallowed():
    async def probe():
        raise ZeroDivisionError

    child = Child(Command("worker", ("sleep", "60"), probe, 1.0), print)

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(child.run(), 10)
    assert child.pid is None


async def test_a_child_s_own_children_end_with_it(tmp_path):
    script = (
        "import subprocess, time; p = subprocess.Popen(['sleep', '60']); print('on', p.pid, flush=True); time.sleep(60)"
    )
    watched = Watched(script)
    await watched.ready()
    grandchild = int(re.search(r"on (\d+)", watched.text)[1])

    watched.child.kill()
    await watched.running

    await eventually(lambda: not is_alive(grandchild))


async def test_long_lines_and_lines_without_an_end_are_shown():
    watched = Watched(
        "import sys, time; sys.stdout.write('on ' + 'x' * 200_000 + '\\nlast'); sys.stdout.flush(); time.sleep(60)"
    )
    await watched.ready()
    # A pipe takes less at once: until it is all out, the end of the child would cut it off.
    await eventually(lambda: sum(line.count("x") for line in watched.said) == 200_000)
    watched.child.stop()
    await watched.running

    assert sum(line.count("x") for line in watched.said) == 200_000
    assert "worker     | last" in watched.said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
async def test_children_die_with_a_parent_that_is_killed():
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    child = int(await parent.stdout.readline())
    assert is_alive(child)

    parent.kill()
    await parent.communicate()

    await eventually(lambda: not is_alive(child))


PARENT = """
import asyncio
from services.cli.children import Child, Command

async def main():
    async def probe():
        return None
    child = Child(Command("worker", ("sleep", "60"), probe, 1.0), lambda line: None)
    running = asyncio.create_task(child.run())
    await child.ready.wait()
    print(child.pid, flush=True)
    await running

asyncio.run(main())
"""
