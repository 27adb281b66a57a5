"""The commands of the documentation: its `sh` blocks, what their lines call, and a terminal to paste them into."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

_FENCE = re.compile(r"^(?P<indent> *)```(?P<kind>\S*)[^\n]*\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`(tenterhook [^`]+)`")
_PUNCTUATION = "();<>|&\n"
#: Words after which a command begins.
_BEFORE_A_COMMAND = {"do", "then", "else", "!"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    #: From the repository's root.
    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of each `tenterhook` in it, in a shell's order."""
        return [words[at + 1 :] for words in commands_in(self.text) if (at := _tenterhook_at(words)) is not None]


@cache
def pages() -> dict[str, str]:
    """Every page by its path: the README, and what the site is made of."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}


def blocks(kind: str = "sh") -> list[Block]:
    """Every block of that kind, in the order of the pages."""
    return [
        Block(page, text[: found.start()].count("\n") + 1, found["kind"], found["text"])
        for page, text in pages().items()
        for found in _FENCE.finditer(text)
        if found["kind"] == kind
    ]


def said_in_passing() -> Iterator[tuple[str, list[str]]]:
    """Page and arguments of each `tenterhook …` in the midst of a sentence."""
    for page, text in pages().items():
        for code in _CODE.findall(_FENCE.sub("", text)):
            if "\n" not in code:
                yield page, shlex.split(code.replace("\\|", "|"))[1:]


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of each simple command; a loop's once for each of its values. As much of a shell as the pages use."""
    text = re.sub(r"\\\n|\d>&\d", " ", text)
    text = re.sub(r"(?m)^(.*<<'?(\w+)'?.*)\n(?:.*\n)*?\2$", r"\1", text)
    text = re.sub(r"(?m)(^|\s)#\s.*$", "", text)
    text = re.sub(r"(?ms)^for (\w+) in ([^;\n]+); do\n(.*?)^done", _unrolled, text)
    text = re.sub(r"\$\([^()]*\)", "SUBSTITUTED", text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=_PUNCTUATION)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    redirected = False
    for token in lexer:
        is_punctuation = bool(token) and set(token) <= set(_PUNCTUATION)
        if is_punctuation and set(token) & {"<", ">"}:
            redirected = True
        elif is_punctuation or (token in _BEFORE_A_COMMAND and not words):
            if words:
                yield words
            words = []
        elif redirected:
            redirected = False
        elif words or not re.match(r"\w+=", token):
            words.append(token)
    if words:
        yield words


def _unrolled(loop: re.Match[str]) -> str:
    name, values, body = loop.groups()
    return "".join(re.sub(rf"\${name}\b|\$\{{{name}\}}", value, body) for value in values.split())


def _tenterhook_at(words: list[str]) -> int | None:
    """Where the command is named: first, or where kubectl and docker are told what to run inside."""
    if Path(words[0]).name == "tenterhook":
        return 0
    if words[0] in {"kubectl", "docker"} and "exec" in words:
        inside = [at for at in range(words.index("exec") + 1, len(words)) if words[at] == "tenterhook"]
        return inside[0] if inside else None
    return None


class Terminal:
    """
    A shell in a folder, into which blocks are pasted.

    Each block is a bash of its own, which ends at the first command that fails; folder, variables and functions go on
    to the next one, and so do processes in the background. What is printed is in `said`.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "shell",
        environment: Mapping[str, object] | None = None,
        replaced: Mapping[str, object] | None = None,
    ) -> None:
        """
        Args:
            name: of this terminal, where a folder has several.
            replaced: what stands in the pages, and what is typed here in its place, the longest first.
        """
        self.folder = folder
        self.replaced = {written: str(typed) for written, typed in (replaced or {}).items()}
        self._state = folder / f".{name}"
        self._state.touch()
        plain = {name: value for name, value in os.environ.items() if not name.startswith("TENTERHOOK_")}
        given = {variable: str(value) for variable, value in (environment or {}).items()}
        # The command of this environment, and not one that happens to be installed.
        self._environment = plain | {"COLUMNS": "160", "PATH": f"{BIN}:{os.environ['PATH']}"} | given
        self._output = folder / f".{name}.said"
        self._output.touch()
        self._running: list[subprocess.Popen[bytes]] = []

    @property
    def said(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def typed(self, text: str) -> str:
        for written in sorted(self.replaced, key=len, reverse=True):
            text = text.replace(written, self.replaced[written])
        return text

    def paste(self, text: str, timeout_s: float = 90.0) -> str:
        """Run it to its end; what it has printed. Fails where a command of it does."""
        before = len(self.said)
        process = self._start(text)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not done within {timeout_s} s:\n{text}\n{self.said[before:]}") from None
        printed = self.said[before:]
        assert code == 0, f"exit code {code} of:\n{self.typed(text)}\nwhich printed:\n{printed}"
        return printed

    def leave_running(self, text: str) -> subprocess.Popen[bytes]:
        """Paste what goes on until Ctrl-C: one command."""
        return self._start(text, exec_=True)

    def wait_for(self, pattern: str, within_s: float = 60.0, running: subprocess.Popen[bytes] | None = None) -> str:
        """Once something is printed, the first group of it; fails when *running* has ended before."""
        until = time.monotonic() + within_s
        while (found := re.search(pattern, self.said)) is None:
            assert running is None or running.poll() is None, f"ended with {running.returncode}:\n{self.said}"
            assert time.monotonic() < until, f"not within {within_s} s: {pattern}\n{self.said}"
            time.sleep(0.05)
        return found[found.lastindex or 0]

    def interrupt(self, process: subprocess.Popen[bytes], timeout_s: float = 45.0) -> int:
        """Ctrl-C; its exit code."""
        os.killpg(process.pid, signal.SIGINT)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"goes on {timeout_s} s after Ctrl-C:\n{self.said}") from None

    def close(self) -> None:
        """Ends everything that was started here."""
        for process in self._running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, text: str, *, exec_: bool = False) -> subprocess.Popen[bytes]:
        typed = self.typed(text)
        if exec_:
            script = f"source {self._state}\nexec env --default-signal=INT {typed.strip()}"
        else:
            kept = f"{{ declare -p | grep -vE '^declare -[a-zA-Z]*r'; declare -f; }} > {self._state}"
            script = f"source {self._state}\nset -euo pipefail\n{typed}\n{kept}\n"
        with self._output.open("ab") as output:
            process = subprocess.Popen(
                ("bash", "-c", script),
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._running.append(process)
        return process
