"""
`python -m tests.fuzz`: look for inputs that break a law of `targets`, ten minutes a target; exits with 1 where one is.

Inputs that reach new code are kept in `corpus/<target>/`, few and small; one that breaks a law is kept there too, as
`crash-…`, and fails `make test` until it is mended.
"""

import argparse
import hashlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Container
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
TARGETS = ("accept", "codec", "template", "url", "answer")

#: An input is called too slow, and kept as a crash, after so long; all but those with loops take less than 1 ms.
TIMEOUT_S = 10
MAX_INPUT_BYTES = 4_096
#: Of each target, those that reach new code first, then the smallest: people read them, and each `make test` runs them.
MAX_KEPT = 150
MAX_KEPT_BYTES = 1_024

#: What a fuzzer that turns bits would take long to find.
WORDS = {
    "accept": ["type", "payload", "id", "occurredAt", "orderingKey", "scheduled_call", "scheduled.", "tenterhook.",
               "call_ended", "2026-01-31T12:00:00Z", "null", '":', "\\\\u0000", "\\\\ud800"],
    "codec": ["evt_1", "demo", "secret", "public"],
    "template": ["{{", "}}", "{%", "%}", "{%-", "-%}", " | ", "if ", "endif", "for x in ", "endfor", "assign x = ",
                 "capture x", "endcapture", "case ", "when ", "payload", "payload.a", "event", "json", "raw", "(1..9)",
                 "comment", "join: ", "split: ", "date: ", "default: ", "contains", "\\x00", "else", "unless "],
    "url": ["https://", "http://", "@", "\\\\", "[::1]", "[::ffff:", "127.0.0.1", "0x7f", "017700000001", "64:ff9b::",
            "2002:", "{secret.a}", "\\xe3\\x80\\x82", "xn--", "%2e", "%00", ":443", "#", "?", ".example"],
    "answer": ["HTTP/1.1 200 OK\\x0d\\x0a", "HTTP/1.1 100 X\\x0d\\x0a\\x0d\\x0a", "Content-Length: ", "\\x0d\\x0a",
               "Transfer-Encoding: chunked\\x0d\\x0a\\x0d\\x0a", "0\\x0d\\x0a\\x0d\\x0a",
               "Connection: upgrade\\x0d\\x0a", "Upgrade: x\\x0d\\x0a", "Connection: close", "HTTP/1.0 204 X\\x0d\\x0a",
               ";a=b"],
}  # fmt: skip


def main() -> int:
    """The command."""
    asked = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    asked.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="all of them, unless named")
    asked.add_argument("--minutes", type=float, default=10.0, help="for each target")
    given = asked.parse_args()
    broken = [target for target in given.targets or TARGETS if not fuzz(target, given.minutes * 60)]
    for target in broken:
        print(f"{target}: broken, see {CORPUS / target}/crash-*", file=sys.stderr)  # noqa: T201
    return 1 if broken else 0


def fuzz(target: str, seconds: float) -> bool:
    """Look for so long, and keep what was found; whether every law held."""
    kept = CORPUS / target
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{target}-") as name:
        found, merged, words = Path(name, "found"), Path(name, "merged"), Path(name, "words")
        found.mkdir()
        merged.mkdir()
        words.write_text("".join(f'"{_quoted(word)}"\n' for word in WORDS[target]), encoding="utf-8")
        options = [f"-timeout={TIMEOUT_S}", f"-max_len={MAX_INPUT_BYTES}", f"-artifact_prefix={name}/"]
        print(f"-- {target}: {seconds / 60:g} minutes", flush=True)  # noqa: T201
        ended = _run(
            target,
            Path(name),
            f"-max_total_time={seconds:.0f}",
            f"-dict={words}",
            "-verbosity=1",
            *options,
            found,
            kept,
        )
        crashes = [path for path in Path(name).iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]
        if ended == 0:
            control = Path(name, "control")
            _run(target, Path(name), "-merge=1", f"-merge_control_file={control}", *options, merged, kept, found)
            _keep(merged, kept, _new_code(control))
        for path in crashes:
            shutil.copy(path, kept / f"crash-{path.name.partition('-')[2][:16]}")
    return ended == 0 and not crashes


def _quoted(word: str) -> str:
    return word.replace('"', '\\"')


def _new_code(control: Path) -> set[str]:
    """
    SHA-1 of each input that reached code which no smaller one did, as libFuzzer's notes of a merge tell.

    They begin with the number of inputs, a number that does not matter, and the inputs' paths.
    """
    count, _, *lines = control.read_text(encoding="utf-8").splitlines()
    paths, notes = lines[: int(count)], [line.split() for line in lines[int(count) :]]
    reached = (int(note[1]) for note in notes if note[0] == "COV" and len(note) > 2)
    return {hashlib.sha1(Path(paths[number]).read_bytes(), usedforsecurity=False).hexdigest() for number in reached}


def _keep(merged: Path, kept: Path, new_code: Container[str]) -> None:
    """
    Those of what was found that reach new code, then those that reach it in another way, the smallest first, in place
    of those that were there; crashes stay.
    """
    small = [path for path in merged.iterdir() if path.stat().st_size <= MAX_KEPT_BYTES]
    chosen = sorted(small, key=lambda path: (path.name not in new_code, *_size(path)))[:MAX_KEPT]
    for path in kept.iterdir():
        if not path.name.startswith(("crash-", "seed-")):
            path.unlink()
    for path in chosen:
        shutil.copy(path, kept / path.name[:16])


def _size(path: Path) -> tuple[int, str]:
    return path.stat().st_size, path.name


def _run(target: str, folder: Path, *arguments: str | Path) -> int:
    """libFuzzer's exit code. It starts itself again to compare inputs, so it has to have a name of its own."""
    itself = folder / "fuzz"
    itself.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.fuzz.libfuzzer {target} "$0" "$@"\n', encoding="utf-8"
    )
    itself.chmod(0o700)
    return subprocess.run([itself, *arguments], cwd=CORPUS.parents[2], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
