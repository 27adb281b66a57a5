"""Has the kernel end a child process when its parent dies, however that dies. Linux alone has such a thing."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

#: Source: linux/prctl.h.
_PR_SET_PDEATHSIG: Final = 1

#: Loaded before any fork: a child between fork and exec must not load libraries.
_LIBC: Final = ctypes.CDLL(None)


def die_with(parent: int) -> Callable[[], None] | None:
    """
    What `subprocess` calls in the child between fork and exec (`preexec_fn`); None where there is nothing to call.

    It makes two system calls and takes no lock, so that threads of the parent do no harm. The kernel watches the
    parent's thread that forked: start children from the main one.
    """
    if sys.platform != "linux":
        return None

    def ask_kernel() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask_kernel
