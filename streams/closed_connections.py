"""
A connection that is closed under a request is a broken one, for all clients of this process.

Of a connection that was reset, uvloop raises an error of its own for what is written before aiokafka has heard of the
reset, a few turns of the loop later. aiokafka expects `OSError` there and nothing else. What uvloop raises ends its
tasks that fetch and that ask who leads what, which nobody looks at: whoever waits for records or for metadata then
waits for ever.
"""

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any, Final

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError

#: All that writes to a connection, with a digest of its source: it must raise where it is called, not later, and close
#: the connection after an `OSError` as is done here.
WRITERS: Final = {"send": "5909ea32f4efca49", "_send_sasl_token": "7a3d948fc526c953"}


class AiokafkaChanged(RuntimeError):
    """aiokafka is not the one that tenterhook was tested with. The message says what to do."""


@functools.cache
def treat_as_broken() -> None:
    """
    Have them so from now on; called again, it does nothing.

    Raises:
        AiokafkaChanged: aiokafka's source is another than the one that this was written against.
    """
    if changed := [name for name, pinned in WRITERS.items() if digest(getattr(AIOKafkaConnection, name)) != pinned]:
        raise AiokafkaChanged(
            f"aiokafka has other source than the one tenterhook was tested with, in {', '.join(changed)} of its"
            " connections. Install the versions of requirements/main.txt."
        )
    for name in WRITERS:
        setattr(AIOKafkaConnection, name, _closing(getattr(AIOKafkaConnection, name)))


def digest(function: Callable[..., Any]) -> str:
    """First 16 hex digits of the SHA-256 of a function's source."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


def _closing(write: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(write)
    def write_or_close(self: AIOKafkaConnection, *args: Any, **options: Any) -> Any:
        try:
            return write(self, *args, **options)
        except (
            KafkaError,
            NotImplementedError,
        ):  # RuntimeErrors too: the latter where no version of a request is known
            raise
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error

    return write_or_close
