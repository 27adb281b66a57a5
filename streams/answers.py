"""
What the brokers answer this process: when they did last, and how often they did not, or with an error.

Noted for each request, not for each record: of a busy worker some hundreds a second.
"""

import time
from typing import Any, Final, Literal, get_args

from aiokafka.errors import KafkaError

#: What a request is about.
Api = Literal["append", "fetch", "commit", "group", "other"]

APIS: Final[tuple[Api, ...]] = get_args(Api)

_API_OF: Final[dict[str, Api]] = {
    "ProduceRequest": "append",
    "FetchRequest": "fetch",
    "OffsetCommitRequest": "commit",
    "HeartbeatRequest": "group",
    "JoinGroupRequest": "group",
    "SyncGroupRequest": "group",
    "LeaveGroupRequest": "group",
}


class Answers:
    """Of all clients that are watched."""

    def __init__(self) -> None:
        #: In seconds since 1970 UTC: when a broker answered anything, and when one took all of an append; 0: never.
        self.answered_s = 0.0
        self.appended_s = 0.0
        #: Requests that got no answer, or an error.
        self.failed: dict[Api, int] = dict.fromkeys(APIS, 0)

    def watch(self, client: Any) -> None:
        """Note what becomes of each request of this client, an `AIOKafkaClient`, from now on."""
        send = client.send

        async def send_and_note(node_id: Any, request: Any, **options: Any) -> Any:
            api = _API_OF.get(type(request).__name__, "other")
            try:
                response = await send(node_id, request, **options)
            except KafkaError:
                self.failed[api] += 1
                raise
            self.answered_s = time.time()
            if api in {"append", "fetch"} and _has_error(response):
                self.failed[api] += 1
            elif api == "append":
                self.appended_s = self.answered_s
            return response

        client.send = send_and_note


def _has_error(response: Any) -> bool:
    """Whether a partition of it was answered with an error: its code stands behind its number."""
    topics = getattr(response, "topics", None) or ()
    return any(partition[1] for _, partitions in topics for partition in partitions)


#: Of this process.
ANSWERS: Final = Answers()
