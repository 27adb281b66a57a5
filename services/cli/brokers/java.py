"""Which Java there is. Apache Kafka 4 needs 17 or newer."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Final

KAFKA_NEEDS: Final = 17

#: `openjdk version "17.0.15" 2025-04-15`; up to Java 8 it was "1.8.0_392".
_VERSION: Final = re.compile(r'version "(?:1\.)?(\d+)')
_ANSWER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Java:
    """One Java: its command and its major version."""

    command: str
    version: int


@cache
def find_java() -> Java | None:
    """That of JAVA_HOME, else that of PATH; None where there is none that runs. Takes 50 ms, once a process."""
    home = os.environ.get("JAVA_HOME")
    command = shutil.which("java", path=f"{home}/bin") if home else None
    command = command or shutil.which("java")
    if command is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603 - the user's own Java
            [command, "-version"], capture_output=True, text=True, timeout=_ANSWER_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.search(answer.stderr)
    return Java(command, int(found[1])) if found else None
