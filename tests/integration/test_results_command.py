"""`tenterhook results`: what was, and what comes, filtered."""

import asyncio
import json

import pytest

from services.cli import results as command
from services.cli.errors import WrongUsage
from services.cli.log_access import LogOptions
from services.cli.results import Wanted, results
from tests.integration.test_deliveries_command import EXHAUSTED, FAILED, failed
from tests.logs import log_of
from tests.waiting import eventually


async def test_results_are_shown_from_a_time_on_and_then_as_they_come(connection, capsys):
    shown = []
    options = LogOptions(broker=connection.bootstrap, topic_prefix=connection.prefix)
    async with log_of(connection) as log:
        await failed(log, FAILED, EXHAUSTED)
        await failed(log, FAILED, integration="int_b")
        capsys.readouterr()
        since = {"since": "2001-01-01T00:00:00Z", "follow": False, "log": options, "as_json": True}
        await asyncio.to_thread(results, **since)
        everything = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        await asyncio.to_thread(results, **since, outcome="exhausted", integration="int_a")
        ended = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        following = asyncio.create_task(command._followed(connection, None, shown.append, follow=True))
        try:
            # Until it reads, what comes is not seen: sent again until it is.
            while not shown:
                await failed(log, EXHAUSTED)
                await asyncio.sleep(0.2)
            await eventually(lambda: shown[-1].outcome == "exhausted")
        finally:
            following.cancel()

    assert [(each["number"], each["outcome"]) for each in everything if each["integration"] == "int_a"] == [
        (1, None),
        (2, "exhausted"),
    ]
    assert len(everything) == 3
    assert [each["reason"] for each in ended] == ["timeout"]
    assert {each.integration for each in shown} == {"int_a"}


def test_nothing_to_show_is_wrong_usage():
    with pytest.raises(WrongUsage, match="--since"):
        results(follow=False)


def test_failed_is_whatever_did_not_deliver(make_result):
    wanted = Wanted(outcome="failed")

    assert [wanted.has(make_result(outcome=each)) for each in (None, "rejected", "delivered")] == [True, True, False]
    assert Wanted(outcome="open").has(make_result(outcome=None))
    assert not Wanted(app="other").has(make_result(outcome=None))


@pytest.fixture
def make_result():
    from tests.logs import make_event
    from tests.reconciling import delivery_of, make_receipt, result_of

    def make(**changes):
        event = make_event()
        receipt = make_receipt(event, 0, 0, integrations=["int_a"])
        return result_of(delivery_of(event, receipt, "int_a"), None, **changes)

    return make
