"""
The history's writer is killed at any moment.

A process folds a log batch by batch, and is killed with SIGKILL some milliseconds later, again and again; the last one
folds what is left. Claims, after each kill:

1. the tables hold exactly what the log says up to the stored positions, no record more and none less;
2. no position goes back;
3. in the end they hold what the whole log says.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from services.history.store import Store
from streams.records import Result
from tests.breaking import NOON_MS, make_result
from tests.histories import DELIVERED, EXHAUSTED, everything_in, raws, told_by

WORKER = Path(__file__).parent / "workers" / "folding.py"
ROOT = Path(__file__).parents[2]
SEED = 7
KILLS = 6
PARTITIONS = 4
DELIVERIES = 500


def test_after_a_kill_the_tables_are_those_of_the_positions(tmp_path):
    rng = random.Random(SEED)
    log = [raws(results(rng, partition), partition=partition) for partition in range(PARTITIONS)]
    (tmp_path / "log").write_bytes(msgspec.msgpack.encode(log))
    before = dict.fromkeys(range(PARTITIONS), 0)
    midway = 0
    for number in range(KILLS + 1):
        is_last = number == KILLS
        worker = start(tmp_path)
        if not is_last:
            assert worker.stdout is not None
            worker.stdout.readline()  # it has folded a batch
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(worker.pid, signal.SIGKILL)
        worker.communicate(timeout=60)
        assert worker.returncode in ((0,) if is_last else (0, -signal.SIGKILL))
        store = Store(tmp_path / "history")
        positions = before | store.positions()
        found = everything_in(store.path)
        store.close()
        folded = [raw for partition, records in enumerate(log) for raw in records[: positions[partition]]]

        assert found == told_by(folded)
        assert all(positions[partition] >= before[partition] for partition in positions)
        midway += before != positions and len(folded) < sum(map(len, log))
        before = positions

    assert before == {partition: len(records) for partition, records in enumerate(log)}
    assert midway >= 3, "it was hardly ever killed in the middle"


def results(rng: random.Random, partition: int) -> list[Result]:
    """Deliveries that end at once, later, twice, or not yet, mixed up."""
    kinds = [[DELIVERED], [{}, DELIVERED], [{}, {}, EXHAUSTED], [{}], [{}, {"attempt": 1}], [DELIVERED, DELIVERED]]
    found: list[tuple[float, Result]] = []
    for number in range(DELIVERIES):
        at = float(number)
        for attempt, kind in enumerate(rng.choice(kinds), start=1):
            changes = {"attempt": attempt} | kind | {"finished_at_ms": NOON_MS + int(at * 1_000)}
            body = rng.randbytes(rng.choice([0, 20, 2_000]))
            found.append((at, make_result(number, f"int_{partition}_{number % 7}", response_body=body, **changes)))
            at += rng.uniform(0.1, 200)
    return [result for _, result in sorted(found, key=lambda each: each[0])]


def start(folder: Path) -> "subprocess.Popen[bytes]":
    arguments = [str(folder / "history"), str(folder / "log")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(WORKER), *arguments], stdout=subprocess.PIPE, env=environment)
