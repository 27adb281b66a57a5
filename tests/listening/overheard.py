"""
What the code under test logs, and what must never be in it: secrets, tokens, keys, payloads.

Two hooks, in the process of the tests and in every Python process that it starts (by `sitecustomize`): one takes each
line where it enters structlog or `logging`, and each span of a trace, whatever becomes of it later; the other takes
note of each plain value that goes through the vault, of each token and key that is hashed, and of payloads that ingest
accepts. So no test has to say what its secrets are. `tests/conftest.py` compares the two at the end of every test.

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
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

#: Names the folder that processes write into.
VARIABLE = "TESTS_LISTEN_IN"

#: A shorter value, or one of fewer different characters, stands in a line by coincidence.
_MIN_CHARS = 8
_MIN_DIFFERENT = 5
_MIN_PAYLOAD_CHARS = 16
#: Of one process. Loads of thousands of events send the same few payloads, or are about something else.
_MAX_PAYLOADS = 500

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


class Heard:
    """All that was heard in the process of the tests, and in those that they have started."""

    def __init__(self) -> None:
        here = Path(__file__).parent
        self._folder = Path(tempfile.mkdtemp(prefix="overheard-"))
        self._read: dict[str, int] = {}
        #: Lines that have not been looked through.
        self._lines: list[str] = []
        #: What may be in none, by its first characters: so a line is looked through once, however much that is.
        self._secrets: dict[str, set[str]] = {}
        os.environ[VARIABLE] = str(self._folder)
        paths = [str(here), *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
        _listen(self._lines.append, self._keep)

    def found(self) -> list[str]:
        """Lines since the last call that hold what no line may hold."""
        lines = self._lines + self._written("lines")
        for secret in self._written("secrets"):  # after the lines: a process notes a value before it logs it
            self._keep(secret)
        self._lines.clear()
        return [f"{what[:200]!r} in: {line[:2_000]}" for line in lines for what in self._in(line)]

    def _keep(self, secret: str) -> None:
        self._secrets.setdefault(secret[:_MIN_CHARS], set()).add(secret)

    def _in(self, line: str) -> set[str]:
        """What it holds and must not."""
        found = set(OWN_FORMATS.findall(line))
        for at in range(len(line) - _MIN_CHARS + 1):
            for secret in self._secrets.get(line[at : at + _MIN_CHARS], ()):
                if line.startswith(secret, at):
                    found.add(secret)
        return found

    def close(self) -> None:
        """Take the folder away. A process that is still there writes into nothing."""
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _written(self, kind: str) -> list[str]:
        """What processes have written since it was last read; a line that is not complete waits."""
        found = []
        for entry in os.scandir(self._folder):
            position = self._read.get(entry.name, 0)
            if not entry.name.endswith(kind) or entry.stat().st_size == position:
                continue
            with open(entry.path, "rb") as file:  # noqa: PTH123
                file.seek(position)
                blob = file.read()
            complete = blob[: blob.rfind(b"\n") + 1]
            self._read[entry.name] = position + len(complete)
            found += [json.loads(line) for line in complete.splitlines()]
        return found
