"""The releases that services of a run are started from."""

import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Release:
    """A tree of code, run with the packages that are installed here."""

    name: str
    folder: Path
    #: What is run with a service's name behind it.
    module: str = "services.cli"


#: What is here.
THIS: Final = Release("this", _ROOT)

#: A release that does not exist yet: every record has a field more.
NEXT: Final = Release("next", _ROOT, "tests.next_release")


def before_the_newest_schema() -> str:
    """
    The commit before the one that released the newest schema: the last one that lacks it.

    Raises:
        LookupError: the history is not here, as in an archive or a shallow clone.
    """
    added = "--diff-filter=A", "--format=%H", "-1", "--", "schemas/released"
    try:
        commit = _git("log", *added).decode().strip()
        return _git("rev-parse", "--verify", "--quiet", f"{commit}^").decode().strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise LookupError("the commit before the newest schema is not here") from error


def of_commit(reference: str, folder: Path) -> Release:
    """
    The release of that commit, unpacked into the folder.

    Raises:
        CalledProcessError: there is no such commit.
    """
    packed = _git("archive", "--format=tar", reference)
    with tarfile.open(fileobj=BytesIO(packed)) as files:
        files.extractall(folder, filter="data")
    return Release(reference, folder)


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", "-C", _ROOT, *arguments], check=True, stdout=subprocess.PIPE).stdout
