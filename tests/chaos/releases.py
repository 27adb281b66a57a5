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


def of_commit(reference: str, folder: Path) -> Release:
    """
    The release of that commit, unpacked into the folder.

    Raises:
        CalledProcessError: there is no such commit.
    """
    packed = subprocess.run(
        ["git", "-C", _ROOT, "archive", "--format=tar", reference], check=True, stdout=subprocess.PIPE
    ).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as files:
        files.extractall(folder, filter="data")
    return Release(reference, folder)
