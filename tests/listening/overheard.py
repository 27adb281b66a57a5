"""
What the code under test logs, and what must never be in it: secrets, tokens, keys, payloads.

Two hooks, in the process of the tests and in every Python process that it starts (by `sitecustomize`): one takes each
line where it enters structlog or `logging`, and each span of a trace, whatever becomes of it later; the other takes
note of each plain value that goes through the vault, of each token and key that is hashed, and of payloads that ingest
accepts. So no test has to say what its secrets are. `tests/conftest.py` compares the two at the end of every test, and
once more at the end of the session: all that was said, by every worker and its processes, with all secrets of all.

What a Python process writes to stderr by itself is a line, too: a traceback that nobody caught, a warning, a refusal.

Only the standard library at import: processes pay for this at their start.
"""

import base64
import contextlib
import importlib.abc
import importlib.machinery
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

#: Names the folder that processes write into.
VARIABLE = "TESTS_LISTEN_IN"
#: Names the folder of the session, to the workers that xdist starts and to nobody else.
_SESSION = "TESTS_LISTEN_TOGETHER"

#: A shorter value, or one of fewer different characters, stands in a line by coincidence.
_MIN_CHARS = 8
_MIN_DIFFERENT = 5
_MIN_PAYLOAD_CHARS = 16
#: Of one process. Loads of thousands of events send the same few payloads, or are about something else.
_MAX_PAYLOADS = 500
#: Of what a process of tests has said, kept for the end of the session. Its children keep all.
_MAX_KEPT_BYTES = 67_108_864
#: Of what is found at the end, told.
_MAX_TOLD = 20

#: Whoever made them, and however short: what our own formats begin with. Of `pk_` nothing: public keys are public.
OWN_FORMATS = re.compile(r"whsec_[A-Za-z0-9+/=_-]+|\bsk_[A-Za-z0-9_-]+|\btok_[A-Za-z0-9_-]+|Bearer [^\s\"'\]]+")

#: What a process of its own does with a line or a value; in the process of the tests, lists are enough.
_on_line: Callable[[str], None] | None = None
_on_secret: Callable[[str], None] | None = None
_payloads = 0


def note_secret(value: str | bytes) -> None:
    """This must be in no line of a test that has not ended; in any form that lines tell bytes in."""
    # What hypothesis makes up may be any word, those of our own source among them, which it reads for ideas.
    hypothesis = sys.modules.get("hypothesis")
    if _on_secret is None or (hypothesis is not None and hypothesis.currently_in_test_context()):
        return
    forms = {value} if isinstance(value, str) else set(_forms(value))
    for form in forms:
        if len(form) >= _MIN_CHARS and len(set(form)) >= _MIN_DIFFERENT:
            _on_secret(form)


def note_payload(payload: bytes) -> None:
    """The same of a payload, as a whole."""
    global _payloads  # noqa: PLW0603
    if len(payload) >= _MIN_PAYLOAD_CHARS and _payloads < _MAX_PAYLOADS:
        _payloads += 1
        note_secret(payload)


def _forms(value: bytes) -> Iterator[str]:
    with contextlib.suppress(UnicodeDecodeError):
        yield value.decode()
        return
    yield value.hex()
    yield base64.b64encode(value).decode()
    yield base64.urlsafe_b64encode(value).decode()
    yield repr(value)[2:-1]


# -- lines -------------------------------------------------------------------------------------------------


def _heard(*parts: Any, raised: Any = None) -> None:
    if _on_line is None:
        return
    text = " ".join(part if isinstance(part, str) else repr(part) for part in parts)
    if raised:
        error = raised if isinstance(raised, tuple) else sys.exc_info()
        text += "\n" + "".join(traceback.format_exception(*error))
    _on_line(text)


def _hear_logging() -> None:
    made = logging.getLogRecordFactory()

    def record(*args: Any, **options: Any) -> logging.LogRecord:
        line = made(*args, **options)
        raised = line.exc_info or (isinstance(line.msg, dict) and line.msg.get("exc_info"))
        # Its values beside it: a line that cannot be put together is told by `logging` with all of them.
        _heard(line.name, line.msg, line.args, raised=raised)
        return line

    logging.setLogRecordFactory(record)


