"""The bench's own processes, the load and the receiver: started, told what to do, ended."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from services.cli.bench.findings import Arrival, Sent
from services.cli.bench.recording import ARRIVAL_COLUMNS, LOAD_COLUMNS, Recording
from services.cli.errors import Failed

_END_S: Final = 5.0


class Part:
    """One process that takes lines of JSON and answers with lines of JSON."""

    def __init__(self, name: str, orders: Mapping[str, Any]) -> None:
        """Start the module *name* of this package and give it its first orders, which may hold a key."""
        self._name = name
        self._process = subprocess.Popen(  # noqa: S603 (our own module)
            [sys.executable, "-m", f"services.cli.bench.{name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # The terminal's Ctrl-C is for the command, which then ends its parts.
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.tell(orders)

    def tell(self, orders: Mapping[str, Any]) -> None:
        """Give it orders."""
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 (asked for above)
        try:
            pipe.write(json.dumps(orders) + "\n")
            pipe.flush()
        except BrokenPipeError:
            self.check()

    def hear(self) -> Any:
        """
        Wait for its answer.

        Raises:
            Failed: it has ended, or it says why it cannot.
        """
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 (asked for above)
        line = pipe.readline()
        if not line:
            raise Failed(f"the bench's {self._name} process has ended; its last lines are above")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise Failed(answer["error"])
        return answer

    def check(self) -> None:
        """Nothing while it runs; else raises Failed."""
        if (code := self._process.poll()) is not None:
            raise Failed(f"the bench's {self._name} process has ended with exit code {code}; its last lines are above")

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Loading:
    """The process that posts events."""

    def __init__(self, folder: Path, events: int, orders: Mapping[str, Any]) -> None:
        """
        Args:
            events: of all ranges that will be sent.
            orders: as `load.py` takes them, without the recording.
        """
        path = folder / "load"
        self._recording = Recording(path, LOAD_COLUMNS, events, create=True)
        self.part = Part("load", {**orders, "recording": str(path), "rows": events})

    def send(self, first: int, last: int, rate_per_s: float | None) -> None:
        """Begin to send events *first* to *last* - 1; `answered` tells how far it is."""
        self.part.tell({"first": first, "last": last, "rate_per_s": rate_per_s})

    @property
    def answered(self) -> int:
        """Events with an answer, of all ranges."""
        return self._recording.filled

    def sent(self, first: int, last: int) -> list[Sent]:
        """What became of these events, once all are answered."""
        sent_ns, answered_ns, status = self._recording.columns
        return [Sent(number, sent_ns[number], answered_ns[number], status[number]) for number in range(first, last)]


class Receiving:
    """The process that answers in the place of all integrations."""

    def __init__(self, folder: Path, integrations: int, rows: int) -> None:
        path = folder / "arrivals"
        self._recording = Recording(path, ARRIVAL_COLUMNS, rows, create=True)
        self.part = Part("receiver", {"recording": str(path), "rows": rows, "integrations": integrations})
        #: Where each integration's requests go.
        self.urls = [f"http://127.0.0.1:{port}/bench/{at}" for at, port in enumerate(self.part.hear())]

    @property
    def filled(self) -> int:
        """Requests so far, those without a place included."""
        return self._recording.filled + self._recording.overflown

    def arrivals(self) -> list[Arrival]:
        """All requests so far, in the order in which they came in."""
        filled = self._recording.filled
        return [Arrival(*row) for row in zip(*(column[:filled] for column in self._recording.columns), strict=True)]


@contextmanager
def ended(part: Part) -> Iterator[Part]:
    """The part, ended afterwards."""
    try:
        yield part
    finally:
        part.close()
