"""What a watched client's requests come to."""

from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError

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


@pytest.mark.parametrize(
    ("raised", "met"),
    [
        (NodeNotReadyError("node 1"), NodeNotReadyError),
        (RuntimeError("unable to perform operation on <TCPTransport>; the handler is closed"), KafkaConnectionError),
    ],
)
async def test_a_connection_that_closes_under_a_request_is_an_answer_that_did_not_come(raised, met):
    """uvloop raises its own error there, which nobody who asks a broker expects."""
    answers, client = watched(raised)
    with pytest.raises(met):
        await client.send(1, FetchRequest())
    assert answers.failed["fetch"] == 1
    assert answers.answered_s == 0