def _hear_structlog(module: Any) -> None:
    """Before any processor: what a test configures, captures or leaves as it is makes no difference."""
    bound = module.BoundLoggerBase
    passed_on = bound._proxy_to_logger

    def proxy(self: Any, method: str, event: str | None = None, /, **fields: Any) -> Any:
        _heard(event or "", dict(self._context), fields, raised=fields.get("exc_info"))
        return passed_on(self, method, event, **fields)

    bound._proxy_to_logger = proxy


def _hear_stderr() -> None:
    """But for what `logging` writes there: that was heard when it came in."""
    stream = sys.stderr
    if stream is None:
        return
    write = stream.write

    def hearing(text: str, /) -> int:
        caller = sys._getframe().f_back  # none where the interpreter itself writes
        if text.strip() and (caller is None or caller.f_code.co_filename != logging.__file__):
            _heard(text)
        return write(text)

    # Also what the interpreter itself writes: it asks the stream for its method.
    stream.write = hearing  # type: ignore[method-assign]


def _hear_spans(module: Any) -> None:
    """What leaves in a trace is told as a line is."""
    end = module.Span.end

    def hearing(self: Any, at_ns: int | None = None) -> None:
        _heard(self.name, dict(self.attributes))
        end(self, at_ns)

    module.Span.end = hearing


# -- secrets -----------------------------------------------------------------------------------------------


def _note_vault(module: Any) -> None:
    key = module.Key
    init, seal, open_ = key.__init__, key.seal, key.open

    def noting_init(self: Any, plain: bytes, form: Any) -> None:
        note_secret(plain)
        init(self, plain, form)

    def noting_seal(self: Any, plain: bytes, context: Any) -> bytes:
        note_secret(plain)
        return seal(self, plain, context)

    def noting_open(self: Any, sealed: bytes, context: Any) -> bytes:
        plain = open_(self, sealed, context)
        note_secret(plain)
        return plain

    key.__init__, key.seal, key.open = noting_init, noting_seal, noting_open


def _note_tokens(module: Any) -> None:
    hash_of = module.hash_of

    def noting(token: str) -> bytes:
        if not token.startswith("pk_"):
            note_secret(token)
        return hash_of(token)

    module.hash_of = noting


def _note_accepted(module: Any) -> None:
    accept = module.accept

    def noting(sent: Any, **options: Any) -> Any:
        note_payload(bytes(sent.payload))
        return accept(sent, **options)

    module.accept = noting


_WHEN_LOADED = {
    "structlog._base": _hear_structlog,
    "services.runtime.tracing": _hear_spans,
    "services.vault.seal": _note_vault,
    "services.admin.tokens": _note_tokens,
    "services.ingest.accept": _note_accepted,
}


