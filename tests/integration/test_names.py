"""Look-ups on threads of our own."""

import asyncio
import subprocess
import sys
import threading

import pytest

from services.dispatcher.resolve import DnsFailed, Names, system_look_up


class Resolver:
    """Counts look-ups, and answers when it may."""

    def __init__(self):
        self.asked = []
        self.may_answer = threading.Event()

    def __call__(self, host):
        self.asked.append(host)
        self.may_answer.wait(5)
        return ["127.0.0.1", "127.0.0.2", "127.0.0.1"]


async def test_all_who_ask_meanwhile_share_one_look_up_and_later_ones_ask_again():
    resolver = Resolver()
    names = Names(resolver)
    waiting = [asyncio.create_task(names.addresses("a.example")) for _ in range(3)]
    await asyncio.sleep(0)
    resolver.may_answer.set()
    assert await asyncio.gather(*waiting) == [["127.0.0.1", "127.0.0.2"]] * 3
    assert resolver.asked == ["a.example"]
    await names.addresses("a.example")
    assert len(resolver.asked) == 2


async def test_one_who_gives_up_leaves_the_look_up_to_the_others():
    resolver = Resolver()
    names = Names(resolver)
    impatient, patient = (asyncio.create_task(names.addresses("a.example")) for _ in range(2))
    await asyncio.sleep(0.01)
    impatient.cancel()
    await asyncio.sleep(0)
    resolver.may_answer.set()
    assert await patient == ["127.0.0.1", "127.0.0.2"]
    assert impatient.cancelled()


async def test_a_failure_reaches_all_who_asked_and_nobody_else():
    def fail(host):
        raise DnsFailed("unknown")

    names = Names(fail)
    found = await asyncio.gather(*(names.addresses("a.example") for _ in range(3)), return_exceptions=True)
    assert [str(each) for each in found] == ["unknown"] * 3


async def test_a_name_without_addresses_is_a_failure():
    with pytest.raises(DnsFailed):
        await Names(lambda host: []).addresses("a.example")


async def test_more_than_the_limit_wait_for_their_turn():
    resolver = Resolver()
    names = Names(resolver, max_at_once=2)
    waiting = [asyncio.create_task(names.addresses(f"{n}.example")) for n in range(4)]
    await asyncio.sleep(0.05)
    assert len(resolver.asked) == 2
    resolver.may_answer.set()
    await asyncio.gather(*waiting)
    assert len(resolver.asked) == 4


async def test_closing_gives_up_every_look_up():
    resolver = Resolver()
    names = Names(resolver)
    waiting = asyncio.create_task(names.addresses("a.example"))
    await asyncio.sleep(0.01)
    names.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    resolver.may_answer.set()


@pytest.mark.parametrize("host", ["name.invalid", "a" * 64 + ".example", "-", "a..b"])
def test_what_the_system_does_not_know_is_a_failure(host):
    with pytest.raises(DnsFailed):
        system_look_up(host)


def test_the_system_knows_this_machine():
    assert {"127.0.0.1", "::1"} & set(system_look_up("localhost"))


def test_a_look_up_that_hangs_does_not_keep_the_process():
    hangs = (
        "import asyncio, time\n"
        "from services.dispatcher.resolve import Names\n"
        "async def main():\n"
        "    try:\n"
        "        await asyncio.wait_for(Names(lambda host: time.sleep(60)).addresses('a'), 0.05)\n"
        "    except TimeoutError:\n"
        "        print('given up')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", hangs], capture_output=True, timeout=20, check=True)
    assert done.stdout == b"given up\n"
