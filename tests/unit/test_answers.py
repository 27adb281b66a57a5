"""What a watched client's requests come to."""

from types import SimpleNamespace

import pytest
from aiokafka.errors import NodeNotReadyError

from streams.answers import Answers


class FetchRequest: ...


def watched(outcome):
    async def send(node_id, request):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    answers, client = Answers(), SimpleNamespace(send=send)
    answers.watch(client)
    return answers, client


async def test_an_answer_is_noted():
    answers, client = watched(SimpleNamespace(topics=[("events", [(0, 0)])]))
    await client.send(1, FetchRequest())
    assert answers.answered_s > 0
    assert answers.failed["fetch"] == 0


async def test_no_answer_is_a_failure_of_what_was_asked():
    answers, client = watched(NodeNotReadyError("node 1"))
    with pytest.raises(NodeNotReadyError):
        await client.send(1, FetchRequest())
    assert answers.failed["fetch"] == 1
    assert answers.answered_s == 0