class _Hooks(importlib.abc.MetaPathFinder):
    """Changes the modules above when they are loaded, before anybody imports a name from them."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        hook = _WHEN_LOADED.get(name)
        if hook is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_change(module: Any) -> None:
            execute(module)
            hook(module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


# -- where both go -----------------------------------------------------------------------------------------


def _listen(on_line: Callable[[str], None], on_secret: Callable[[str], None]) -> None:
    global _on_line, _on_secret
    has_hooks = _on_line is not None
    _on_line, _on_secret = on_line, on_secret
    if not has_hooks:
        _hear_logging()
        sys.meta_path.insert(0, _Hooks())


def listen_as_told() -> None:
    """In a process that a test has started: write what is heard into the folder that the variable names."""
    folder = os.environ.get(VARIABLE)
    if not folder or not Path(folder).is_dir():
        return
    known = set()

    def appended(kind: str, text: str) -> None:
        path = Path(folder) / f"{os.getpid()}.{kind}"
        # Gone, once the tests are: a process that outlives them is to end as it would without us.
        with contextlib.suppress(FileNotFoundError), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(text) + "\n")

    def on_secret(value: str) -> None:
        if value not in known:
            known.add(value)
            appended("secrets", value)

    _listen(lambda line: appended("lines", line), on_secret)
    _hear_stderr()


class Heard:
    """All that was heard in the process of the tests, and in those that they have started."""

    def __init__(self) -> None:
        here = Path(__file__).parent
        # A worker's tests may start sessions of their own, whose lines are not this one's.
        session = os.environ.pop(_SESSION, None)
        #: Whether another process compares at the end.
        self.is_worker = "PYTEST_XDIST_WORKER" in os.environ and session is not None and Path(session).is_dir()
        self._folder = Path(tempfile.mkdtemp(prefix="overheard-", dir=session if self.is_worker else None))
        if not self.is_worker:
            os.environ[_SESSION] = str(self._folder)
        self._read: dict[str, int] = {}
        #: Lines that have not been looked through, and how much was kept of those that have.
        self._lines: list[str] = []
        self._kept_bytes = 0
        #: What may be in none, by its first characters: so a line is looked through once, however much that is.
        self._secrets: dict[str, set[str]] = {}
        #: Noted in this process, and not yet written down.
        self._noted: list[str] = []
        os.environ[VARIABLE] = str(self._folder)
        paths = [str(here), *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        _listen(self._lines.append, self._note)

    def found(self) -> list[str]:
        """Lines since the last call that hold what no line may hold, of what was noted until now."""
        own, noted = self._lines.copy(), self._noted.copy()
        self._lines.clear()
        self._noted.clear()
        lines = own + self._written("lines")
        for secret in self._written("secrets"):  # after the lines: a process notes a value before it logs it
            self._keep(secret)
        if self._kept_bytes < _MAX_KEPT_BYTES:
            self._kept_bytes += self._write("lines", own)
        self._write("secrets", noted)
        return self._told(lines)

    def found_in_all(self) -> list[str]:
        """
        All lines of the session that hold a secret of it, whoever noted that, and when; some of them, where many do.

        Called at its end, by the process that no other compares for.
        """
        self.found()
        for path in self._folder.rglob("*.secrets"):
            for secret in _texts(path):
                self._keep(secret)
        found: list[str] = []
        # What is said again and again is looked through once.
        known: set[int] = set()
        for path in self._folder.rglob("*.lines"):
            lines = (line for line in _texts(path) if (said := hash(line)) not in known and not known.add(said))  # type: ignore[func-returns-value]
            found += self._told(lines)
            if len(found) >= _MAX_TOLD:
                break
        return found[:_MAX_TOLD]

    def close(self) -> None:
        """Take the folder away, once all have compared. A process that is still there writes into nothing."""
        if not self.is_worker:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _told(self, lines: Iterable[str]) -> list[str]:
        return [f"{what[:200]!r} in: {line[:2_000]}" for line in lines for what in self._in(line)]

    def _note(self, secret: str) -> None:
        if self._keep(secret):
            self._noted.append(secret)

    def _keep(self, secret: str) -> bool:
        """Whether it is new."""
        known = self._secrets.setdefault(secret[:_MIN_CHARS], set())
        if secret in known:
            return False
        known.add(secret)
        return True

    def _in(self, line: str) -> set[str]:
        """What it holds and must not."""
        found = set(OWN_FORMATS.findall(line))
        for at in range(len(line) - _MIN_CHARS + 1):
            for secret in self._secrets.get(line[at : at + _MIN_CHARS], ()):
                if line.startswith(secret, at):
                    found.add(secret)
        return found

    def _write(self, kind: str, texts: list[str]) -> int:
        """As a process of its own does, for the end of the session; how many bytes."""
        if not texts:
            return 0
        blob = "".join(json.dumps(text) + "\n" for text in texts).encode()
        name = f"{os.getpid()}.{kind}"
        with (self._folder / name).open("ab") as file:
            file.write(blob)
            self._read[name] = file.tell()  # known here already
        return len(blob)

    def _written(self, kind: str) -> list[str]:
        """What processes have written since it was last read; a line that is not complete waits."""
        found = []
        for entry in os.scandir(self._folder):
            position = self._read.get(entry.name, 0)
            if not entry.name.endswith(f".{kind}") or entry.stat().st_size == position:
                continue
            with open(entry.path, "rb") as file:  # noqa: PTH123
                file.seek(position)
                blob = file.read()
            complete = blob[: blob.rfind(b"\n") + 1]
            self._read[entry.name] = position + len(complete)
            found += [json.loads(line) for line in complete.splitlines()]
        return found


def _texts(path: Path) -> Iterator[str]:
    """All that a process has written there, but for a line that it has not finished."""
    with path.open("rb") as file:
        yield from (json.loads(line) for line in file if line.endswith(b"\n"))
