"""
What processes cost, as Linux counts it: CPU time and memory of a tree of processes, and who listens on a port.

Reads /proc and nothing else. Processes of other users and other machines are not seen.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_MS_PER_TICK: Final = 1000 / os.sysconf("SC_CLK_TCK")

#: State of a listening socket in /proc/net/tcp. Source: include/net/tcp_states.h.
_LISTENING: Final = "0A"

#: Words in a command line that name the process for people; the last that is found counts.
_SERVICES: Final = ("up", "ingest", "dispatcher", "breaker", "admin")
_BROKERS: Final = ("kafka.Kafka", "tansu")


@dataclass(frozen=True, slots=True)
class Process:
    """A running process. `parent` is its parent's number."""

    pid: int
    parent: int
    name: str


def cpu_ms(pid: int) -> float:
    """CPU time of the process and all its threads since it started, in milliseconds; 0 when it is gone."""
    stat = _stat(pid)
    # Fields 14 and 15 of proc(5), utime and stime; the list begins with field 3.
    return (int(stat[11]) + int(stat[12])) * _MS_PER_TICK if stat else 0.0


def machine_ms() -> float:
    """CPU time that all processors of the machine have been busy since it started, in milliseconds."""
    # user, nice, system, idle, iowait, irq, softirq, steal of proc(5)
    user, nice, system, _, _, *interrupts = (int(each) for each in _first_line(_PROC / "stat").split()[1:9])
    return (user + nice + system + sum(interrupts)) * _MS_PER_TICK


def pss_bytes(pid: int) -> int:
    """
    Memory of the process, what it shares with others in equal parts; 0 when it is gone or not ours to look at.

    Asking takes milliseconds of the process's own time, so not while it is measured.
    """
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def tree(root: int) -> list[Process]:
    """The process and all its descendants, root first."""
    children: dict[int, list[int]] = {}
    parents: dict[int, int] = {}
    for pid in _pids():
        if stat := _stat(pid):
            parents[pid] = int(stat[1])
            children.setdefault(parents[pid], []).append(pid)
    found, waiting = [], [root] if root in parents else []
    while waiting:
        pid = waiting.pop(0)
        found.append(Process(pid, parents[pid], name_of(command_line(pid))))
        waiting += sorted(children.get(pid, []))
    return found


def name_of(argv: list[str]) -> str:
    """What people call a process with this command line: a service's name, `broker`, else the program's."""
    joined = " ".join(argv)
    if any(word in joined for word in _BROKERS):
        return "broker"
    named = [word for word in argv if word in _SERVICES]
    return named[0] if named else Path(argv[0]).name if argv else "?"


def command_line(pid: int) -> list[str]:
    """Its arguments, the program first; empty when it is gone."""
    try:
        return (_PROC / str(pid) / "cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def parent_of(pid: int) -> int | None:
    """Its parent's number; None when it is gone."""
    stat = _stat(pid)
    return int(stat[1]) if stat else None


def listener(port: int) -> int | None:
    """The process on this machine that listens on the TCP port; None where none of ours does."""
    inodes = {f"socket:[{inode}]" for listened, inode in _listening() if listened == port}
    return next((pid for pid in _pids() if inodes & _sockets(pid)), None) if inodes else None


def ports_of(pid: int) -> list[int]:
    """TCP ports that the process listens on."""
    sockets = _sockets(pid)
    return sorted({port for port, inode in _listening() if f"socket:[{inode}]" in sockets})


def _first_line(path: Path) -> str:
    return path.read_text().partition("\n")[0]


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on: the second, its name, may hold blanks."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _pids() -> Iterable[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _sockets(pid: int) -> set[str]:
    found = set()
    try:
        for entry in (_PROC / str(pid) / "fd").iterdir():
            found.add(str(entry.readlink()))
    except OSError:
        pass  # it is gone, or another user's
    return found


def _listening() -> list[tuple[int, str]]:
    """Port and inode of every listening socket."""
    found = []
    for table in ("tcp", "tcp6"):
        try:
            rows = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTENING:
                found.append((int(fields[1].rpartition(":")[2], 16), fields[9]))
    return found
